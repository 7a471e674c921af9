"""A tiny game for tests and tutorials.

Each room shows a letter, and a hidden rule says which digit opens its door.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.types import Observation, Task

RULE = {"a": "3", "b": "1", "c": "4"}
MOST_ROOMS = 10
SPLITS = ("train", "seen", "unseen")


@dataclass(frozen=True)
class Doors:
    """Every sequence of `rooms` letters is a task; it is won if every door was opened."""

    rooms: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.rooms <= MOST_ROOMS:
            raise ValueError(
                f"rooms must be from 1 to {MOST_ROOMS}, got {self.rooms}: there are 3 ** rooms tasks"
            )

    def tasks(self, split: str) -> list[Task]:
        if split not in SPLITS:
            raise ValueError(f"doors has no split {split!r}; it has {', '.join(SPLITS)}")
        paths = [""]
        for _ in range(self.rooms):
            paths = [path + letter for path in paths for letter in RULE]
        return [Task(id=f"doors/{path}", data={"path": path}) for path in paths]

    def make(self) -> "DoorsEnv":
        return DoorsEnv()

    def demonstrate(self, task: Task) -> Sequence[str]:
        return [RULE[letter] for letter in task.data["path"]]

    def plan(self, task: Task) -> Sequence[str]:
        return self.demonstrate(task)

    def instructions(self) -> str:
        return "Answer each letter with its digit."


class DoorsEnv:
    def __init__(self) -> None:
        self.path, self.room, self.opened = "", 0, 0

    def reset(self, task: Task) -> Observation:
        self.path, self.room, self.opened = task.data["path"], 0, 0
        return Observation(text=self.path[0], state=(0, 0), actions=tuple(RULE.values()))

    def step(self, action: str) -> Observation:
        right = action == RULE[self.path[self.room]]
        self.room, self.opened = self.room + 1, self.opened + right
        done = self.room == len(self.path)
        return Observation(
            text="the end" if done else self.path[self.room],
            reward=float(right),
            done=done,
            state=(self.room, self.opened),
            score=self.opened / len(self.path),
            won=self.opened == len(self.path) if done else None,
            valid=action in RULE.values(),
            actions=() if done else tuple(RULE.values()),
        )

    def close(self) -> None:
        pass
