"""Noticing a suite that lists its tasks in another order than before: steps draw them by position, so
that a resumed run would train on others."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tutelage.envs.base import Suite
from tutelage.envs.guard import attempt
from tutelage.envs.registry import SHIPPED
from tutelage.envs.supervised import SupervisedSuite, SupervisedTasks
from tutelage.errors import EnvError, RunError
from tutelage.runs import meta
from tutelage.types import Task

FACT = "tasks"
"""Their name in meta.json."""
SAMPLE = 16
"""Positions that are compared: lists of thousands of tasks are asked for one by one."""
FIX = "let `tasks` give the same list at each call, such as a sorted one (sets and folders have no order)"

Order = Mapping[str, object]
"""The number of tasks, and the ids at some positions: {"count": 9, "0": "a", "4": "b"}."""


def order_of(tasks: Sequence[Task]) -> Order:
    """The number of tasks with the ids at up to `SAMPLE` positions, which depend on it alone."""
    count = len(tasks)
    return {"count": count, **{str(k): tasks[k].id for k in places(count)}}


def places(count: int) -> list[int]:
    """The positions that are compared of so many tasks, in order."""
    return sorted(random.Random(count).sample(range(count), min(SAMPLE, count)))


def difference(before: Mapping[str, object], now: Order) -> str:
    """What differs, in words; empty where nothing does."""
    if before.get("count") != now["count"]:
        return f"{now['count']} tasks instead of {before.get('count')}"
    for place, found in now.items():
        if before.get(place) != found:
            return f"{found!r:.80} as task {place}, where {before.get(place)!r:.80} was"
    return ""


def refuse_unsteady(order: Order, suite: Suite, name: str, split: str) -> Sequence[Task] | None:
    """Ask the suite for its tasks once more, which are returned; None for a suite of this project,
    which need not be asked. Raises EnvError where they are in another order.

    A user's suite is asked in another process, which has other hashes: that is how a set of texts
    gets another order when a run is resumed.
    """
    if name in SHIPPED:
        return None
    if isinstance(suite, SupervisedSuite):
        again: Sequence[Task] = SupervisedTasks(split, suite.supervisor)
    else:
        again = attempt(f"tasks({split!r})", partial(suite.tasks, split))
    if differs := difference(order, order_of(again)):
        raise EnvError(
            f"env.suite: tasks({split!r}) lists {differs} a moment ago, so that no step could be "
            f"drawn again; {FIX}"
        )
    return again


def refuse_other(path: Path, order: Order, split: str) -> None:
    """Raises RunError where the run at `path` began with other tasks; runs of older versions have no
    record of them."""
    before = meta.recorded(path).get(FACT)
    if isinstance(before, dict) and (differs := difference(before, order)):
        raise RunError(
            f"tasks({split!r}) of the suite lists {differs} when {path} began, so the run cannot be "
            f"continued to the same result; {FIX}, or start a new run in another run.folder"
        )
