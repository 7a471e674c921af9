"""The scienceworld suite: tasks, the environment, demonstrations and descriptions."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from tutelage.envs import requirements
from tutelage.envs.base import Render
from tutelage.types import Observation, Task
from tutelage_worlds.scienceworld import expert
from tutelage_worlds.scienceworld.catalogue import (
    SPLITS,
    VARIATIONS,
    chosen,
    simplified,
    variations,
)
from tutelage_worlds.scienceworld.render import compact
from tutelage_worlds.scienceworld.simulator import Game, Shown, Simulator, simulator

REMEMBERED: Final = 8192
"""Ways and descriptions that a process remembers, each of which costs a new world."""
REFUSED: Final = ("No known action matches that input.", "Unknown action.")
"""How the simulator begins when it has not understood."""
INSTRUCTIONS: Final = """\
You are in a house with a garden, workshop and laboratory things, and have an experiment to do. Give
one command each turn. X and Y are things that you have been shown, said so that they can be told
from others: "orange in inventory".
look around, look at X, look in X, inventory, task - take no time
open X, close X, go to ROOM - doors must be open before you can walk through them
pick up X, put down X, move X to Y, pour X into Y, dunk X into Y, mix X
activate X, deactivate X, use X on Y, read X, eat X, flush X
connect X to Y, disconnect X - parts of a circuit: "battery anode", "red wire terminal 1"
focus on X - says that this is the thing the task asks for; a wrong one fails the task
wait1, wait - let one moment pass, or ten
If a command could mean several things you are given a list; answer with a number of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScienceWorld:
    """Experiments of elementary school in ScienceWorld's own simulator (arXiv:2203.07540).

    families    which of the thirty tasks, by their names or those of groups: "all", "short", or a
                topic such as "matter" or "classification"
    simplify    "easy", or simplifications separated by commas, as the simulator names them
    variations  most variations of each task in each split (all)
    reward      "score", by how much the score rose or fell in [-2, 1] (failing takes it to
                -1), or "won", 1 at success
    moves       ticks of the simulator's clock after which an episode is lost; "wait" takes ten (no limit)
    look        whether each text ends with a description of the room and the inventory
    actions     whether all valid actions are listed: hundreds, and slow
    heap        heap of the process's JVM in MB

    Raises ValueError for what does not exist or does not fit.
    """

    families: str | Sequence[str] = "all"
    simplify: str = ""
    variations: int | None = None
    reward: Literal["score", "won"] = "score"
    moves: int | None = None
    look: bool = False
    actions: bool = False
    heap: int = 512

    needs_worker = True  # its Java machine can hang or die: it is kept out of the trainer's process

    def __post_init__(self) -> None:
        for name in ("variations", "moves"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} = {count}: there must be at least 1.")
        if self.heap < 256:
            raise ValueError(f"heap = {self.heap}: the simulator needs at least 256 MB.")
        object.__setattr__(self, "families", chosen(self.families))
        object.__setattr__(self, "simplify", simplified(self.simplify, self.families))

    def prefix(self) -> str:
        """What the ids of all tasks begin with."""
        return f"scienceworld/{self.simplify or 'full'}"

    def tasks(self, split: str) -> Sequence[Task]:
        """The first variation of each family, then the second of each that has one, and so on."""
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        return _tasks(self.prefix(), tuple(self.families), split, self.variations)

    def make(self) -> "ScienceWorldEnv":
        return ScienceWorldEnv(self)

    def simulator(self) -> Simulator:
        """That of this process, which starts with the first game."""
        return simulator(self.heap)

    def which(self, task: Task) -> tuple[str, int, str]:
        """A task as the simulator knows it. Raises ValueError for a task of another suite."""
        known = 0 <= task.seed < VARIATIONS.get(task.family, 0)
        if not known or task.id != _name(self.prefix(), task.family, task.seed):
            raise ValueError(
                f"The task {task.id!r} is not one of this suite, whose tasks are named "
                f"{self.prefix()}/...: take one from tasks(split)."
            )
        return task.family, task.seed, self.simplify

    def describe(self, task: Task) -> str:
        return _described(self.heap, *self.which(task))

    def demonstrate(self, task: Task) -> Sequence[str]:
        return _shown(self.heap, *self.which(task))

    def plan(self, task: Task) -> Sequence[str]:
        return _planned(self.heap, *self.which(task))

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact}

    def instructions(self) -> str:
        return INSTRUCTIONS


