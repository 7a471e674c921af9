"""TextWorld as the engine of household games: `env.options.engine = "textworld"`.

TextWorld's PDDL engine plays the game files, and this module loads them, names the objects as
ALFWorld does, and offers one move at a time. It is slow and not thread-safe, so games are played in
a worker process. Needs `pip install 'textworld[pddl]==1.7.0'` and Python 3.11 or 3.12.
"""

import hashlib
import importlib
import itertools
import multiprocessing as mp
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from tutelage.envs.base import Env, Suite
from tutelage.envs.pool import Failure, ProcessPool
from tutelage.errors import EnvError
from tutelage.types import Observation, Task
from tutelage_worlds.household.gamefile import GameFileError, write
from tutelage_worlds.household.generate import generate
from tutelage_worlds.household.wording import NOTHING

SECONDS: Final = 600.0
"""After which a reset or a step in the worker process is given up; most take a tenth of one."""
_SIGNS: Final = (
    ("_bar_", "|"),
    ("_minus_", "-"),
    ("_plus_", "+"),
    ("_dot_", "."),
    ("_comma_", ","),
)
_KEYS: Final = itertools.count()
_POOLS: Final[dict[Suite, ProcessPool]] = {}


class Shown(NamedTuple):
    """What a player is shown: the text, the admissible commands in order, whether the goal holds,
    and what the move earned and ended (0 and False after a reset: there was no move).
    """

    text: str
    admissible: tuple[str, ...]
    won: bool
    reward: int
    done: bool


def missing() -> str:
    """Why TextWorld cannot be played here, or "" if it can."""
    for module in ("textworld", "fast_downward"):
        if find_spec(module) is None:
            return f"{module} is not installed: pip install 'textworld[pddl]==1.7.0'"
    if sys.version_info >= (3, 13):
        return "TextWorld 1.7.0 fails on Python 3.13 (PEP 667): run this with Python 3.11 or 3.12"
    return ""


@cache
def find_domain() -> tuple[str, str]:
    """The rules (alfred.pddl) and the wording (alfred.twl2) in the installed alfworld package.

    They are located through the package's metadata: importing alfworld would create a cache folder
    in the user's home. Raises EnvError if they are not there.
    """
    try:
        alfworld = distribution("alfworld")
    except PackageNotFoundError:
        raise EnvError(
            "alfworld, which has the rules of generated games, is not installed: pip install "
            "--no-deps alfworld==0.4.2, or play its own files with env.options.games"
        ) from None
    found = [
        Path(str(alfworld.locate_file(f"alfworld/data/{name}")))
        for name in ("alfred.pddl", "alfred.twl2")
    ]
    for path in found:
        if not path.is_file():
            raise EnvError(f"{path} is not there: reinstall alfworld {alfworld.version}")
    domain, grammar = (path.read_text(encoding="utf-8") for path in found)
    return domain, grammar


def shown_names(ids: Iterable[str]) -> dict[str, str]:
    """The name that a player sees for each mangled id, by ALFWorld's rule.

    What stands before the first "_bar_" is the kind ("basin" is added if the id has it anywhere).
    Of n ids of one kind the first in alphabetical order is number n and the last is number 1. Other
    ids keep their text and a blank.
    """
    kinds = {}
    for id in sorted(set(ids)):
        kind, bar, _ = id.partition("_bar_")
        kinds[id] = (kind + "basin" if "basin" in id else kind) if bar else ""
    left = Counter(kinds.values())
    names = {}
    for id, kind in kinds.items():
        text = kind or id
        for word, sign in _SIGNS:
            text = text.replace(word, sign)
        names[id] = f"{text} {left[kind] if kind else ''}"
        left[kind] -= 1
    return names


