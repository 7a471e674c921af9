"""Household tasks whose plans are wrong for a share of the tasks: what a retriever that errs would show."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tutelage.types import Task
from tutelage_worlds.household.generate import FAMILIES
from tutelage_worlds.household.suite import Household


@dataclass(frozen=True, slots=True, kw_only=True)
class Misled(Household):
    """`wrong` is the share of generated tasks whose plan is that of the next task of their family."""

    wrong: float = 0.0

    def plan(self, task: Task) -> Sequence[str]:
        return Household.plan(self, following(task) if is_misled(task, self.wrong) else task)


def is_misled(task: Task, share: float) -> bool:
    """Whether a task is among the share whose plan is wrong: always the same tasks, and those of a
    smaller share are among those of a larger one.

    >>> tasks = [Task(id=str(n)) for n in range(1000)]
    >>> [sum(is_misled(task, share) for task in tasks) for share in (0.0, 0.3, 1.0)]
    [0, 324, 1000]
    """
    digest = hashlib.sha256(task.id.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def following(task: Task) -> Task:
    """The next generated task of the same family, whose plan is well formed and wrong for this one."""
    return replace(task, seed=task.seed + len(FAMILIES))
