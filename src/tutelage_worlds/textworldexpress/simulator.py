"""TextWorldExpress's simulator: many games in one JVM, which is replaced when it dies.

Each game has an interface of the simulator. All that games share is the things of `sorting`: a table
of a hundred problems for each split has the objects themselves, so that two games with one problem
would take them from each other. A game gets a copy of its problem.
"""

import atexit
import json
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from threading import RLock
from typing import Final, NamedTuple, TypeVar

from tutelage.errors import ConfigError, EnvError, install
from tutelage_worlds.java import Gone, Java, Late, Ref, ref

T = TypeVar("T")
NAME: Final = "textworldexpress"
INTERFACE: Final = "textworldexpress.runtime.PythonInterface"
PROBLEMS: Final = "textworldexpress.data.SortingProblemGenerator$"
PROBLEM: Final = "textworldexpress.preprocessing.SortingProblem"
DEADLINE: Final = 120.0
"""Seconds that anything may take before a machine is given up."""


class Shown(NamedTuple):
    """What the simulator says after an action."""

    text: str
    score: float  # 1 where the game is won; below 0 in some games that are lost
    won: bool
    lost: bool
    look: str  # the room as it is now; empty where there is none
    inventory: str
    actions: tuple[str, ...]  # those that are possible now, sorted


@dataclass(frozen=True, slots=True)
class Which:
    """A game as the simulator knows it."""

    name: str
    params: str
    seed: int
    fold: str


class Place(NamedTuple):
    """Where a game is: an interface of the simulator, which holds one game."""

    java: Java
    interface: Ref


@dataclass(slots=True, eq=False)
class Game:
    """Enough of a game to play it again, and where it is while its machine lives."""

    which: Which
    freed: deque[Place]
    actions: list[str] = field(default_factory=list)
    place: Place | None = None

    def end(self) -> None:
        """No further actions. Its interface is used by a game that begins later."""
        if self.place is not None:
            self.freed.append(self.place)
            self.place = None

    def __del__(self) -> None:
        self.end()  # makes no call: garbage may be collected in the middle of one


def files() -> tuple[Path, Path]:
    """py4j's classes and the simulator's. Raises ConfigError where they are not installed."""
    try:
        package = distribution("textworld-express")
        distribution("py4j")
    except PackageNotFoundError:
        raise ConfigError(
            f"the package in which TextWorldExpress comes is not installed: {install(NAME)}"
        ) from None
    from py4j.java_gateway import find_jar_path

    jar = package.locate_file("textworld_express/textworld-express.jar")
    return Path(find_jar_path()), Path(str(jar))


def simulator(heap: int) -> "Simulator":
    """This process's simulator with a heap of `heap` MB."""
    return _simulator(heap, os.getpid())


@lru_cache(maxsize=4)
def _simulator(heap: int, process: int) -> "Simulator":
    found = Simulator(heap)
    atexit.register(found.shutdown)
    return found


