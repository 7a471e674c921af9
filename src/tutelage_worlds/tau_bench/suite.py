"""The tau_bench suite: tasks, the environment, demonstrations, plans and renderings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tutelage.envs import requirements
from tutelage.envs.base import Render
from tutelage.envs.generated_tasks import LazyTasks
from tutelage.types import Task
from tutelage_worlds.read_once import forget_changed
from tutelage_worlds.tau_bench import customers, expert, generate, wording
from tutelage_worlds.tau_bench.catalogue import SIZES
from tutelage_worlds.tau_bench.env import TauBenchEnv, usable
from tutelage_worlds.tau_bench.files import HOW, load
from tutelage_worlds.tau_bench.generate import FAMILIES, SPLITS
from tutelage_worlds.tau_bench.native import TauBenchCalls
from tutelage_worlds.tau_bench.render import compact
from tutelage_worlds.tau_bench.scenario import Scenario, World
from tutelage_worlds.tau_bench.telecom import expert as telecom
from tutelage_worlds.tau_bench.telecom.env import TelecomEnv
from tutelage_worlds.tau_bench.telecom.files import is_telecom
from tutelage_worlds.tau_bench.telecom.user import Caller, ScriptedCaller, SimulatedCaller
from tutelage_worlds.tau_bench.tools import Tools

GET: Final = "git clone https://github.com/sierra-research/tau-bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class TauBench:
    """Customer service with tools, under tau-bench's rules (arXiv:2406.12045).

    `data` is a folder with tau-bench's or tau2-bench's own files (see `files`); without it, tasks
    are generated over a generated shop: `train`, `dev` and `test` are how many each split has, and
    `size` is "full", or "small" for tiny models.
    `user` is the customer (see `customers`), with `user_options`. `transfer` = false
    takes away the tool that hands a customer over to a person, as in pi-Distill (arXiv:2602.04942).
    Raises ValueError for a size or customer that does not exist or a count below zero.
    """

    data: str | None = None
    size: str = "full"
    train: int = 500
    dev: int = 100
    test: int = 100
    user: str = "scripted"
    user_options: Mapping[str, Any] = field(default_factory=dict)
    transfer: bool = True

    def __post_init__(self) -> None:
        forget_changed()
        if self.size not in SIZES:
            raise ValueError(f"There is no size {self.size!r}; the sizes are {', '.join(SIZES)}.")
        for split, count in zip(SPLITS, (self.train, self.dev, self.test), strict=True):
            if count < 0:
                raise ValueError(f"{split} = {count}: a split cannot have fewer than 0 tasks.")
        customers.check(self.user)
        if self.user == "scripted" and self.user_options:
            raise ValueError("user_options are a model's; the scripted customer has none.")

    def tasks(self, split: str) -> Sequence[Task]:
        if self.data is None:
            if split not in SPLITS:
                raise ValueError(f"There is no split {split!r}; there are {', '.join(SPLITS)}.")
            counts = dict(zip(SPLITS, (self.train, self.dev, self.test), strict=True))
            return LazyTasks(split, counts[split], _generated, (self.size, split))
        splits = load(self.data).splits
        if split not in splits:
            raise ValueError(
                f"{self.data} has no tasks of a split {split!r}; it has "
                f"{', '.join(splits) or 'none'}: {HOW}"
            )
        return [
            Task(
                id=scenario.id,
                family=scenario.family,
                seed=k,
                data={"folder": self.data, "split": split, "index": str(k)},
            )
            for k, scenario in enumerate(splits[split])
        ]

    def make(self) -> TauBenchEnv | TelecomEnv:
        if self.data is not None and is_telecom(self.data):
            return TelecomEnv(find, self._caller(), transfer=self.transfer)
        played_by = customers.customer(self.user, self.user_options)
        return TauBenchEnv(find, played_by, transfer=self.transfer)

    def _caller(self) -> Caller:
        if self.user == "scripted":
            return ScriptedCaller()
        return SimulatedCaller(customers.reply(self.user, self.user_options))

    def demonstrate(self, task: Task) -> Sequence[str]:
        return [move.action for move in self._moves(task)]

    def thoughts(self, task: Task) -> Sequence[str]:
        return [move.thought for move in self._moves(task)]

    def _moves(self, task: Task) -> Sequence[expert.Move]:
        world, scenario = find(task)
        show = telecom.demonstrate if world.domain == "telecom" else expert.demonstrate
        return show(world, scenario, transfer=self.transfer)

    def plan(self, task: Task) -> Sequence[str]:
        world, scenario = find(task)
        plan = telecom.plan if world.domain == "telecom" else expert.plan
        return plan(world, scenario, transfer=self.transfer)

    def plan_thoughts(self, task: Task) -> Sequence[str]:
        return [expert.thought_of(action) for action in self.plan(task)]

    def describe(self, task: Task) -> str:
        return " ".join(find(task)[1].requests)

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact}

    def world(self) -> World:
        """What its tasks are about."""
        return generate.shop(self.size) if self.data is None else load(self.data)

    def tools_of_agent(self) -> Tools:
        return usable(self.world(), transfer=self.transfer)

    def instructions(self) -> str:
        return wording.instructions(self.world(), self.tools_of_agent())

    def with_tools(self) -> TauBenchCalls:
        return TauBenchCalls(self)


def _generated(size: str, split: str, seed: int) -> Task:
    return Task(
        id=f"tau_bench/{size}/{split}/{seed:07d}",
        family=FAMILIES[seed % len(FAMILIES)],
        seed=seed,
        data={"split": split, "size": size},
    )


def find(task: Task) -> tuple[World, Scenario]:
    """The world of a task and what it is about. Raises ValueError for a task of another suite."""
    try:
        split = task.data["split"]
        if "folder" in task.data:
            world = load(task.data["folder"])
            return world, world.splits[split][int(task.data["index"])]
        size = task.data["size"]
    except (KeyError, IndexError, ValueError) as missing:
        raise ValueError(
            f"The task {task.id!r} is not a tau_bench task ({missing}): take one from "
            "TauBench().tasks(split)."
        ) from None
    return generate.shop(size), generate.scenario(split, task.seed, size)


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """Nothing, unless the original's own tasks are to be played, or a server plays the customer."""
    if options.get("data"):
        yield requirements.file("data", options["data"], GET)
    else:
        yield requirements.official("data", GET)
    user = options.get("user_options")
    key = user.get("key_variable") if isinstance(user, Mapping) else ""
    if key:
        yield requirements.variable(str(key), f"export {key}=KEY, the one of the customer's server")
