"""Environments that break their contract in every way one can: for tests of pools and rollouts."""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.types import Observation, Task

TAME = (
    "reset raises",
    "step raises",
    "step returns text",
    "reset returns nothing",
    "reward is not a number",
    "reward is a word",
    "score is not a number",
    "state is a list",
    "half a character",
    "done is a word",
    "actions are numbers",
)
"""What a pool in the same process survives."""
WILD = ("exits", "is killed", "hangs", "hangs at reset", "leaves")
"""What only a pool of processes survives."""


@dataclass(frozen=True)
class Trouble:
    """Doors of three rooms, in which some tasks break at the second step.

    folder  where a task leaves a mark, so that it breaks once only; empty for always
    """

    kinds: tuple[str, ...] = TAME
    folder: str = ""

    def tasks(self, split: str) -> list[Task]:
        good = Doors(3).tasks(split)[: len(self.kinds) + 3]
        bad = [
            replace(task, id=f"bad/{kind}", data={**task.data, "kind": kind})
            for task, kind in zip(good, self.kinds, strict=False)
        ]
        return [*bad, *good[len(bad) :]]

    def make(self) -> "TroubleEnv":
        return TroubleEnv(self.folder)

    def demonstrate(self, task: Task) -> Sequence[str]:
        return Doors(3).demonstrate(task)

    def plan(self, task: Task) -> Sequence[str]:
        return Doors(3).plan(task)


class TroubleEnv:
    def __init__(self, folder: str) -> None:
        self.folder, self.inner, self.kind, self.steps = folder, DoorsEnv(), "", 0

    def _due(self, kind: str) -> bool:
        """Whether it is time to break this way."""
        if self.kind != kind:
            return False
        mark = Path(self.folder) / kind.replace(" ", "-") if self.folder else None
        if mark is not None and mark.exists():
            return False
        if mark is not None:
            mark.touch()
        return True

    def reset(self, task: Task) -> Observation:
        self.kind, self.steps = task.data.get("kind", ""), 0
        if self._due("reset raises"):
            raise RuntimeError("no world today")
        if self._due("reset returns nothing"):
            return None  # type: ignore[return-value]
        if self._due("hangs at reset"):
            time.sleep(3600)
        return self.inner.reset(task)

    def step(self, action: str) -> Observation:
        self.steps += 1
        result = self.inner.step(action)
        return result if self.steps < 2 else self._broken(result)

    def _broken(self, observation: Observation) -> Observation:
        if self._due("step raises"):
            raise ValueError("the floor gave way")
        if self._due("step returns text"):
            return "a room"  # type: ignore[return-value]
        if self._due("exits"):
            os._exit(3)
        if self._due("is killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._due("leaves"):
            sys.exit(5)
        if self._due("hangs"):
            time.sleep(3600)
        wrong = {
            "reward is not a number": {"reward": math.nan},
            "reward is a word": {"reward": "1"},
            "score is not a number": {"score": math.inf},
            "state is a list": {"state": [1]},
            "half a character": {"text": "\ud800"},
            "done is a word": {"done": "no"},
            "actions are numbers": {"actions": (1, 2)},
        }
        for kind, change in wrong.items():
            if self._due(kind):
                return replace(observation, **change)
        return observation

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True)
class NoWorld:
    """A suite whose environments cannot even be made, or cannot be closed."""

    make_works: bool = False

    def tasks(self, split: str) -> list[Task]:
        return Doors(2).tasks(split)

    def make(self) -> "Stuck":
        if not self.make_works:
            raise OSError("no licence")
        return Stuck()


class Stuck(DoorsEnv):
    def close(self) -> None:
        raise RuntimeError("the door is stuck")


@dataclass(frozen=True)
class Closing:
    """Doors whose environments take `seconds` to be closed, or raise if it is negative."""

    seconds: float = 0.0

    def tasks(self, split: str) -> list[Task]:
        return Doors(2).tasks(split)

    def make(self) -> "ClosingEnv":
        return ClosingEnv(self.seconds)


class ClosingEnv(DoorsEnv):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def close(self) -> None:
        if self.seconds < 0:
            raise RuntimeError("the door is stuck")
        time.sleep(self.seconds)


class Never:
    """A state that hashes and cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("no two are alike")

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True)
class Odd:
    """Doors of which one observation, that of the second step, has other values."""

    change: tuple[tuple[str, object], ...] = ()
    local_state: bool = False  # whether its state cannot be sent from process to process

    def tasks(self, split: str) -> list[Task]:
        return Doors(3).tasks(split)

    def make(self) -> "OddEnv":
        return OddEnv(self)


class OddEnv(DoorsEnv):
    def __init__(self, suite: Odd) -> None:
        super().__init__()
        self.suite = suite

    def step(self, action: str) -> Observation:
        seen = super().step(action)
        if self.suite.local_state:
            seen = replace(seen, state=lambda: 0)
        change: dict[str, Any] = dict(self.suite.change)
        return replace(seen, **change) if self.room == 2 else seen


@dataclass(frozen=True)
class Slow:
    """An environment whose answer waits: an action is "WAIT WORD", WAIT the seconds it takes
    or the path of a file whose appearance it waits for."""

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"slow/{k}") for k in range(8)]

    def make(self) -> "SlowEnv":
        return SlowEnv()


class SlowEnv:
    def __init__(self) -> None:
        self.words: list[str] = []

    def reset(self, task: Task) -> Observation:
        self.words = [task.id]
        return Observation(text="ready")

    def step(self, action: str) -> Observation:
        until, _, word = action.partition(" ")
        if "/" in until:
            while not Path(until).exists():
                time.sleep(0.01)
        else:
            time.sleep(float(until))
        self.words.append(word)
        return Observation(text=" ".join(self.words), reward=float(os.getpid()))

    def close(self) -> None:
        pass


HEAVY_SECONDS = 5.0


class Heavy(Slow):
    """A suite whose import takes longer than the deadline that its test sets."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _arrive, ()


def _arrive() -> Slow:
    time.sleep(HEAVY_SECONDS)
    return Slow()


class Locking(Doors):
    """Its environments make a lock."""

    def make(self) -> DoorsEnv:
        return LockingEnv()


class LockingEnv(DoorsEnv):
    def reset(self, task: Task) -> Observation:
        name = multiprocessing.Lock()._semlock.name  # type: ignore[attr-defined]
        return Observation(text=f"a lock named {name}")
