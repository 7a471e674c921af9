"""The household suite: tasks, the environment, demonstrations, plans and renderings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, get_args

from tutelage.envs import requirements
from tutelage.envs.base import Env, Render, ScriptKind
from tutelage.envs.generated_tasks import LazyTasks
from tutelage.types import Observation, Task
from tutelage_worlds.household import textworld
from tutelage_worlds.household.engine import Game
from tutelage_worlds.household.expert import Search, explore, plan, plan_thoughts, stray, thoughts
from tutelage_worlds.household.gamefile import first_game, official, read
from tutelage_worlds.household.generate import FAMILIES, SIZES, SPLITS, generate
from tutelage_worlds.household.render import compact, marked
from tutelage_worlds.household.scene import Scene
from tutelage_worlds.household.wording import DEFAULT, NOTHING

GET: Final = "pip install alfworld && alfworld-download"
NAMES: Final = tuple(family.value for family in FAMILIES)
Engine = Literal["native", "textworld"]
INSTRUCTIONS: Final = """\
You are in a house with one task to do. Each turn, give exactly one command.
go to R - walk to a piece of furniture, such as "go to fridge 1"
open R, close R - while it is closed, nothing in it can be seen or taken
take O from R - with empty hands, from furniture you are at
{put} - put what you carry in or on furniture you are at
clean O with R, heat O with R, cool O with R - O in hand, at a sinkbasin, a microwave, a fridge
use O - switch on a lamp where you are
slice O with K - K is the knife in your hand
examine R, look, inventory, help - see again what you know
You carry one object at a time. "Nothing happens." means that a command is not possible now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """Household tasks in text, under ALFWorld's rules (arXiv:2010.03768), in pure Python.

    `train`, `seen` and `unseen` are how many games each split has; any number can be generated.
    `size` is "full", rooms as in ALFWorld, or "small", for tiny models. `games` is a folder of
    ALFWorld's own files (`game.tw-pddl` below train, valid_seen and valid_unseen) to play instead.
    `search` is how demonstrations look for things: "sensible", likely places first, or "methodical",
    all furniture in the order of the description.
    `families` are the only families whose tasks are played, or all six where it is empty.
    `engine` is what plays them: "native", or "textworld", TextWorld itself, slowly and in a process apart.
    Raises ValueError for a size, engine or family that does not exist or a count below zero.
    """

    train: int = 3553
    seen: int = 140
    unseen: int = 134
    size: str = "full"
    search: Search = "sensible"
    games: str | Path | None = None
    engine: Engine = "native"
    families: Sequence[str] = ()

    def __post_init__(self) -> None:
        # a file has a list, and suites are keys of their process pools
        object.__setattr__(self, "families", tuple(self.families))
        if self.engine not in get_args(Engine):
            known = ", ".join(get_args(Engine))
            raise ValueError(f"There is no engine {self.engine!r}; the engines are {known}.")
        if self.size not in SIZES:
            raise ValueError(f"There is no size {self.size!r}; the sizes are {', '.join(SIZES)}.")
        for family in self.families:
            if family not in NAMES:
                known = ", ".join(NAMES)
                raise ValueError(f"There is no family {family!r}; the families are {known}.")
        for split, count in zip(SPLITS, (self.train, self.seen, self.unseen), strict=True):
            if count < 0:
                raise ValueError(f"{split} = {count}: a split cannot have fewer than 0 games.")

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        if self.games is not None:
            games = official(Path(self.games), split)
            if self.families:
                return [task for task in games if task.family in self.families]
            return games
        counts = dict(zip(SPLITS, (self.train, self.seen, self.unseen), strict=True))
        places = tuple(k for k, name in enumerate(NAMES) if name in self.families)
        if places:
            return LazyTasks(split, counts[split], _of_families, (self.size, split, places))
        return LazyTasks(split, counts[split], _generated, (self.size, split))

    def make(self) -> Env:
        return textworld.make(self) if self.engine == "textworld" else HouseholdEnv()

    def demonstrate(self, task: Task) -> Sequence[str]:
        return explore(scene_of(task), search=self.search)

    def thoughts(self, task: Task) -> Sequence[str]:
        return thoughts(scene_of(task), search=self.search)

    def plan(self, task: Task) -> Sequence[str]:
        return plan(scene_of(task))

    def plan_thoughts(self, task: Task) -> Sequence[str]:
        return plan_thoughts(scene_of(task))

    def stray(self, task: Task, kind: ScriptKind) -> Sequence[tuple[str, str, bool]]:
        return stray(scene_of(task), task.seed, kind, self.search)

    def describe(self, task: Task) -> str:
        return scene_of(task).task

    def renders(self) -> Mapping[str, Render]:
        if self.engine == "textworld":  # which does not say what is to be found
            return {"compact": compact}
        return {"compact": compact, "marked": marked}

    def instructions(self) -> str:
        wording = DEFAULT if self.games is None else read(first_game(Path(self.games))).wording
        return INSTRUCTIONS.format(put=wording.put.format(o="O", r="R"))


