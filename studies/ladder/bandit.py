"""A bandit of two turns: the first choice pays little at once and decides what the second can pay."""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.types import Observation, Task

START = "a"
FIRST = {"1": (0.2, "b"), "3": (0.1, "c"), "4": (0.0, "d")}
"""What the first choice pays, and the letter that is seen after it."""
SECOND = {
    "b": {"1": 0.1, "3": 0.2, "4": 0.0},
    "c": {"1": 0.0, "3": 0.1, "4": 0.3},
    "d": {"1": 0.2, "3": 1.0, "4": 0.1},
}
"""What the second choice pays, by letter. A choice that is not there pays nothing."""
OPTIMUM = 1.0
PLAN = ("4", "3")
"""The only way to the optimum: it begins with the choice that pays nothing at once."""
SPLITS = ("train", "seen", "unseen")


@dataclass(frozen=True)
class Bandit:
    """`count` tasks that are all the same game."""

    count: int = 8

    def tasks(self, split: str) -> list[Task]:
        if split not in SPLITS:
            raise ValueError(f"the bandit has no split {split!r}; it has {', '.join(SPLITS)}")
        return [Task(id=f"bandit/{split}/{k}", family="bandit") for k in range(self.count)]

    def make(self) -> "BanditEnv":
        return BanditEnv()

    def demonstrate(self, task: Task) -> Sequence[str]:
        return PLAN

    def plan(self, task: Task) -> Sequence[str]:
        return PLAN


class BanditEnv:
    def __init__(self) -> None:
        self.letter, self.paid = START, 0.0

    def reset(self, task: Task) -> Observation:
        self.letter, self.paid = START, 0.0
        return Observation(text=START, state=START, actions=tuple(FIRST))

    def step(self, action: str) -> Observation:
        first = self.letter == START
        if first:
            reward, after = FIRST.get(action, (0.0, "b"))
        else:
            reward, after = SECOND[self.letter].get(action, 0.0), "the end"
        self.paid += reward
        self.letter = after
        return Observation(
            text=after,
            reward=reward,
            done=not first,
            state=after,
            score=self.paid / OPTIMUM,
            won=None if first else self.paid == OPTIMUM,
            valid=action in FIRST,
            actions=tuple(FIRST) if first else (),
        )

    def close(self) -> None:
        pass
