"""Settings tried out on parts of a step: how many times faster each would make it here."""

import importlib.util
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from tutelage import cpu
from tutelage.config.schema import Config
from tutelage.errors import ConfigError
from tutelage.objective import View
from tutelage.policies.base import Request
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.packing import pack
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Session
from tutelage.runs import assemble
from tutelage.runs.assemble import Phase
from tutelage.types import Episode

WORTH = 1.1
"""A setting that makes its part less than so many times faster is not recommended."""
REPEATS = 3
BURST = 8
"""Tokens of the turns that settings are tried out on."""
COMPILING = 60.0
"""Seconds that a measurement must have for torch.compile to be tried: it takes most of them."""
PLAYING = "play"
"""Of a trial timed on `generate` and `environment` together: each may wait for the other."""
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
class Trial:
    """A setting tried out: how many times faster than now, or slower where below 1."""

    setting: str
    phase: str  # the one that it changes, or PLAYING
    part: str  # what was timed
    faster: float


def tried(
    config: Config, session: Session, phase: Phase, episodes: Sequence[Episode],
    seconds: Mapping[str, float], *, limit: float,
) -> Iterator[Trial]:  # fmt: skip
    """Everything that makes sense here, in about `limit` seconds.

    episodes  that were played
    seconds   what each phase takes of a whole step: what hardly counts is not tried
    """
    own = session.policies["self"]
    assert isinstance(own, HFPolicy)
    rows = [session.prompter(View(), e.task).samples(e) for e in episodes]
    samples = [sample for row in rows for sample in row]
    slow = {name for name, s in seconds.items() if s >= 0.1 * sum(seconds.values())}
    yield from _passes(config, own, samples, limit / 5)
    if "update" in slow:
        yield from _updates(own, rows, limit / 5)
    if "teacher" in slow:
        yield from _teachers(config, session, phase, episodes, limit / 5)
    yield from _decoding(config, own, samples, limit / 5)
    if own.device == "cpu" and torch.get_num_threads() > 1:
        yield from _waiting()
    if "environment" in slow:
        each = (seconds["environment"] + seconds.get("generate", 0.0)) / (
            config.rollout.tasks_per_step * config.rollout.group_size
        )
        yield from _workers(config, session, phase, each, limit / 5)


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
def _changed(of: HFPolicy, name: str, value: object) -> Iterator[None]:
    before = getattr(of, name)
    setattr(of, name, value)
    try:
        yield
    finally:
        setattr(of, name, before)


@contextmanager
def _compiled(of: HFPolicy) -> Iterator[None]:
    """Passes that score, and learn, compiled. torch keeps what it compiled of a model."""
    before = of.scoring, of.padded
    of.scoring, of.padded = torch.compile(of.base, dynamic=True), True
    try:
        yield
    finally:
        of.scoring, of.padded = before


