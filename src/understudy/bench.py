"""How fast a run goes on this machine: a small step of it, measured, and settings tried out.

Nothing is written, and what is learnt is thrown away.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from understudy import build, models, processor
from understudy.build import Phase
from understudy.config import Config
from understudy.configfile import parse, read_table
from understudy.demonstrations import ASTRAY
from understudy.errors import ConfigError, RunError
from understudy.measure import Tick, staged
from understudy.objective import View
from understudy.optimizer import adamw
from understudy.policies.base import Request, Sample
from understudy.policies.hf import Compute, HFPolicy
from understudy.policies.packing import pack
from understudy.policies.slots import SlotEngine
from understudy.progress import PHASES
from understudy.rollout import EXPERT, Clock, Stage, play
from understudy.trainer import train_step
from understudy.types import Episode

SECONDS = 100.0
"""What it takes, about: the rest of two minutes goes into loading models."""
WORTH = 1.1
"""A setting that makes its part less than so many times faster is not recommended."""
REPEATS = 3
BURST = 8
"""Tokens of the turns that settings are tried out on."""
Settings = dict[str, Callable[[], AbstractContextManager[None]]]
"""By what a user would write, how to have it for a while."""
PRODUCTS = """
import time, torch
x = torch.randn(64, 512); w = torch.randn(512, 512)
for _ in range(200): x @ w
since = time.perf_counter()
for _ in range(2000): x @ w
print(time.perf_counter() - since)
"""
"""Many small products: what threads that wait for each other do to a decode step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a phase takes of a whole step, and how fast it went."""

    name: str
    seconds: float
    rate: float  # a second
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A setting tried out: how many times faster than now, or slower where below 1."""

    setting: str
    phase: str  # the one that it changes
    part: str  # what was timed
    faster: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    played: int  # episodes
    step: int  # episodes of a step
    parts: tuple[Part, ...]
    trials: tuple[Trial, ...]

    @property
    def slowest(self) -> Part:
        return max(self.parts, key=lambda part: part.seconds)

    def helpful(self) -> list[Trial]:
        """Of every setting the best value, if it is worth it and its phase matters: the largest
        gain for a whole step first."""
        whole = sum(part.seconds for part in self.parts)
        share = {part.name: part.seconds / whole for part in self.parts}

        def gain(trial: Trial) -> float:
            return share[trial.phase] * (1 - 1 / trial.faster)

        slow = {name for name, part in share.items() if part >= 0.1}
        worth = [t for t in self.trials if t.faster >= WORTH and t.phase in slow]
        best: dict[str, Trial] = {}
        for trial in sorted(worth, key=gain, reverse=True):
            best.setdefault(trial.setting.split(" = ")[0], trial)
        return list(best.values())


def usual() -> Config:
    """What is measured where no file is given: OPD on the built-in environment and models."""
    table = read_table(models.ASSETS / "demo.toml")
    table |= read_table(models.ASSETS / "demo-opd.toml")
    model: dict[str, JsonValue] = {"model": "builtin:household-teacher", "layers": 2, "rows": 128}
    return parse({**table, "policy": model})


def measure(config: Config, *, student: str = "", seconds: float = SECONDS, tick: Tick) -> Report:
    """A step of the main algorithm in the small, phase by phase; then what other settings would
    make of its parts. The student is the file's, or that of a run's folder `student`."""
    phases = build.phases_of(config)
    wanted = build.policies_wanted(phases, config.policies)
    with staged(config, sorted(wanted - {"reference"}), student, tick) as stage:
        own = stage.policies["self"]
        assert isinstance(own, HFPolicy)
        if "reference" in wanted - set(config.policies):
            stage.policies = {**stage.policies, "reference": own.copied()}
        parts, episodes = _step(config, stage, phases[-1], seconds / 2)
        size = config.rollout.tasks * config.rollout.copies
        scale = size / len(episodes)
        grown = tuple(replace(part, seconds=part.seconds * scale) for part in parts)
        samples = [s for e in episodes for s in stage.prompter(View(), e.task).samples(e)]
        trials = [
            *_passes(config, own, samples, seconds / 8),
            *_decoding(config, own, samples, seconds / 8),
            *(_waiting() if own.device == "cpu" and torch.get_num_threads() > 1 else ()),
            *_workers(config, stage, phases[-1], grown),
        ]
    return Report(played=len(episodes), step=size, parts=grown, trials=tuple(trials))


# -- a step


