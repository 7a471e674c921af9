"""Skill selection by an upper confidence bound on the rewards of episodes with each skill."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tutelage.errors import RunError
from tutelage.types import Task


@dataclass(slots=True, kw_only=True)
class Arm:
    """A skill in one family of tasks: how often it was chosen, and its rewards."""

    chosen: int = 0
    rewarded: int = 0  # less than `chosen` within a step, and where episodes failed
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.rewarded if self.rewarded else 0.0


@dataclass(slots=True, kw_only=True)
class Bandit:
    """UCB1 (Auer et al. 2002) as in Skill-SD (arXiv:2604.10674): choose the skill with the largest

        mean reward + sqrt(2) sqrt(ln N / n)

    for n of N choices; unused skills first, ties in the bank's order. Each task family has its own
    counts, since what helps to clean does not help to find a lamp. Skills are chosen for all tasks
    of a step before the first is played, so a choice counts in n at once and its reward at the end
    of the step.
    """

    arms: dict[str, dict[str, Arm]] = field(default_factory=dict)  # family -> skill
    now: dict[str, str] = field(default_factory=dict)  # task id -> skill, in the current step

    def begin(self, tasks: Iterable[Task], skills: Sequence[str]) -> None:
        """Choose a skill for each task that is about to be played and has none in this step."""
        for task in tasks:
            if task.id not in self.now:
                name = self._choose(task.family, skills)
                self._arm(task.family, name).chosen += 1
                self.now[task.id] = name

    def settle(self, rewards: Mapping[str, tuple[str, float]]) -> None:
        """End a step: task id -> its family and the mean reward of its episodes."""
        for task, (family, reward) in rewards.items():
            if task in self.now:
                arm = self._arm(family, self.now[task])
                arm.rewarded += 1
                arm.total += reward
        self.now = {}

    def skill_of(self, task: Task, skills: Sequence[str]) -> str:
        """The skill of a task: the one chosen in this step, or outside of training the best so far."""
        return self.now.get(task.id) or max(
            skills, key=lambda name: (self._seen(task.family, name), -skills.index(name))
        )

    def _seen(self, family: str, name: str) -> tuple[bool, float]:
        arm = self.arms.get(family, {}).get(name, Arm())
        return arm.rewarded > 0, arm.mean

    def _arm(self, family: str, name: str) -> Arm:
        return self.arms.setdefault(family, {}).setdefault(name, Arm())

    def _choose(self, family: str, skills: Sequence[str]) -> str:
        arms = [self._arm(family, name) for name in skills]
        unused = [name for name, arm in zip(skills, arms, strict=True) if not arm.chosen]
        if unused:
            return unused[0]
        total = sum(arm.chosen for arm in arms)
        bounds = [arm.mean + math.sqrt(2) * math.sqrt(math.log(total) / arm.chosen) for arm in arms]
        return skills[bounds.index(max(bounds))]

    # -- as part of a checkpoint

    def state(self) -> dict[str, dict[str, dict[str, float]]]:
        """Everything except the current step, for JSON."""
        return {
            family: {name: asdict(arm) for name, arm in arms.items()}
            for family, arms in self.arms.items()
        }

    def restore(self, state: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        try:
            self.arms = {
                family: {
                    name: Arm(
                        chosen=int(arm["chosen"]),
                        rewarded=int(arm["rewarded"]),
                        total=float(arm["total"]),
                    )
                    for name, arm in arms.items()
                }
                for family, arms in state.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"the skill statistics of a checkpoint cannot be read ({error}); continue from "
                "another checkpoint, or start a new run"
            ) from error
        self.now = {}
