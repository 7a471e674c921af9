"""An environment that misbehaves in every way one can, by the task that it is given."""

import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.types import Observation, Task


class Unnamed(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


def _nameless(seen: Observation) -> NoReturn:
    """The type has no name; it is defined here, because pytest asks all of a module's classes."""

    class Nameless(Exception, metaclass=Unnamed): ...

    raise Nameless


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even the message breaks")

    __repr__ = __str__


class Base(BaseException):
    pass


class Classless(Exception):
    @property
    def __class__(self) -> NoReturn:
        raise RuntimeError("no class")


class OddText(str):
    __slots__ = ()

    def strip(self, chars: str | None = None) -> str:
        raise RuntimeError("strip")

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise RuntimeError("encode")


class Incomparable:
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no two are alike")


class OneWay:
    """It can be pickled, and not unpickled."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return True

    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return refuse, ()


def refuse() -> NoReturn:
    raise ValueError("cannot be made again")


def raises(error: BaseException) -> Callable[[Observation], NoReturn]:
    def step(seen: Observation) -> NoReturn:
        raise error

    return step


def changes(**fields: object) -> Callable[[Observation], Observation]:
    return lambda seen: replace(seen, **fields)  # type: ignore[arg-type]


def _recurses(seen: Observation) -> Observation:
    return _recurses(seen)


def _forks(seen: Observation) -> Observation:
    os.fork()  # and both go on
    return seen


def _closes(seen: Observation) -> Observation:
    os.closerange(3, 4096)
    return seen


def _writes(seen: Observation) -> Observation:
    for fd in range(3, 4096):
        try:
            os.write(fd, b"\x00\x00\x00\x10 what is this?")
        except OSError:
            continue
    return seen


def _hangs(seen: Observation) -> NoReturn:
    while True:
        time.sleep(60)


def _spins(seen: Observation) -> NoReturn:
    while True:
        pass


def _undermines(seen: Observation) -> Observation:
    json.dumps = None  # type: ignore[assignment]
    return seen


def _thread(seen: Observation) -> Observation:
    thread = threading.Thread(target=refuse)
    thread.start()
    thread.join()
    return seen


def _prints(seen: Observation) -> Observation:
    print("a line of the environment's", flush=True)
    os.write(1, b"and one below Python\n")
    return seen


def _warns(seen: Observation) -> Observation:
    warnings.warn("deprecated", stacklevel=1)
    return seen


BREAKS: dict[str, tuple[Callable[[Observation], Observation], str]] = {
    "half a character in the message": (raises(ValueError("\ud800 half")), "ValueError: ? half"),
    "a message that cannot be printed": (raises(Unprintable()), "its message cannot be printed"),
    "a type without a name": (_nameless, "an exception: "),
    "a message of megabytes": (raises(ValueError("x" * 20_000_000)), "more characters cut)"),
    "a message of several lines": (raises(ValueError("a\nb\x1b[2J\rc")), "ValueError: a b [2J c"),
    "an exception of no kind": (raises(Base("base")), "Base: base"),
    "an interrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
    "the end of a generator": (raises(GeneratorExit()), "GeneratorExit"),
    "an exit with a text": (raises(SystemExit("bye")), "SystemExit: bye"),
    "recursion": (_recurses, "RecursionError"),
    "no memory": (raises(MemoryError()), "MemoryError"),
    "half a character": (changes(text="\ud800"), "half a surrogate pair"),
    "a reward that is no number": (changes(reward=math.nan), "reward is nan"),
    "rewards that overflow": (changes(reward=1.7e308), "float32 cannot add up"),
    "an integer that overflows": (changes(reward=10**400), "float32 cannot add up"),
    "a score that overflows": (changes(score=1e300), "float32 cannot add up"),
    "a state that compares with nothing": (changes(state=Incomparable()), "cannot be compared"),
    "a state that cannot be pickled": (changes(state=lambda: 0), "pickle"),
    "a state that cannot be unpickled": (changes(state=OneWay()), "cannot be made again"),
    "a state of megabytes": (changes(state="x" * 3_000_000), "use a short key"),
    "all connections closed": (_closes, "closed the connection"),
    "bytes into all connections": (_writes, "wrote into the connection"),
    "a quick exit": (lambda seen: os._exit(0), "died (exit code 0)"),
    "a crash": (lambda seen: os.kill(os.getpid(), signal.SIGSEGV), "died (exit code -11)"),  # type: ignore[dict-item,func-returns-value]
    "an exception without a class": (raises(Classless()), "Classless: "),
    "json.dumps taken away": (_undermines, "changed functions of Python that its worker"),
    "sleep": (_hangs, "no answer within its deadline"),
    "a loop": (_spins, "no answer within its deadline"),
}
"""By name: what the second step does, and a part of the reason that is recorded."""
HARMLESS: dict[str, Callable[[Observation], Observation]] = {
    "a text of 100 MB": changes(text="word " * 20_000_000),
    "a hundred thousand actions": changes(actions=tuple(map(str, range(100_000)))),
    "a text of its own kind": changes(text=OddText("hello")),
    "a fork that goes on": _forks,
    "a thread that dies": _thread,
    "prints": _prints,
    "warnings": _warns,
    "a nested state": changes(state=(1, ("a", b"\xff", None, 0.5), frozenset({2}))),
}
"""By name: what the second step does, which costs no episode."""


@dataclass(frozen=True)
class Misbehaving:
    """Doors, in which the second step of a task does what its data say."""

    only: str = ""  # for every task, with `AFTER` steps before it
    after: int = 0

    def tasks(self, split: str) -> list[Task]:
        if self.only:
            return [replace(task, data={**task.data, "kind": self.only}) for task in doors()]
        return [
            Task(id=kind, data={**task.data, "kind": kind})
            for task, kind in zip(doors() * 20, [*BREAKS, *HARMLESS], strict=False)
        ]

    def make(self) -> "MisbehavingEnv":
        return MisbehavingEnv(self)


def doors() -> list[Task]:
    return Doors(3).tasks("train")


STEPS = 0  # of this process


class MisbehavingEnv(DoorsEnv):
    def __init__(self, suite: Misbehaving) -> None:
        super().__init__()
        self.suite, self.kind, self.steps = suite, "", 0

    def reset(self, task: Task) -> Observation:
        self.kind, self.steps = task.data.get("kind", ""), 0
        return super().reset(task)

    def step(self, action: str) -> Observation:
        global STEPS
        seen = super().step(action)
        self.steps, STEPS = self.steps + 1, STEPS + 1
        due = self.steps == 2 if not self.suite.after else STEPS % self.suite.after == 0
        if not due or not self.kind:
            return seen
        return BREAKS[self.kind][0](seen) if self.kind in BREAKS else HARMLESS[self.kind](seen)