def _name(prefix: str, family: str, variation: int) -> str:
    return f"{prefix}/{family}/{variation:04d}"


@lru_cache(maxsize=32)
def _tasks(
    prefix: str, families: tuple[str, ...], split: str, most: int | None
) -> tuple[Task, ...]:
    parts = {family: variations(family, split)[:most] for family in families}
    rounds = range(max(map(len, parts.values())))
    return tuple(
        Task(id=_name(prefix, family, part[k]), family=family, seed=part[k])
        for k in rounds
        for family, part in parts.items()
        if k < len(part)
    )


@lru_cache(maxsize=REMEMBERED)
def _described(heap: int, task: str, variation: int, simplifications: str) -> str:
    game, described, _ = simulator(heap).begin(task, variation, simplifications)
    game.end()
    return described


@lru_cache(maxsize=REMEMBERED)
def _shown(heap: int, task: str, variation: int, simplifications: str) -> tuple[str, ...]:
    return expert.demonstrate(simulator(heap), task, variation, simplifications)


@lru_cache(maxsize=REMEMBERED)
def _planned(heap: int, task: str, variation: int, simplifications: str) -> tuple[str, ...]:
    return expert.plan(simulator(heap), task, variation, simplifications)


class ScienceWorldEnv:
    """One game at a time, in the machine of this process."""

    def __init__(self, suite: ScienceWorld) -> None:
        self._suite = suite
        self._game: Game | None = None
        self._last: Observation | None = None
        self._task = Task(id="")
        self._task_text = ""
        self._score = 0  # of 100

    def reset(self, task: Task) -> Observation:
        which = self._suite.which(task)
        self.close()
        self._game, self._task_text, shown = self._suite.simulator().begin(*which)
        self._task = task
        self._score = _hundredths(shown)
        text = f"{self._task_text}\n\n{shown.text}"
        if self._suite.look:
            text = f"{text}\n\n{shown.inventory.strip()}"
        self._last = self._observe(self._game, shown, text, valid=True)
        return self._last

    def step(self, action: str) -> Observation:
        if self._game is None or self._last is None:
            raise RuntimeError("No game has begun: call reset(task) before step(action).")
        if self._last.done:
            return replace(self._last, reward=0.0, valid=False)
        shown = self._suite.simulator().act(self._game, action)
        text = shown.text
        if self._suite.look:
            text = f"{text}\n\n{shown.look.strip()}\n\n{shown.inventory.strip()}"
        # the simulator lists names that it does not read
        valid = not shown.text.startswith(REFUSED) or action in self._last.actions
        self._last = self._observe(self._game, shown, text, valid=valid)
        return self._last

    def close(self) -> None:
        if self._game is not None:
            self._game.end()
        self._game = self._last = None

    def _observe(self, game: Game, shown: Shown, text: str, *, valid: bool) -> Observation:
        suite, score = self._suite, _hundredths(shown)
        late = suite.moves is not None and shown.moves > suite.moves
        done = shown.done or score < 0 or late
        won = score == 100 if done else None
        rise, self._score = (score - self._score) / 100, score
        situation = f"{shown.look}\0{shown.inventory}\0{score}"
        listed = suite.actions and not done
        return Observation(
            text=text,
            reward=rise if suite.reward == "score" else float(won is True),
            done=done,
            state=(self._task.id, hashlib.blake2b(situation.encode(), digest_size=16).hexdigest()),
            score=max(0, score) / 100,
            won=won,
            valid=valid,
            actions=suite.simulator().actions(game) if listed else (),
            focus=(self._task_text,),
        )


def _hundredths(shown: Shown) -> int:
    """The score as ScienceWorld reports it: 0 to 100, or -100 for a task that was failed."""
    return round(100 * shown.score)


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """Java, and the package in which the simulator comes."""
    yield requirements.java(11)
    yield requirements.package("scienceworld", "scienceworld")
