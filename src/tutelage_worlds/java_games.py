"""Games in a JVM that is replaced when it dies: what the suites share whose simulator is in Java."""

import atexit
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from tutelage.errors import ConfigError, EnvError, install
from tutelage_worlds.java import Gone, Java, Late, ref

T = TypeVar("T")


class InMachine(Protocol):
    """Where a game is."""

    @property
    def java(self) -> Java:
        """The machine that holds it."""
        ...


P = TypeVar("P", bound=InMachine)


@dataclass(slots=True, eq=False, kw_only=True)
class Game(Generic[P]):
    """Enough of a game to play it again, and where it is while its machine lives.

    freed    where places go that no game holds any longer
    actions  so far
    place    None before the game has begun, after its end, and where its machine was replaced
    """

    freed: deque[P]
    actions: list[str] = field(default_factory=list)
    place: P | None = None

    def end(self) -> None:
        """No further actions. Its place is freed, or used again, when the next game begins."""
        if self.place is not None:
            self.freed.append(self.place)
            self.place = None

    def __del__(self) -> None:
        self.end()  # makes no call: garbage may be collected in the middle of one


G = TypeVar("G", bound=Game[Any])
M = TypeVar("M", bound="Machine[Any, Any]")


class Machine(ABC, Generic[G, P]):
    """A machine with a bounded heap. It starts when it is needed, and another one does when it has
    died: games are restarted there, their actions repeated.

    heap    of the machine in MB
    suite   the suite's name, for messages
    starts  machines so far
    """

    suite: ClassVar[str]

    def __init__(self, heap: int) -> None:
        self.heap = heap
        self.starts = 0
        self._java: Java | None = None
        self._freed: deque[P] = deque()
        self._lock = RLock()

    @property
    def process(self) -> int | None:
        """The machine's process, while it lives."""
        return self._java.process.pid if self._java is not None and self._java.alive else None

    def shutdown(self) -> None:
        """End the machine. Its games go on in the next one, which starts when it is needed."""
        with self._lock:
            if self._java is not None:
                self._java.end()
                self._java = None

    @abstractmethod
    def _start(self) -> Java:
        """A new machine."""

    def _prepare(self, java: Java) -> None:
        """Load what a new machine needs before the first game."""

    @abstractmethod
    def _rebuild(self, java: Java, game: G) -> P:
        """A game as it was, in this machine."""

    def _running(self) -> Java:
        if self._java is None or not self._java.alive:
            self.shutdown()
            self._java = java = self._start()
            self.starts += 1
            # The simulators write every action to their output, which is not read: it would fill
            # up, and the machine would wait. Scala keeps the output that it finds when it is loaded.
            sink = java.call("z:java.io.OutputStream", "nullOutputStream")
            java.call("z:java.lang.System", "setOut", java.new("java.io.PrintStream", ref(sink)))
            self._prepare(java)
        return self._java

    def _twice(self, do: Callable[[Java], T]) -> T:
        """Do something in a living machine, and again in another one if the first dies of it."""
        for last in (False, True):
            try:
                return do(self._running())
            except Late:
                self.shutdown()
                raise
            except Gone as error:
                self.shutdown()
                if last:
                    raise EnvError(
                        f"{self.suite}'s machine failed twice at the same place ({error}); if its "
                        f"heap is too small, set env.options.heap to more than {self.heap} MB"
                    ) from None
        raise AssertionError("there are two tries")

    def _alive(self, game: G, do: Callable[[P], T]) -> T:
        """Do something in a game, in whatever machine."""

        def played(java: Java) -> T:
            place: P | None = game.place
            if place is None or place.java is not java:
                game.place = place = self._rebuild(java, game)
            return do(place)

        return self._twice(played)


def machine(kind: type[M], heap: int) -> M:
    """This process's machine of a kind, with a heap of `heap` MB."""
    found: M = _machine(kind, heap, os.getpid())
    return found


@lru_cache(maxsize=8)
def _machine(kind: type[M], heap: int, process: int) -> M:
    found = kind(heap)
    atexit.register(found.shutdown)
    return found


def jars(suite: str, package: str, jar: str) -> tuple[Path, Path]:
    """py4j's classes, and the simulator's: a file of an installed package.

    Raises ConfigError where one of them is not installed.
    """
    try:
        found = distribution(package)
        distribution("py4j")
    except PackageNotFoundError:
        raise ConfigError(
            f"the package in which {suite}'s simulator comes is not installed: {install(suite)}"
        ) from None
    from py4j.java_gateway import find_jar_path

    return Path(find_jar_path()), Path(str(found.locate_file(jar)))


def strings(java: Java, listed: Any) -> list[str]:
    """The strings of a list in Java, which is dropped there. None of them has a line end."""
    joined = str(java.call("z:java.lang.String", "join", "\n", listed))
    java.drop(listed)
    return joined.split("\n") if joined else []