def _alternatives(config: Config, device: str) -> Settings:
    """Settings of a processor's products that are not those of now."""
    if device != "cpu":
        return {}
    counts = {1, os.cpu_count() or 1, (os.cpu_count() or 1) // 2} - {0, torch.get_num_threads()}
    made: Settings = {f"run.threads = {n}": partial(_threads, n) for n in sorted(counts)}
    default: cpu.Matmul = "blas" if cpu.exact() else "bfloat16"
    other: cpu.Matmul = default if config.run.matmul == "float32" else "float32"
    made[f'run.matmul = "{other}"'] = partial(cpu.products, other)
    return made


def compiler(device: str) -> bool:
    """Whether torch.compile finds what it writes programs for."""
    if device.startswith("cuda"):
        return importlib.util.find_spec("triton") is not None
    return any(map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++")))


def _fitting(work: Callable[[], object], ways: int, seconds: float, most: int) -> int:
    """How many times as much work can be raced in so many ways and seconds."""
    since = time.perf_counter()
    work()
    one = time.perf_counter() - since
    return max(1, min(most, int(seconds / one / (REPEATS + 1) / ways)))


def _passes(
    config: Config, own: HFPolicy, samples: Sequence[Sample], seconds: float
) -> Iterator[Trial]:
    """Scoring passes, which learning consists of as well."""
    settings = _alternatives(config, own.device)
    if own.dtype == "float32" and config.policy.quantize == "none":
        settings['policy.dtype = "bfloat16"'] = partial(_changed, own, "dtype", "bfloat16")
    if not config.policy.compile and 5 * seconds >= COMPILING and compiler(own.device):
        settings["policy.compile = true"] = partial(_compiled, own)
    if not settings:
        return
    one = partial(_score, own, samples[:1])
    some = samples[: _fitting(one, len(settings) + 1, seconds, len(samples))]
    for name, faster in race(settings, lambda: _score(own, some)).items():
        yield Trial(setting=name, phase="update", part="scoring", faster=faster)


@torch.no_grad()
def _score(policy: HFPolicy, samples: Sequence[Sample]) -> None:
    float(policy.score(samples, 1.0).logp.sum())


def _learn(own: HFPolicy, rows: Sequence[Sequence[Sample]]) -> None:
    """Forward and backward, as many rows in a pass as `own.tokens` allow."""
    parts, room = list[list[Sample]](), 0
    for row in rows:
        size = sum(len(r.ids) for r in pack(row))
        if not parts or size > room:
            parts.append([])
            room = own.tokens
        parts[-1] += row
        room -= size
    with own.sharing([sample for row in rows for sample in row]):
        for part in parts:
            own.score(part, 1.0).logp.sum().backward()  # type: ignore[no-untyped-call]
    own.model.zero_grad(set_to_none=True)
    if own.device.startswith("cuda"):
        torch.cuda.synchronize()


def _updates(own: HFPolicy, rows: Sequence[Sequence[Sample]], seconds: float) -> Iterator[Trial]:
    """Passes of half and twice as many tokens: fewer take less memory, more may be faster."""
    now = own.tokens
    one = partial(_learn, own, rows[:1])
    some = rows[: _fitting(one, 4, seconds, len(rows))]
    sizes = [sum(len(r.ids) for r in pack(row)) for row in some]
    for tokens in (now // 2, 2 * now):
        # where either holds all there is, or a row alone, the passes are the same
        if min(now, tokens) >= sum(sizes) or max(now, tokens) < 2 * max(sizes):
            continue
        setting = f"update.max_tokens_per_pass = {tokens}"
        settings: Settings = {setting: partial(_changed, own, "tokens", tokens)}
        part, faster = "does not fit", 0.0
        try:
            faster = race(settings, partial(_learn, own, some))[setting]
            part = "learning"
        except torch.OutOfMemoryError:
            own.model.zero_grad(set_to_none=True)
        yield Trial(setting=setting, phase="update", part=part, faster=faster)


def _teachers(
    config: Config, session: Session, phase: Phase, episodes: Sequence[Episode], seconds: float
) -> Iterator[Trial]:
    """What scores in this process beside the student."""
    names = {view.policy for view in phase.algorithm.views.values()} - {"self"}
    for name in sorted(names & set(config.policies)):
        policy = session.policies[name]
        if not isinstance(policy, HFPolicy) or policy.dtype == "bfloat16":
            continue
        view = View(policy=name)
        samples = [s for e in episodes for s in session.prompter(view, e.task).samples(e)]
        setting = f'policies.{name}.dtype = "bfloat16"'
        settings: Settings = {setting: partial(_changed, policy, "dtype", "bfloat16")}
        work = partial(_score, policy)
        some = samples[: _fitting(partial(work, samples[:1]), 2, seconds, len(samples))]
        yield Trial(
            setting=setting, phase="teacher", part="scoring",
            faster=race(settings, partial(work, some))[setting],
        )  # fmt: skip


def _decoding(
    config: Config, own: HFPolicy, samples: Sequence[Sample], seconds: float
) -> Iterator[Trial]:
    """Short turns of as many episodes as are live; and of half of them, to see whether more pay."""
    if not isinstance(own.engine, SlotEngine):
        return
    r = config.rollout
    wanted = min(own.rows, r.concurrency, r.tasks_per_step * r.group_size)
    short = [s.prompt for s in samples if len(s.prompt) + BURST <= own.context_length]
    if not short:
        return
    prompts = list(itertools.islice(itertools.cycle(short), wanted))

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
    # a turn alone bounds from above what each of many takes
    fits = int(2 * seconds / turns(1) / (REPEATS + 2))
    live = min(wanted, max(2, fits))
    settings = _alternatives(config, own.device)
    if settings and turns(live) * (REPEATS + 1) * (len(settings) + 1) > 2 * seconds:
        settings = {}  # a scoring pass has to speak for it
    if settings:
        for name, faster in race(settings, lambda: turns(live)).items():
            yield Trial(setting=name, phase="generate", part="sampling", faster=faster)
    if live > 1 and wanted < r.tasks_per_step * r.group_size:
        rates = [n / statistics.median(turns(n) for _ in range(REPEATS)) for n in (live // 2, live)]
        more = f"rollout.concurrency = policy.rows = {2 * wanted}"
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


def _workers(
    config: Config, session: Session, phase: Phase, each: float, seconds: float
) -> Iterator[Trial]:
    """Other numbers of worker processes, and the other order, where environments are waited for:
    as many episodes as are live, since one that plays alone waits for itself.

    each  what an episode of a whole step takes, in seconds
    """
    r, env = config.rollout, config.env
    now, own, before, whole = (
        assemble.workers_of(env, session.suite),
        env.order,
        session.pool,
        session.limits,
    )
    count = min(r.tasks_per_step, -(-r.concurrency // r.group_size))
    tasks = assemble.tasks_of(session.suite, env.split, count, where="env")[:count]
    ways = [(n, own) for n in sorted({now, 1, 2})]
    if now:
        ways.append((now, "fixed" if own == "arrival" else "arrival"))
    share = seconds / (2 * len(ways) * each * count * r.group_size)
    session.limits = replace(
        whole, max_turns=max(1, min(whole.max_turns, int(whole.max_turns * share)))
    )
    work = partial(play, session, tasks, phase.algorithm, seed=phase.seed, group_size=r.group_size)
    taken: dict[tuple[int, str], float] = {}
    try:
        for workers, order in ways:
            section = env.model_copy(update={"workers": workers, "order": order})
            try:
                session.pool = assemble.pool_of(section, session.suite)
            except ConfigError:  # a suite that cannot be sent to another process
                continue
            try:
                for _ in range(2):  # in the first, processes start
                    session.clock = Clock()
                    work()
                taken[workers, order] = sum(session.clock.seconds.values())
            finally:
                session.pool.shutdown()
    finally:
        session.pool, session.limits = before, whole
    for (workers, answers), took in taken.items():
        if (workers, answers) != (now, own):
            named = f"env.workers = {workers}" if workers != now else f'env.order = "{answers}"'
            faster = taken[now, own] / took
            yield Trial(setting=named, phase=PLAYING, part="playing", faster=faster)
