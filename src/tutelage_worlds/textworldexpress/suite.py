"""The textworldexpress suite: tasks, the environment, demonstrations and descriptions."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Literal

from tutelage.envs import requirements
from tutelage.envs.base import Render
from tutelage.errors import did_you_mean
from tutelage.types import Observation, Task
from tutelage_worlds.textworldexpress.render import compact
from tutelage_worlds.textworldexpress.simulator import Game, Shown, Simulator, Which, simulator

GAMES: Final = (
    "cookingworld",
    "twc",
    "coin",
    "mapreader",
    "arithmetic",
    "sorting",
    "simonsays",
    "peckingorder",
)
SPLITS: Final[Mapping[str, int]] = {"train": 0, "dev": 10_000, "test": 20_000}
"""The first seed of each split, as the simulator cuts them."""
SEEDS: Final = 1000
"""Seeds of each game in each split."""
REMEMBERED: Final = 8192
"""Ways and descriptions that a process remembers."""
REFUSED: Final = "Unknown action:"
"""How the simulator begins when it has not understood."""
INSTRUCTIONS: Final = """\
You play a game in words. Your task is told first. Give one command each turn, as "look around", \
"inventory", "move north", "open door to north", "open fridge", "take coin", "put coin in box", \
"read map", "examine counter", "task", or one that the game itself names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWorldExpress:
    """Eight short games of TextWorldExpress in its own simulator (arXiv:2208.01174).

    families  which games: "all", one, or a list of "cookingworld", "twc", "coin", "mapreader",
              "arithmetic", "sorting", "simonsays", "peckingorder"
    params    parameters of games by name, as the simulator takes them: {"coin": "numLocations=4"}
    seeds     most seeds of each game in each split (1,000)
    reward    "score", by how much the score rose or fell, or "won", 1 at success
    look      whether each text ends with the room and the inventory
    heap      heap of the process's JVM in MB

    Raises ValueError for what does not exist or does not fit.
    """

    families: str | Sequence[str] = "all"
    params: Mapping[str, str] = field(default_factory=dict)
    seeds: int = SEEDS
    reward: Literal["score", "won"] = "score"
    look: bool = False
    heap: int = 256

    needs_worker = True  # its Java machine can hang or die: it is kept out of the trainer's process

    def __post_init__(self) -> None:
        names = [self.families] if isinstance(self.families, str) else list(self.families)
        for name in (*names, *self.params):
            if name not in GAMES and names != ["all"]:
                raise ValueError(
                    f"families: there is no game {name!r}{did_you_mean(str(name), GAMES)}; there "
                    f"are {', '.join(GAMES)}."
                )
        if not names:
            raise ValueError('families: name at least one game, or "all".')
        games = GAMES if names == ["all"] else tuple(each for each in GAMES if each in names)
        for name in self.params:
            if name not in games:
                raise ValueError(
                    f"params: {name!r} is not among the games that are played, {', '.join(games)}."
                )
        object.__setattr__(self, "families", games)
        object.__setattr__(self, "params", dict(self.params))
        if not 1 <= self.seeds <= SEEDS:
            raise ValueError(f"seeds = {self.seeds}: there are 1 to {SEEDS} in each split.")
        if self.heap < 64:
            raise ValueError(f"heap = {self.heap}: the simulator needs at least 64 MB.")

    def tasks(self, split: str) -> Sequence[Task]:
        """The first seed of each game, then the second, and so on."""
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        named = tuple((game, self.params.get(game, "")) for game in self.families)
        return _tasks(named, SPLITS[split], self.seeds)

    def make(self) -> "TextWorldExpressEnv":
        return TextWorldExpressEnv(self)

    def simulator(self) -> Simulator:
        """That of this process, which starts with the first game."""
        return simulator(self.heap)

    def which(self, task: Task) -> Which:
        """A task as the simulator knows it. Raises ValueError for a task of another suite."""
        params = self.params.get(task.family, "")
        start = task.seed // 10_000 * 10_000
        fold = {first: split for split, first in SPLITS.items()}.get(start)
        known = task.family in self.families and task.id == _name(task.family, params, task.seed)
        if not known or fold is None or task.seed - start >= SEEDS:
            raise ValueError(
                f"The task {task.id!r} is not one of this suite: take one from tasks(split)."
            )
        return Which(task.family, params, task.seed, fold)

    def describe(self, task: Task) -> str:
        return _described(self.heap, self.which(task))

    def demonstrate(self, task: Task) -> Sequence[str]:
        return _way(self.heap, self.which(task))

    def plan(self, task: Task) -> Sequence[str]:
        return self.demonstrate(task)

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact}

    def instructions(self) -> str:
        return INSTRUCTIONS


