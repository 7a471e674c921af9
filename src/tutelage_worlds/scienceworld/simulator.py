"""ScienceWorld's simulator: many isolated games in one JVM, which is replaced when it dies.

The simulator keeps three things for all games of a machine: the number of the last object made, a
random generator, and the simplifications in force. They are put aside when another game has its
turn, so one machine holds any number of games, and all of them run the same, warm code.
"""

import atexit
import re
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from tutelage.envs.owned_folder import owned_folder
from tutelage.errors import EnvError
from tutelage_worlds import java_games
from tutelage_worlds.java import Gone, Java, Ref, ref
from tutelage_worlds.scienceworld.hashing import overlay

DEADLINE: Final = 300.0
"""Seconds that anything may take before a machine is given up."""
GAMES: Final = 100
"""Games after which a machine whose heap is nearly full is replaced."""
FULL: Final = 0.85
"""The share of its heap that is nearly full."""
SCRAMBLER: Final = 0x5DEECE66D
"""What java.util.Random.setSeed changes its argument with, as its documentation says."""
UNKNOWN: Final = (
    "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible "
    "object referents. "
)
MAKER: Final = "scienceworld.runtime.pythonapi.PythonInterface"
DESCRIPTION: Final = "getTaskDescription"
COUNTER: Final = "z:util.UniqueIdentifier"
SIMPLIFIER: Final = "z:main.scala.scienceworld.runtime.SimplifierProcessor"
_BLANKS: Final = "".join(map(chr, range(33)))
"""What Java takes off the ends of a string."""
_OUTCOME: Final = re.compile(r"\((.*),([^,]*),(true|false)\)", re.DOTALL)


class Shown(NamedTuple):
    """What the simulator says after an action."""

    text: str
    score: float  # in [0, 1], or -1 where the task was failed
    done: bool  # whether the simulator calls the task completed
    moves: int  # ticks of the world's clock
    look: str  # the room as it is now, which costs no time
    inventory: str


class Place(NamedTuple):
    """Where a game is."""

    java: Java
    world: Ref
    option: Ref  # the world, as the interface holds it
    simplifications: str  # in force, spelled out


@dataclass(slots=True, eq=False, kw_only=True)
class Game(java_games.Game[Place]):
    """A task and its variation, and where the game is."""

    task: str
    variation: int
    simplifications: str
    count: int = 0  # what the simulator keeps for all games, while another one has its turn
    seed: int = 0
    score: float = 0.0
    done: bool = False


def files() -> tuple[Path, Path]:
    """py4j's classes and the simulator's. Raises ConfigError where they are not installed."""
    # the simulator's jar contains an older py4j that accepts connections from any local user
    return java_games.jars("scienceworld", "scienceworld", "scienceworld/scienceworld.jar")


def simulator(heap: int) -> "Simulator":
    """This process's simulator with a heap of `heap` MB."""
    return java_games.machine(Simulator, heap)


