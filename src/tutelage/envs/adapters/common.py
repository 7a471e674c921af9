"""Helpers of all adapters: tasks from seeds, imports with an install hint, who has won, and an event
loop for code that is asynchronous."""

import asyncio
import importlib
import os
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

from tutelage.envs.generated_tasks import LazyTasks
from tutelage.errors import EnvError
from tutelage.types import Task

SPLITS: Final = ("train", "dev", "test")
TRAIN, DEV, TEST = 10_000, 500, 500
APART: Final = 1_000_000_000
"""Distance between the first seeds of two splits; all seeds fit numpy's 32 bits."""

T = TypeVar("T")
Won = float | str
"""The reward from which an episode is won, or the key of `info` that tells whether it is."""


def seeds(name: str, split: str, train: int = TRAIN, dev: int = DEV, test: int = TEST) -> LazyTasks:
    """A split whose tasks are seeds; no two splits share one.

    Raises ValueError for a split that does not exist, or a length that cannot be.
    """
    lengths = dict(zip(SPLITS, (train, dev, test), strict=True))
    if split not in lengths:
        raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    if not 0 <= lengths[split] <= APART:
        raise ValueError(f"{split} = {lengths[split]}: a split has 0 to {APART:,} tasks.")
    return LazyTasks(split, lengths[split], _seeded, (name, split))


def _seeded(name: str, split: str, index: int) -> Task:
    return Task(
        id=f"{name}/{split}/{index:07d}",
        family=name,
        seed=SPLITS.index(split) * APART + index,
    )


def imported(module: str, install: str) -> Any:
    """Import a package. Raises EnvError with `install` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvError(f"{module} could not be imported ({error}): {install}") from error


def is_won(rule: Won, reward: float, info: Mapping[str, Any], where: str) -> bool:
    """Whether a finished episode is won. Raises EnvError if `info` has no such key."""
    if not isinstance(rule, str):
        return reward >= rule
    if rule not in info:
        keys = ", ".join(map(str, info)) or "nothing"
        raise EnvError(
            f"at the end {where} has no {rule!r} (it has {keys}); set `won` to one of its keys, or "
            "to the reward from which an episode is won"
        )
    return bool(info[rule])


def short(text: str) -> str:
    """A text quoted on one line, shortened to 40 characters."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


class EventLoop:
    """An event loop in a thread of its own: the caller may have one that runs, as a notebook does."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True, name="event loop").start()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns; it is cancelled if the caller is interrupted."""
        result = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return result.result()
        except BaseException:
            result.cancel()
            raise


_LOOPS: list[EventLoop] = []


def event_loop() -> EventLoop:
    """The event loop of this process; a process that was forked has another."""
    if not _LOOPS or _LOOPS[-1].process != os.getpid():
        _LOOPS.append(EventLoop())
    return _LOOPS[-1]