class TextWorldGame:
    """A game file in TextWorld. Not thread-safe; several may live in one process."""

    def __init__(self, path: str | Path) -> None:
        # no type checker need have TextWorld
        core = importlib.import_module("textworld")
        pddl = importlib.import_module("textworld.envs.pddl.pddl")
        infos = core.EnvInfos(feedback=True, admissible_commands=True, won=True)
        self._env: Any = pddl.PddlEnv(infos)
        self._env.load(str(path))
        entities = self._env._entity_infos
        for id, name in shown_names(entities).items():
            entities[id].name = name

    def reset(self) -> Shown:
        return self._shown(self._env.reset(), 0, False)

    def step(self, command: str) -> Shown:
        return self._shown(*self._env.step(command))

    def _shown(self, state: Any, reward: float, done: bool) -> Shown:
        commands = tuple(state["admissible_commands"])
        return Shown(state.feedback, commands, bool(state["won"]), int(reward), bool(done))

    def key(self) -> str:
        """A digest of all facts that hold now."""
        facts = "\n".join(sorted(map(str, self._env._pddl_state.facts)))
        return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()

    def close(self) -> None:
        """Free the planner's memory; the game cannot be played afterwards.

        The library itself stays in the process, some 2 MB for each game: unloading several of them,
        as `unload` does, makes Python crash when it exits.
        """
        self._env.downward_lib.cleanup()

    def unload(self) -> None:
        """As `close`, and all memory is given back. For processes that are killed at their end."""
        importlib.import_module("fast_downward").close_lib(self._env.downward_lib)


class TextWorldEnv:
    """One game at a time, in this process. Reward 1 when the goal holds, else 0."""

    def __init__(self) -> None:
        self._game: TextWorldGame | None = None
        self._task = Task(id="")

    def reset(self, task: Task) -> Observation:
        if self._game is None or self._task != task:
            self.close()
            self._game, self._task = _game(task), task
        return self._observe(self._game, self._game.reset())

    def step(self, action: str) -> Observation:
        if self._game is None:
            raise RuntimeError("No game has begun: call reset(task) before step(action).")
        return self._observe(self._game, self._game.step(action))

    def close(self) -> None:
        if self._game is not None:
            (self._game.unload if mp.current_process().daemon else self._game.close)()
        self._game = None

    def _observe(self, game: TextWorldGame, shown: Shown) -> Observation:
        return Observation(
            text=shown.text,
            reward=1.0 if shown.won else 0.0,
            done=shown.won,
            state=(self._task.id, game.key()),
            won=True if shown.won else None,
            valid=shown.text != NOTHING,
            actions=shown.admissible,
        )


class ApartEnv:
    """One game at a time in the worker process that all games of its suite share."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._key = ""

    def reset(self, task: Task) -> Observation:
        self.close()
        self._key = str(next(_KEYS))
        _pool(self._suite).open(self._key, task)
        return self._answer()

    def step(self, action: str) -> Observation:
        if not self._key:
            raise RuntimeError("No game has begun: call reset(task) before step(action).")
        _pool(self._suite).act(self._key, action)
        return self._answer()

    def close(self) -> None:
        if self._key:
            _pool(self._suite).close(self._key)
        self._key = ""

    def _answer(self) -> Observation:
        [(_, answer)] = _pool(self._suite).poll(block=True)
        if isinstance(answer, Failure):
            raise EnvError(f"TextWorld's process failed: {answer.reason}")
        return answer


def make(suite: Suite) -> Env:
    """An environment in TextWorld: here if this is a worker of a pool, else in a process apart.

    Raises EnvError if TextWorld cannot be played.
    """
    if reason := missing():
        raise EnvError(f'env.options.engine = "textworld" cannot be played: {reason}')
    # a worker may have no children, and is a process apart itself
    return TextWorldEnv() if mp.current_process().daemon else ApartEnv(suite)


def _pool(suite: Suite) -> ProcessPool:
    if suite not in _POOLS:
        pool = ProcessPool(suite, workers=1, reset_seconds=SECONDS, step_seconds=SECONDS)
        _POOLS[suite] = pool
    return _POOLS[suite]


def _game(task: Task) -> TextWorldGame:
    """The game of a task: its file, or one that is written for the moment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(task.data.get("game") or Path(folder) / "game.tw-pddl")
        if "game" not in task.data:
            scene = generate(task.data["split"], task.seed, task.data["size"])
            write(scene, path, *find_domain())
        try:
            return TextWorldGame(path)
        # TextWorld's own answers to both; SystemExit would end the worker
        except (KeyError, SystemExit) as error:
            raise GameFileError(
                f"{path} cannot be loaded by TextWorld ({error!r}): its goal is out of reach or it "
                "names a predicate that its domain lacks; leave it out."
            ) from error
