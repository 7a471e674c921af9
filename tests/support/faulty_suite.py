"""A suite that raises where it is told to, in a module that a worker process imports quickly."""

from collections.abc import Sequence

from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.types import Task


class Faulty(Doors):
    """Everything that a suite can get wrong before a run has begun."""

    def __init__(self, where: str = "") -> None:
        object.__setattr__(self, "rooms", 1)
        object.__setattr__(self, "where", where)
        if where == "init":
            raise RuntimeError("no such machine")

    def tasks(self, split: str) -> list[Task]:
        if vars(self)["where"] == "tasks":
            raise OSError("no such machine")
        return super().tasks(split)

    def make(self) -> DoorsEnv:
        if vars(self)["where"] == "make":
            raise OSError("no such machine")
        return super().make()

    def demonstrate(self, task: Task) -> Sequence[str]:
        if vars(self)["where"] == "demonstrate":
            raise OSError("no such machine")
        return super().demonstrate(task)