def _generated(size: str, split: str, seed: int) -> Task:
    return Task(
        id=f"household/{size}/{split}/{seed:07d}",
        family=FAMILIES[seed % len(FAMILIES)].value,
        seed=seed,
        data={"split": split, "size": size},
    )


def _of_families(size: str, split: str, places: tuple[int, ...], index: int) -> Task:
    """The task at an index among those of some families: the same task as without the choice."""
    rounds, place = divmod(index, len(places))
    return _generated(size, split, rounds * len(FAMILIES) + places[place])


def scene_of(task: Task) -> Scene:
    """The scene of a task.

    Raises ValueError for a task of another suite, GameFileError for a file that cannot be played.
    """
    if "game" in task.data:
        return read(task.data["game"])
    try:
        split, size = task.data["split"], task.data["size"]
    except KeyError as missing:
        raise ValueError(
            f"The task {task.id!r} has no {missing} in its data, so it is not a household task: "
            "take one from Household().tasks(split)."
        ) from None
    return _scene(split, task.seed, size)


# the environment and the expert ask for the same scenes, once for every copy of a task
_scene = lru_cache(maxsize=256)(generate)


class HouseholdEnv:
    """One game at a time. Reward 1 when the goal holds, else 0."""

    def __init__(self) -> None:
        self._game: Game | None = None
        self._task = Task(id="")
        self._focus: tuple[str, ...] = ()

    def reset(self, task: Task) -> Observation:
        if self._game is None or self._task != task:
            self._game, self._task = Game(scene_of(task)), task
            self._focus = (self._game.scene.goal.thing.lower(),)
        return self._observe(self._game, self._game.reset())

    def step(self, action: str) -> Observation:
        if self._game is None:
            raise RuntimeError("No game has begun: call reset(task) before step(action).")
        return self._observe(self._game, self._game.step(action))

    def close(self) -> None:
        self._game = None

    def _observe(self, game: Game, text: str) -> Observation:
        won = game.won
        return Observation(
            text=text,
            reward=1.0 if won else 0.0,
            done=won,
            state=(self._task.id, game.key()),
            won=True if won else None,
            valid=text != NOTHING,
            actions=tuple(game.admissible()),
            focus=self._focus,
        )


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """Nothing, unless official games are to be played, or TextWorld is to play them."""
    wanted = options.get("engine") == "textworld"
    if options.get("games"):
        yield requirements.file("games", options["games"], GET)
    else:
        yield requirements.official("games", GET)
    use = 'for engine = "textworld", TextWorld itself (Python 3.11 or 3.12)'
    yield requirements.package(
        "textworld", get="pip install 'textworld[pddl]==1.7.0'", required=wanted, use=use
    )
    if wanted and not options.get("games"):
        yield requirements.package("alfworld", get="pip install --no-deps alfworld==0.4.2")