class Simulator(java_games.Machine[Game, Place]):
    """Games in a machine, which is replaced when its heap has filled up, too."""

    suite = "scienceworld"

    def __init__(self, heap: int) -> None:
        super().__init__(heap)
        self._games = 0  # of this machine, since its heap was looked at
        self._turn: Game | None = None

    def __enter__(self) -> Java:
        """The JVM, with exclusive access to it."""
        self._lock.acquire()
        return self._running()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def shutdown(self) -> None:
        with self._lock:
            super().shutdown()
            self._turn = None

    # -- games

    def begin(self, task: str, variation: int, simplifications: str) -> tuple[Game, str, Shown]:
        """A game, its task in words, and a look around, as ScienceWorldEnv.reset has it."""
        game = Game(
            task=task, variation=variation, simplifications=simplifications, freed=self._freed
        )
        with self._lock:
            self._relieve()
            described = self._alive(game, lambda place: place.java.call(place.world, DESCRIPTION))
            return game, str(described), self.act(game, "look around")

    def act(self, game: Game, action: str) -> Shown:
        """Say something. Raises EnvError where the machine dies of it twice."""
        with self._lock:
            shown = self._alive(game, lambda place: self._step(game, place, action))
            game.actions.append(action)
            return shown

    def actions(self, game: Game) -> tuple[str, ...]:
        """What can be done now, as ScienceWorld lists it; asking changes nothing."""
        with self._lock:
            return self._alive(game, lambda place: self._listed(game, place))

    def gold(self, task: str, variation: int, simplifications: str) -> list[str]:
        """The simulator's own way to do a task."""
        with self._lock:
            return self._twice(lambda java: self._way(java, task, variation, simplifications))

    # -- the machine

    def _start(self) -> Java:
        bridge, jar = files()
        options = (
            f"-Xmx{self.heap}m",
            "-XX:+UseSerialGC",
            "--add-opens",
            "java.base/java.util=ALL-UNNAMED",
        )
        return Java(options, (bridge, _overlay(jar), jar), jar.parent, DEADLINE)

    def _prepare(self, java: Java) -> None:
        self._games = 0
        self._maker = java.new(MAKER)
        self._runtime = ref(java.call("z:java.lang.Runtime", "getRuntime"))
        self._generator = ref(java.call(java.static("scala.util.Random$", "MODULE$"), "self"))
        kind = ref(java.call("z:java.lang.Class", "forName", "java.util.Random"))
        self._seed = ref(java.call(kind, "getDeclaredField", "seed"))
        java.call(self._seed, "setAccessible", True)

    def _relieve(self) -> None:
        """Let go of games that are over, and of a machine whose heap is nearly full even so."""
        try:
            while self._freed:
                place = self._freed.popleft()
                if place.java is self._java and place.java.alive:
                    place.java.drop(place.world, place.option)
            if self._java is None or self._games < GAMES:
                return
            self._games = 0
            self._java.call(self._runtime, "gc")
            total, free = (self._java.call(self._runtime, f"{w}Memory") for w in ("total", "free"))
            if int(total or 0) - int(free or 0) > FULL * self.heap * 2**20:
                self.shutdown()
        except Gone:
            self.shutdown()

    # -- turns

    def _rebuild(self, java: Java, game: Game) -> Place:
        self._load(java, game.task, game.variation, game.simplifications, gold=False)
        self._games += 1
        option = ref(java.call(self._maker, "agentInterface"))
        world = ref(java.call(option, "get"))
        game.end()
        game.place = Place(java, world, option, str(java.call(world, "simplificationStr")))
        self._turn = game
        for action in game.actions:
            self._step(game, game.place, action)
        return game.place

    def _load(
        self, java: Java, task: str, variation: int, simplifications: str, *, gold: bool
    ) -> None:
        self._leave(java)
        answer = java.call(self._maker, "load", task, variation, simplifications, gold)
        if answer:
            raise EnvError(f"scienceworld could not set up {task} {variation}: {answer}")

    def _way(self, java: Java, task: str, variation: int, simplifications: str) -> list[str]:
        self._load(java, task, variation, simplifications, gold=True)
        return java_games.strings(java, ref(java.call(self._maker, "getGoldActionSequence")))

    def _leave(self, java: Java) -> None:
        """Put aside what the game whose turn it was shares with the others."""
        if self._turn is not None:
            self._turn.count = int(java.call(COUNTER, "count") or 0)
            self._turn.seed = self._drawn(java)
            self._turn = None

    def _enter(self, game: Game, place: Place) -> None:
        if self._turn is game:
            return
        java = place.java
        self._leave(java)
        java.drop(ref(java.call(SIMPLIFIER, "parseSimplificationStr", place.simplifications)))
        java.call(COUNTER, "count_$eq", game.count)
        self._redraw(java, game.seed)
        self._turn = game

    def _drawn(self, java: Java) -> int:
        """Where the random generator is."""
        return int(java.call(self._seed, "get", self._generator) or 0)

    def _redraw(self, java: Java, seed: int) -> None:
        java.call(self._generator, "setSeed", seed ^ SCRAMBLER)

    def _step(self, game: Game, place: Place, action: str) -> Shown:
        self._enter(game, place)
        java = place.java
        command = action.strip(_BLANKS).lower()
        if command in ("help", "objects", "task"):
            # the interface answers these itself: nothing is done, and time stands still
            text = str(self._asked(place, "step", command))
        else:
            outcome = ref(java.call(place.world, "step", action))
            match = _OUTCOME.fullmatch(str(java.call(outcome, "toString")))
            java.drop(outcome)
            assert match is not None
            text, game.score, game.done = (
                match[1] or UNKNOWN,
                float(match[2]),
                match[3] == "true",
            )
        if game.score < 0 and java.call(place.world, "isInErrorState"):
            error = str(java.call(place.world, "getErrorStateMessage"))
            if "OutOfMemoryError" in error:
                raise Gone(error)
        look, inventory = (java.call(place.world, f"freeAction{w}") for w in ("Look", "Inventory"))
        moves = int(java.call(place.world, "getCurIterations") or 0)
        return Shown(text, game.score, game.done, moves, str(look), str(inventory))

    def _asked(self, place: Place, method: str, *arguments: str) -> Ref | str:
        """Ask the interface about one of the games that it made."""
        java = place.java
        java.call(self._maker, "agentInterface_$eq", place.option)
        java.call(self._maker, "errorStr_$eq", "")
        answer = java.call(self._maker, method, *arguments)
        assert isinstance(answer, str)
        return answer

    def _listed(self, game: Game, place: Place) -> tuple[str, ...]:
        self._enter(game, place)
        java = place.java
        # disambiguating names uses random numbers, whose state is restored
        seed = self._drawn(java)
        listed = ref(self._asked(place, "getValidActionObjectCombinations"))
        self._redraw(java, seed)
        return tuple(java_games.strings(java, listed))


@lru_cache(maxsize=2)
def _overlay(jar: Path) -> Path:
    """A folder with the class of all objects, hashed by their numbers, for this process."""
    folder, remove = owned_folder(Path(tempfile.gettempdir()))
    atexit.register(remove)
    return overlay(jar, folder)
