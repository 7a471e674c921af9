"""TextWorldExpress's simulator: many games in one JVM, which is replaced when it dies.

Each game has an interface of the simulator. All that games share is the things of `sorting`: a table
of a hundred problems for each split has the objects themselves, so that two games with one problem
would take them from each other. A game gets a copy of its problem.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tutelage.errors import ConfigError, EnvError
from tutelage_worlds import java_games
from tutelage_worlds.java import Java, Ref, ref
from tutelage_worlds.json_text import parse

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


@dataclass(slots=True, eq=False, kw_only=True)
class Game(java_games.Game[Place]):
    """A game, and which interface has it."""

    which: Which


def files() -> tuple[Path, Path]:
    """py4j's classes and the simulator's. Raises ConfigError where they are not installed."""
    return java_games.jars(NAME, "textworld-express", "textworld_express/textworld-express.jar")


def simulator(heap: int) -> "Simulator":
    """This process's simulator with a heap of `heap` MB."""
    return java_games.machine(Simulator, heap)


class Simulator(java_games.Machine[Game, Place]):
    """Games in a machine, each with an interface of its own."""

    suite = NAME

    def begin(self, which: Which) -> tuple[Game, str, Shown]:
        """A game, its task in words, and what is seen first.

        Raises ConfigError for parameters that the game does not have.
        """
        game = Game(which=which, freed=self._freed)
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
        game = Game(which=which, freed=self._freed)
        with self._lock:

            def way(java: Java) -> list[str]:
                self._build(java, game, gold=True)
                assert game.place is not None
                listed = ref(java.call(game.place.interface, "getGoldActionSequence"))
                return java_games.strings(java, listed)

            found = self._twice(way)
        game.end()
        return found

    def shutdown(self) -> None:
        with self._lock:
            super().shutdown()
            self._freed.clear()

    # -- the machine

    def _start(self) -> Java:
        bridge, jar = files()
        options = (f"-Xmx{self.heap}m", "-XX:+UseSerialGC")
        return Java(options, (bridge, jar), jar.parent, DEADLINE, NAME)

    def _rebuild(self, java: Java, game: Game) -> Place:
        self._build(java, game, gold=False)
        assert game.place is not None
        return game.place

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
        found = parse(text)
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
