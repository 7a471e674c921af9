"""A session: all that playing needs, the suite and its workers, the policies, the prompts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tutelage.config.schema import InvalidPenalty, RolloutSection
from tutelage.envs.base import Suite
from tutelage.envs.pool import Pool
from tutelage.errors import ConfigError
from tutelage.hints import Hints
from tutelage.objective import Algorithm, View
from tutelage.policies.base import Policy, Prefetches
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Prompter
from tutelage.types import Episode, Task

_ROLLOUT = RolloutSection()  # the one home of the defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends a turn or an episode, and what an invalid turn costs: [rollout]'s settings."""

    max_turns: int = _ROLLOUT.max_turns
    max_new_tokens: int = _ROLLOUT.max_new_tokens  # a turn
    concurrency: int = _ROLLOUT.concurrency  # episodes at a time
    temperature: float = _ROLLOUT.temperature
    invalid_penalty: InvalidPenalty = _ROLLOUT.invalid_penalty
    retries: int = 2  # times that a broken episode is played again

    @property
    def penalties(self) -> Mapping[str, float]:
        """What an invalid turn costs by its kind, "format" (no readable action) and "refused" (by
        the environment); a kind that is left out is not invalid."""
        penalty = self.invalid_penalty
        if isinstance(penalty, dict):
            return {str(kind): value for kind, value in penalty.items()}
        return {"format": penalty, "refused": penalty}


@dataclass(slots=True)
class Clock:
    """Seconds by phase, for people; never part of a result."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, since: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - since


Ready = Callable[[Sequence[Task], Algorithm, int], None]


@dataclass(kw_only=True)
class Session:
    """All that playing needs: the suite and where it runs, the policies, how they are prompted."""

    suite: Suite
    pool: Pool
    policies: Mapping[str, Policy]
    context: Context
    limits: Limits
    clock: Clock = field(default_factory=Clock)
    tick: Callable[[int, int], None] = lambda done, total: None
    hints: Hints = field(default_factory=Hints)
    ready: Ready = lambda tasks, algorithm, step: None  # before tasks are played: make hints

    def prompter(self, view: View, task: Task) -> Prompter:
        actor = self.policies.get(view.policy)
        if actor is None:
            raise ConfigError(
                f"the algorithm wants a policy {view.policy!r}, but there is none; "
                f"there are {', '.join(sorted(self.policies))}"
            )
        return Prompter(
            chat=actor.chat,
            context=self.context,
            hint=self.hints.text(self.suite, task, view.hint),
        )


def foresee(session: Session, algorithm: Algorithm, episode: Episode) -> None:
    """Let policies that work elsewhere begin to score a finished episode while others are played.
    Where hindsight is told, it takes all episodes of the task, and scoring waits for them."""
    if not algorithm.terms or episode.stop.broken:
        return
    for view in algorithm.views.values():
        policy = session.policies.get(view.policy)
        if isinstance(policy, Prefetches) and view.hindsight is None:
            policy.prefetch_scores(session.prompter(view, episode.task).samples(episode))