def _step(
    config: Config, stage: Stage, phase: Phase, seconds: float
) -> tuple[list[Part], list[Episode]]:
    """As many tasks of a step as are played and learnt from in about so many seconds."""
    tasks = build.tasks_of(stage.suite, config.env.split, config.rollout.tasks, where="env")
    student = stage.policies["self"]
    assert isinstance(student, HFPolicy)
    optimizer = adamw(
        student.parameters(), lr=phase.lr, betas=config.update.betas,
        weight_decay=config.update.weight_decay, offload=config.update.offload,
    )  # fmt: skip
    count, episodes = 1, list[Episode]()
    for last in (False, True):  # the first warms up, and says for how many there is time
        stage.clock, since = Clock(), time.perf_counter()
        made = play(
            stage, tasks[:count], phase.algorithm, seed=phase.seed, copies=config.rollout.copies
        )
        episodes = [e for e in made if e.turns and not e.stop.broken]
        if not episodes:
            raise RunError(
                "no episode could be played: " + (made[0].error or "its first prompt is too long")
            )
        train_step(
            phase.algorithm, episodes, stage.policies, optimizer, stage.prompter,
            build.update_of(config), step=0, seed=phase.seed, clock=stage.clock,
        )  # fmt: skip
        if not last:
            fits = int(seconds / (time.perf_counter() - since))
            count = max(1, min(config.rollout.tasks, fits))
    return _parts(stage, episodes), episodes


def _parts(stage: Stage, episodes: Sequence[Episode]) -> list[Part]:
    turns = [turn for e in episodes for turn in e.turns]
    sampled = sum(len(turn.tokens) for turn in turns if turn.actor not in (EXPERT, ASTRAY))
    rows = [row for e in episodes for row in pack(stage.prompter(View(), e.task).samples(e))]
    read = sum(len(row.ids) for row in rows)
    counts = {
        "generate": (sampled, "sampled tokens"),
        "environment": (len(turns), "turns"),
        "teacher": (read, "tokens read"),
        "update": (read, "tokens read"),
    }
    seconds = stage.clock.seconds
    return [
        Part(name=n, seconds=seconds[n], rate=counts[n][0] / seconds[n], unit=counts[n][1])
        for n in PHASES
        if seconds.get(n, 0.0) > 0
    ]


# -- settings tried out


def race(settings: Settings, work: Callable[[], object]) -> dict[str, float]:
    """How many times faster the work is under each setting than as things are. They take turns, so
    that a busy neighbour disturbs all alike; medians."""
    taken: dict[str, list[float]] = {"": [], **{name: [] for name in settings}}
    for round_ in range(REPEATS + 1):
        for name, times in taken.items():
            with settings[name]() if name else nullcontext():
                since = time.perf_counter()
                work()
                if round_:  # the first warms up
                    times.append(time.perf_counter() - since)
    now = statistics.median(taken.pop(""))
    return {name: now / statistics.median(times) for name, times in taken.items()}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _compute(of: HFPolicy, kind: Compute) -> Iterator[None]:
    before, of.compute = of.compute, kind
    try:
        yield
    finally:
        of.compute = before