class Simulator:
    """Games in a machine with a bounded heap, which starts when it is needed. Where it has died,
    another one does, and live games are restarted there, their actions repeated.

    heap  of the machine in MB
    """

    def __init__(self, heap: int) -> None:
        self.heap = heap
        self.starts = 0  # machines so far
        self._java: Java | None = None
        self._freed: deque[Place] = deque()
        self._lock = RLock()

    @property
    def process(self) -> int | None:
        """The machine's process, while it lives."""
        return self._java.process.pid if self._java is not None and self._java.alive else None

    def begin(self, which: Which) -> tuple[Game, str, Shown]:
        """A game, its task in words, and what is seen first.

        Raises ConfigError for parameters that the game does not have.
        """
        game = Game(which, self._freed)
        with self._lock:
            shown = self._twice(lambda java: self._build(java, game, gold=False))
            described = self._alive(game, lambda place: self._ask(place, "getTaskDescription"))
            return game, described.strip(), shown

    def act(self, game: Game, action: str) -> Shown:
        """Say something. Raises EnvError where the machine dies of it twice."""
        with self._lock:
            shown = self._alive(game, lambda place: _shown(self._ask(place, "stepJSON", action)))
            game.actions.append(action)
            return shown

    def gold(self, which: Which) -> list[str]:
        """The simulator's own way to win a game."""
        game = Game(which, self._freed)
        with self._lock:

            def way(java: Java) -> list[str]:
                self._build(java, game, gold=True)
                assert game.place is not None
                listed = ref(java.call(game.place.interface, "getGoldActionSequence"))
                joined = str(java.call("z:java.lang.String", "join", "\n", listed))
                java.drop(listed)
                return joined.split("\n") if joined else []

            found = self._twice(way)
        game.end()
        return found

    def shutdown(self) -> None:
        """End the machine. Its games go on in the next one."""
        if self._java is not None:
            self._java.end()
            self._java = None
        self._freed.clear()

    # -- the machine

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
                        f"{NAME}'s machine failed twice at the same place ({error}); if its heap "
                        f"is too small, set env.options.heap to more than {self.heap} MB"
                    ) from None
        raise AssertionError("there are two tries")

    def _alive(self, game: Game, do: Callable[[Place], T]) -> T:
        """Do something in a game, in whatever machine."""

        def played(java: Java) -> T:
            if game.place is None or game.place.java is not java:
                self._build(java, game, gold=False)
            assert game.place is not None
            return do(game.place)

        return self._twice(played)

    def _running(self) -> Java:
        if self._java is None or not self._java.alive:
            self.shutdown()
            bridge, jar = files()
            options = (f"-Xmx{self.heap}m", "-XX:+UseSerialGC")
            self._java = Java(options, (bridge, jar), jar.parent, DEADLINE, NAME)
            self.starts += 1
            # nothing reads what it writes
            sink = self._java.call("z:java.io.OutputStream", "nullOutputStream")
            stream = self._java.new("java.io.PrintStream", ref(sink))
            self._java.call("z:java.lang.System", "setOut", stream)
        return self._java

    def _build(self, java: Java, game: Game, *, gold: bool) -> Shown:
        """The game as it was, in this machine; what is seen at last."""
        game.place = self._free(java)
        which = game.which
        problem = self._ask(game.place, "load", which.name, which.params)
        if problem:
            game.end()
            raise ConfigError(
                f"env.options.params: TextWorldExpress does not take {which.params!r} for "
                f"{which.name} ({problem.strip()}); its documentation lists each game's parameters"
            )
        if which.name == "sorting":
            self._own_problem(java, which)
        text = self._ask(game.place, "generateNewGameJSON", which.seed, which.fold, gold)
        for action in game.actions:
            text = self._ask(game.place, "stepJSON", action)
        return _shown(text)

    @staticmethod
    def _own_problem(java: Java, which: Which) -> None:
        """Put a copy of a problem, with objects of its own, into the simulator's table."""
        arrays = "z:java.lang.reflect.Array"
        table = ref(java.call(java.static(PROBLEMS, "MODULE$"), f"{which.fold}Set"))
        index = which.seed % int(java.call(arrays, "getLength", table) or 1)
        problem = ref(java.call(arrays, "get", table, index))
        kind = ref(java.call("z:java.lang.Class", "forName", PROBLEM))
        stored = ref(java.call(kind, "getDeclaredField", "inputItems"))
        java.call(stored, "setAccessible", True)
        items = ref(java.call(stored, "get", problem))
        own = java.new(PROBLEM, items)
        java.call(arrays, "set", table, index, own)
        java.drop(table, problem, kind, stored, items, own)

    def _free(self, java: Java) -> Place:
        """An interface that no game holds."""
        while self._freed:
            place = self._freed.popleft()
            if place.java is java:
                return place
        return Place(java, java.new(INTERFACE))

    @staticmethod
    def _ask(place: Place, method: str, *arguments: str | int) -> str:
        return str(place.java.call(place.interface, method, *arguments) or "")


def _shown(text: str) -> Shown:
    """An answer of the simulator. Raises EnvError where it is none."""
    try:
        found = json.loads(text)
        return Shown(
            text=str(found["observation"]),
            score=float(found["score"]),
            won=bool(found["tasksuccess"]),
            lost=bool(found["taskfailure"]),
            look=str(found["look"]),
            inventory=str(found["inventory"]),
            actions=tuple(sorted(map(str, found["validActions"]))),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EnvError(
            f"TextWorldExpress answered {text[:100]!r} ({type(error).__name__}); install "
            "textworld-express 1.1.0"
        ) from None
