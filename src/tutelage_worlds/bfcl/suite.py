"""The bfcl suite: tasks, the environment, demonstrations, plans and renderings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, get_args

from tutelage.envs import requirements
from tutelage.envs.base import Render
from tutelage.envs.generated_tasks import LazyTasks
from tutelage.errors import did_you_mean
from tutelage.types import Task
from tutelage_worlds.bfcl import expert, files, generate, package, wording
from tutelage_worlds.bfcl.env import BFCLEnv, Reward
from tutelage_worlds.bfcl.native import BFCLCalls
from tutelage_worlds.bfcl.render import compact
from tutelage_worlds.bfcl.scenario import FAMILIES, Scenario, written
from tutelage_worlds.bfcl.wording import Docs
from tutelage_worlds.read_once import forget_changed, read_once

SPLITS: Final = ("train", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class BFCL:
    """Calling functions over several turns, with BFCL's simulated APIs and verdicts (bfcl-eval 2026.3.23).

    The split `test` are the benchmark's own 800 tasks; those of `train` and `dev` are generated.

    data        a folder with the benchmark's own tasks; those of the installed package if not set
    families    which of its categories: "all", one, or a list of "base", "miss_func", "miss_param"
                and "long_context" (not generated)
    apis        only tasks that need no other APIs: "all", one name of a class, or a list
    train, dev  how many tasks are generated
    docs        the documentation of functions: "full", "short", names and types alone, or "none", for
                models that are trained on demonstrations; calls of a chat template take "none" as "short"
    reward      "won", 1 at the end for a task without a mistake, or "turns", for each turn of the user
                until the first mistake its share of 1
    early       whether an episode ends with its first mistake; the benchmark plays on
    limit       characters of what one call returned that are shown

    Raises ValueError for what does not exist, and for counts below zero.
    """

    data: str | None = None
    families: str | Sequence[str] = "all"
    apis: str | Sequence[str] = "all"
    train: int = 10_000
    dev: int = 400
    docs: Docs = "full"
    reward: Reward = "won"
    early: bool = False
    limit: int = 20_000

    def __post_init__(self) -> None:
        forget_changed()
        object.__setattr__(self, "families", _chosen("families", self.families, FAMILIES))
        object.__setattr__(self, "apis", _chosen("apis", self.apis, tuple(package.APIS)))
        for name in ("train", "dev"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: a split has no fewer than 0 tasks."
                )
        for name, choices in (("docs", get_args(Docs)), ("reward", get_args(Reward))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"There is no {name} {getattr(self, name)!r}; there are {', '.join(choices)}."
                )
        if self.limit < 100:
            raise ValueError(f"limit = {self.limit}: at least 100 characters must be shown.")

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; there are {', '.join(SPLITS)}.")
        if split == "test":
            return _published(self.data, tuple(self.families), tuple(self.apis))
        kinds = tuple(each for each in self.families if each in generate.FAMILIES)
        length = {"train": self.train, "dev": self.dev}[split]
        if not kinds and length:
            raise ValueError(
                f"families = {self.families!r} are not generated; name one of "
                f"{', '.join(generate.FAMILIES)} too, or set train = 0 and dev = 0."
            )
        return LazyTasks(split, length, _generated, (split, kinds, tuple(self.apis)))

    def make(self) -> BFCLEnv:
        return self.new_env(native=False)

    def new_env(self, *, native: bool) -> BFCLEnv:
        return BFCLEnv(
            self.scenario,
            native=native,
            reward=self.reward,
            docs=self.docs,
            early=self.early,
            limit=self.limit,
        )

    def scenario(self, task: Task) -> Scenario:
        """What a task is about. Raises ValueError for one of another suite."""
        try:
            if "generated" in task.data:
                return _scenario(task.data["generated"], task.data["apis"], task.seed, task.family)
            return files.published(self.data)[int(task.data["published"])]
        except (KeyError, IndexError, ValueError) as missing:
            raise ValueError(
                f"The task {task.id!r} is not a bfcl task ({missing}): take one from "
                "BFCL().tasks(split)."
            ) from None

    def demonstrate(self, task: Task) -> Sequence[str]:
        return expert.demonstrate(self.scenario(task), written)

    def plan(self, task: Task) -> Sequence[str]:
        return expert.plan(self.scenario(task), written)

    def describe(self, task: Task) -> str:
        return self.scenario(task).turns[0].says

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact}

    def instructions(self) -> str:
        return f"{wording.RULES}\n{wording.FORMAT}"

    def with_tools(self) -> BFCLCalls:
        return BFCLCalls(self)

    def identity(self) -> str:
        """The release of the APIs."""
        return requirements.package("bfcl-eval", get=package.GET).found


def _chosen(option: str, given: str | Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else list(given)
    if names == ["all"]:
        return known
    for name in names:
        if name not in known:
            raise ValueError(
                f"{option}: there is no {name!r}{did_you_mean(str(name), known)}; there are "
                f"{', '.join(known)}."
            )
    if not names:
        raise ValueError(f"{option} names none; there are {', '.join(known)}.")
    return tuple(name for name in known if name in names)


@read_once(16)
def _published(
    data: str | None, families: tuple[str, ...], apis: tuple[str, ...]
) -> tuple[Task, ...]:
    return tuple(
        Task(id=f"bfcl/{each.id}", family=each.family, seed=k, data={"published": str(k)})
        for k, each in enumerate(files.published(data))
        if each.family in families and set(each.apis) <= set(apis)
    )


def _generated(split: str, families: tuple[str, ...], apis: tuple[str, ...], seed: int) -> Task:
    family = families[seed % len(families)]
    which = ",".join(apis)
    short = "" if apis == tuple(package.APIS) else f"{which}/"
    return Task(
        id=f"bfcl/{split}/{short}{family}/{seed:07d}",
        family=family,
        seed=seed,
        data={"generated": split, "apis": which},
    )


@lru_cache(maxsize=4096)
def _scenario(split: str, apis: str, seed: int, family: str) -> Scenario:
    return generate.scenario(split, seed, family, tuple(apis.split(",")))


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """The package, whose dependencies would be a hundred, and one of them."""
    yield requirements.package("bfcl-eval", get=package.GET)
    yield requirements.package("mpmath", "bfcl")
    if options.get("data"):
        yield requirements.file("data", options["data"], "unzip bfcl_eval/data of the package")