def _alternatives(config: Config, device: str) -> Settings:
    """Settings of a processor's products that are not those of now."""
    if device != "cpu":
        return {}
    counts = {1, os.cpu_count() or 1, (os.cpu_count() or 1) // 2} - {0, torch.get_num_threads()}
    made: Settings = {f"run.threads = {n}": partial(_threads, n) for n in sorted(counts)}
    other: processor.Matmul = "bfloat16" if config.run.matmul == "float32" else "float32"
    made[f'run.matmul = "{other}"'] = partial(processor.products, other)
    return made


def _passes(
    config: Config, own: HFPolicy, samples: Sequence[Sample], seconds: float
) -> Iterator[Trial]:
    """Scoring passes, which learning consists of as well."""
    settings = _alternatives(config, own.device)
    if own.compute == "float32" and config.policy.quantize == "none":
        settings['policy.compute = "bfloat16"'] = partial(_compute, own, "bfloat16")
    since = time.perf_counter()
    _score(own, samples[:1])
    one = time.perf_counter() - since
    fits = seconds / one / (REPEATS + 1) / (len(settings) + 1)
    some = samples[: max(1, min(len(samples), int(fits)))]
    for name, faster in race(settings, lambda: _score(own, some)).items():
        yield Trial(setting=name, phase="update", part="scoring", faster=faster)


@torch.no_grad()
def _score(own: HFPolicy, samples: Sequence[Sample]) -> None:
    float(own.score(samples, 1.0).logp.sum())


def _decoding(
    config: Config, own: HFPolicy, samples: Sequence[Sample], seconds: float
) -> Iterator[Trial]:
    """Short turns of as many episodes as are live; and of half of them, to see whether more pay."""
    if not isinstance(own.engine, SlotEngine):
        return
    r = config.rollout
    live = min(own.rows, r.live, r.tasks * r.copies)
    short = [s.prompt for s in samples if len(s.prompt) + BURST <= own.context_length]
    if not short:
        return
    prompts = list(itertools.islice(itertools.cycle(short), live))

    def turns(count: int) -> float:
        since = time.perf_counter()
        for k, prompt in enumerate(prompts[:count]):
            own.submit(Request(key=str(k), prompt=prompt, seed=k, max_new=BURST))
        left = count
        while left:
            left -= len(own.poll())
        own.refresh()
        return time.perf_counter() - since

    turns(1)
    settings = _alternatives(config, own.device)
    if turns(live) * (REPEATS + 1) * (len(settings) + 1) > 2 * seconds:
        settings = {}  # a scoring pass has to speak for it
    for name, faster in race(settings, lambda: turns(live)).items():
        yield Trial(setting=name, phase="generate", part="sampling", faster=faster)
    if live > 1 and live < r.tasks * r.copies:
        rates = [n / statistics.median(turns(n) for _ in range(REPEATS)) for n in (live // 2, live)]
        more = f"rollout.live = policy.rows = {2 * live}"
        # half as much gain by the next doubling as by the last: no more than a guess
        faster = 1 + (rates[1] / rates[0] - 1) / 2
        yield Trial(setting=more, phase="generate", part="guessed from half", faster=faster)


def _waiting() -> Iterator[Trial]:
    """OpenMP's threads sleeping or spinning while they wait, each in a new process."""
    now = os.environ.get("OMP_WAIT_POLICY", "PASSIVE").upper()
    other = "ACTIVE" if now == "PASSIVE" else "PASSIVE"
    taken: dict[str, list[float]] = {now: [], other: []}
    threads = str(torch.get_num_threads())
    for policy in (now, other) * 2:
        environment = {**os.environ, "OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": threads}
        made = subprocess.run(
            [sys.executable, "-c", PRODUCTS], env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        taken[policy].append(float(made.stdout))
    faster = min(taken[now]) / min(taken[other])
    yield Trial(
        setting=f"OMP_WAIT_POLICY = {other}", phase="generate", part="small products", faster=faster
    )


def _workers(config: Config, stage: Stage, phase: Phase, parts: Sequence[Part]) -> Iterator[Trial]:
    """Other numbers of worker processes, where environments are waited for."""
    share = {part.name: part.seconds for part in parts}
    if share.get("environment", 0.0) < 0.1 * sum(share.values()):
        return
    now, before = build.workers_of(config.env), stage.pool
    tasks = build.tasks_of(stage.suite, config.env.split, 1, where="env")[:1]
    taken: dict[int, float] = {}
    for count in sorted({now, 1, 2}):
        section = config.env.model_copy(update={"workers": count})
        try:
            stage.pool = build.pool_of(section, stage.suite)
        except ConfigError:  # a suite that cannot be sent to another process
            continue
        try:
            for _ in range(2):  # in the first, processes start
                stage.clock = Clock()
                play(stage, tasks, phase.algorithm, seed=phase.seed, copies=config.rollout.copies)
            taken[count] = stage.clock.seconds["environment"]
        finally:
            stage.pool.shutdown()
            stage.pool = before
    for count in taken.keys() - {now}:
        yield Trial(
            setting=f"env.workers = {count}", phase="environment", part="waiting",
            faster=taken[now] / taken[count],
        )  # fmt: skip


# -- on paper


def show(report: Report, console: Console) -> None:
    whole = sum(part.seconds for part in report.parts)
    say = partial(console.print, highlight=False)
    say(
        f"A step of {report.step} episodes takes about {whole:.3g} s here, by "
        f"{report.played} of them.\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase")
    for column in ("seconds", "share", "a second"):
        table.add_column(column, justify="right")
    table.add_column("")
    for part in report.parts:
        share = f"{100 * part.seconds / whole:.0f} %"
        table.add_row(part.name, f"{part.seconds:.3g}", share, f"{part.rate:,.4g}", part.unit)
    console.print(table)
    slowest = report.slowest
    say(f"\nIt waits most for: {slowest.name} ({100 * slowest.seconds / whole:.0f} %).")
    if report.trials:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("tried out", "in", "times as fast"):
            table.add_column(column, justify="right" if column.startswith("times") else "left")
        for trial in report.trials:
            table.add_row(trial.setting, f"{trial.phase}: {trial.part}", f"{trial.faster:.2f}")
        say("")
        console.print(table)
    helpful = [trial.setting for trial in report.helpful()]
    say(f"\nWould help: {', '.join(helpful) or 'none of these'}.")