def _name(game: str, params: str, seed: int) -> str:
    return f"textworldexpress/{game}{f'[{params}]' if params else ''}/{seed:05d}"


@lru_cache(maxsize=32)
def _tasks(named: tuple[tuple[str, str], ...], first: int, count: int) -> tuple[Task, ...]:
    return tuple(
        Task(id=_name(game, params, seed), family=game, seed=seed)
        for seed in range(first, first + count)
        for game, params in named
    )


@lru_cache(maxsize=REMEMBERED)
def _described(heap: int, which: Which) -> str:
    game, described, _ = simulator(heap).begin(which)
    game.end()
    return described


@lru_cache(maxsize=REMEMBERED)
def _way(heap: int, which: Which) -> tuple[str, ...]:
    """The simulator's way, up to the game's end, without actions that it does not understand."""
    machine, actions = simulator(heap), list[str]()
    gold = machine.gold(which)
    game, _, shown = machine.begin(which)
    for action in gold:
        if _over(shown):
            break
        shown = machine.act(game, action)
        if not shown.text.startswith(REFUSED):
            actions.append(action)
    game.end()
    return tuple(actions)


def _over(shown: Shown) -> bool:
    return shown.won or shown.lost or shown.score >= 1


class TextWorldExpressEnv:
    """One game at a time, in the machine of this process."""

    def __init__(self, suite: TextWorldExpress) -> None:
        self._suite = suite
        self._game: Game | None = None
        self._last: Observation | None = None
        self._task = Task(id="")
        self._task_text = ""
        self._score = 0.0

    def reset(self, task: Task) -> Observation:
        which = self._suite.which(task)
        self.close()
        self._game, self._task_text, shown = self._suite.simulator().begin(which)
        self._task, self._score = task, shown.score
        text = f"{self._task_text}\n\n{shown.text.strip()}"
        if self._suite.look and shown.inventory.strip():
            text = f"{text}\n\n{shown.inventory.strip()}"
        self._last = self._observe(shown, text, valid=True)
        return self._last

    def step(self, action: str) -> Observation:
        if self._game is None or self._last is None:
            raise RuntimeError("No game has begun: call reset(task) before step(action).")
        if self._last.done:
            return replace(self._last, reward=0.0, valid=False)
        shown = self._suite.simulator().act(self._game, action)
        text = shown.text.strip() or "Nothing happens."
        if self._suite.look:
            more = (each.strip() for each in (shown.look, shown.inventory))
            text = "\n\n".join([text, *(each for each in more if each and each != text)])
        valid = not shown.text.startswith(REFUSED)
        self._last = self._observe(shown, text, valid=valid)
        return self._last

    def close(self) -> None:
        if self._game is not None:
            self._game.end()
        self._game = self._last = None

    def _observe(self, shown: Shown, text: str, *, valid: bool) -> Observation:
        done = _over(shown)
        won = done and shown.score >= 1
        rise, self._score = shown.score - self._score, shown.score
        # a game without rooms is where its last words are
        situation = f"{shown.look or shown.text}\0{shown.inventory}\0{shown.score}"
        return Observation(
            text=text,
            reward=rise if self._suite.reward == "score" else float(won),
            done=done,
            state=(self._task.id, hashlib.blake2b(situation.encode(), digest_size=16).hexdigest()),
            score=min(1.0, max(0.0, shown.score)),
            won=won if done else None,
            valid=valid,
            actions=() if done else shown.actions,
            focus=(self._task_text,),
        )


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """Java, and the package in which the simulator comes."""
    yield requirements.java(11)
    yield requirements.package("textworld-express", "textworldexpress")
