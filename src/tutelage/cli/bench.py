"""`tutelage bench`: how long a training step takes on this machine, and which phase limits it.

Nothing is written, and the updated weights are discarded.
"""

import pickle
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from tutelage.cli.progress import PHASES
from tutelage.config.schema import Config
from tutelage.config.toml_file import load
from tutelage.errors import RunError
from tutelage.objective import View
from tutelage.policies.packing import pack
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.rollout.task_sampling import step_size
from tutelage.runs import models
from tutelage.runs.assemble import Tick, assemble, tasks_of, update_of
from tutelage.runs.offline import opened
from tutelage.runs.phases import Phase
from tutelage.seeding import seed_of
from tutelage.training.optimizer import adamw
from tutelage.training.train_step import train_step
from tutelage.types import EXPERT, WRONG_TURN, Episode, Stop

SECONDS = 60.0
"""Default length of the measurement in seconds, after the models are loaded."""
FIRST = 8
"""Tokens of the first probe: an episode of a single turn."""
GROWTH = 6.0
"""Upper bound on the growth in time when turns and tokens double. It is above 4 because attention
costs grow faster than linearly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One phase of a full training step: its seconds and its throughput."""

    name: str
    seconds: float
    rate: float  # units per second
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    played: int  # episodes that were measured
    step: int  # episodes of a full step
    cut: str = ""  # how the measured episodes were shortened; empty for full ones
    parts: tuple[Part, ...]
    probes: tuple["Probe", ...] = ()
    tasks: int = 0  # of the training split

    @property
    def seconds(self) -> float:
        """Seconds of a full step."""
        return sum(part.seconds for part in self.parts)

    @property
    def bottleneck(self) -> Part:
        return max(self.parts, key=lambda part: part.seconds)


def usual() -> Config:
    """The configuration that is measured without a file: OPD with the built-in models."""
    student = 'policy = {model = "builtin:household-teacher", layers = 2}'
    return load(models.ASSETS / "demo-opd.toml", [student])


def measure(config: Config, *, student: str = "", seconds: float = SECONDS, tick: Tick) -> Report:
    """Measure a small step of the main algorithm, phase by phase, and scale it to a full step.

    student  the folder of a checkpoint to take the student from; empty for the file's model
    seconds  approximate time of the measurement, without loading models
    """
    parts = assemble(config, evaluates=False)
    config = parts.config  # with the numbers that the run chooses
    with opened(parts, student=student, tick=tick) as session:
        own = models.student_of(session.policies)
        if parts.makes_reference:
            session = replace(session, policies={**session.policies, "reference": own.copied()})
        small = _step(config, session, parts.phases[-1], seconds)
        scale = small.step / len(small.episodes)
        return Report(
            played=len(small.episodes),
            step=small.step,
            cut=small.cut,
            parts=tuple(replace(part, seconds=part.seconds * scale) for part in small.parts),
            probes=tuple(small.probes),
            tasks=len(parts.tasks),
        )


# -- a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """An episode of full length: its turns, sampled tokens, and tokens that a view reads."""

    turns: float
    sampled: float
    read: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Groups that were played and learnt from, and what that took.

    groups     the episodes of each group, at their full length
    played     the same episodes as they were played, perhaps cut
    seconds    by phase, as measured
    laid_out   the part of "prompts" that lays out the step that is learnt from
    optimizer  seconds of one optimiser step
    rest       seconds outside of the phases
    sent       bytes of the episodes as ranks send them to each other
    unpacking  seconds to read these bytes
    """

    groups: tuple[tuple[Size, ...], ...]
    played: tuple[tuple[Size, ...], ...]
    seconds: Mapping[str, float]
    laid_out: float
    optimizer: float
    steps: int
    rest: float
    sent: int
    unpacking: float


@dataclass(slots=True)
class Stopwatch:
    """Measures the steps of an optimiser."""

    seconds: float = 0.0
    steps: int = 0
    since: float = 0.0

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        def begin(*_: object) -> None:
            self.since = time.perf_counter()

        def end(*_: object) -> None:
            self.seconds += time.perf_counter() - self.since
            self.steps += 1

        optimizer.register_step_pre_hook(begin)
        optimizer.register_step_post_hook(end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A small measured step. Its seconds are scaled to full episodes if these were shortened."""

    episodes: list[Episode]
    parts: list[Part]
    cut: str
    step: int  # episodes of a full one
    probes: list[Probe] = field(default_factory=list)


def _step(config: Config, session: Session, phase: Phase, seconds: float) -> Small:
    """Measure as many tasks of a step as fit into `seconds`; if a single full task does not fit,
    one task with fewer turns and tokens."""
    r, seed = config.rollout, phase.seed
    every = tasks_of(session.suite, config.env.split, r.tasks_per_step, where="env")
    count, copies = step_size(
        phase.algorithm, len(every), count=r.tasks_per_step, group_size=r.group_size
    )
    draw = random.Random(seed_of("tasks", seed, 0))  # those of the run's first step
    tasks = [every[i] for i in draw.sample(range(len(every)), count)]
    student, end = models.student_of(session.policies), time.perf_counter() + seconds
    optimizer = adamw(
        student.parameters(),
        lr=0.0,
        betas=config.update.betas,
        weight_decay=config.update.weight_decay,
        offload=config.update.offload,
    )
    update = update_of(config, student.device)
    full = session.limits
    watch = Stopwatch()
    watch.watch(optimizer)

    def work(count: int) -> float:
        session.clock.restart()
        watch.seconds = watch.steps = 0
        since = time.perf_counter()
        played = play(
            replace(session, limits=cut),
            tasks[:count],
            phase.algorithm,
            seed=seed,
            group_size=copies,
        )
        laid_out = session.clock.seconds.get("prompts", 0.0)
        episodes[:] = [e for e in played if e.turns and not e.stop.broken]
        if not episodes:
            raise RunError(
                "no episode could be played: " + (played[0].error or "its first prompt is too long")
            )
        train_step(
            phase.algorithm,
            episodes,
            session.policies,
            optimizer,
            session.prompter,
            update,
            step=0,
            seed=seed,
            clock=session.clock,
        )
        took = time.perf_counter() - since
        laid_out = session.clock.seconds.get("prompts", 0.0) - laid_out
        probes.append(_probe(session, episodes, cut, took, laid_out, watch))
        return took

    episodes: list[Episode] = []
    probes: list[Probe] = []
    cut = _shortest(full)
    work(1)  # warms up
    while (took := work(1)) * GROWTH < end - time.perf_counter() and cut != full:
        cut = _twice(cut, full)
    del probes[:-1]
    work(max(1, min(count, int((end - time.perf_counter()) / took))))
    return Small(
        episodes=list(episodes),
        parts=_parts(session, episodes, cut),
        cut=_cut_note(cut, full),
        step=count * copies,
        probes=probes,
    )


def _probe(
    session: Session,
    episodes: Sequence[Episode],
    cut: Limits,
    took: float,
    laid_out: float,
    watch: Stopwatch,
) -> Probe:
    played: dict[str, list[Size]] = {}
    whole: dict[str, list[Size]] = {}
    for episode in episodes:
        size = _size(session, episode)
        token_factor, turn_factor = _left_out([episode], cut, session.limits)
        played.setdefault(episode.group, []).append(size)
        sampled = token_factor * size.sampled
        whole.setdefault(episode.group, []).append(
            Size(
                turns=turn_factor * size.turns,
                sampled=sampled,
                read=sampled + turn_factor * (size.read - size.sampled),
            )
        )
    sent = pickle.dumps(list(episodes))
    since = time.perf_counter()
    pickle.loads(sent)
    unpacking = time.perf_counter() - since
    return Probe(
        groups=tuple(tuple(group) for group in whole.values()),
        played=tuple(tuple(group) for group in played.values()),
        seconds=dict(session.clock.seconds),
        laid_out=laid_out,
        optimizer=watch.seconds / max(1, watch.steps),
        steps=watch.steps,
        rest=max(0.0, took - sum(session.clock.seconds.values())),
        sent=len(sent),
        unpacking=unpacking,
    )


def _size(session: Session, episode: Episode) -> Size:
    rows = pack(session.prompter(View(), episode.task).samples(episode))
    turns = [turn for turn in episode.turns if turn.actor not in (EXPERT, WRONG_TURN)]
    return Size(
        turns=len(episode.turns),
        sampled=sum(len(turn.tokens) for turn in turns),
        read=sum(len(row.ids) for row in rows),
    )


def _shortest(full: Limits) -> Limits:
    return replace(full, max_turns=1, max_new_tokens=min(FIRST, full.max_new_tokens))


def _twice(cut: Limits, full: Limits) -> Limits:
    """Twice the turns of twice the tokens, at most those of full episodes."""
    turns, tokens = (
        min(2 * cut.max_turns, full.max_turns),
        min(2 * cut.max_new_tokens, full.max_new_tokens),
    )
    return replace(cut, max_turns=turns, max_new_tokens=tokens)


def _cut_note(cut: Limits, full: Limits) -> str:
    if cut == full:
        return ""
    return (
        f"cut to {cut.max_turns} of {full.max_turns} turns and {cut.max_new_tokens} of "
        f"{full.max_new_tokens} tokens per turn; seconds are scaled as if every episode that "
        "reached the cut had the full length"
    )


def _left_out(episodes: Sequence[Episode], cut: Limits, full: Limits) -> tuple[float, float]:
    """The factors by which full episodes have more sampled tokens, and more turns, than shortened
    ones. An episode that reached the cut is assumed to reach the full length."""
    turns = tokens = sampled = played = 0.0
    for episode in episodes:
        turn_factor = full.max_turns / cut.max_turns if episode.stop is Stop.TURNS else 1.0
        played, turns = played + len(episode.turns), turns + turn_factor * len(episode.turns)
        for turn in episode.turns:
            if turn.actor in (EXPERT, WRONG_TURN):
                continue
            token_factor = full.max_new_tokens / cut.max_new_tokens
            at_limit = len(turn.tokens) >= cut.max_new_tokens
            sampled += len(turn.tokens)
            tokens += turn_factor * len(turn.tokens) * (token_factor if at_limit else 1.0)
    return (tokens / sampled if sampled else 1.0), turns / played


def _parts(session: Session, episodes: Sequence[Episode], cut: Limits) -> list[Part]:
    """Each phase: seconds scaled to full episodes, rates as measured."""
    turns = [turn for e in episodes for turn in e.turns]
    sampled = sum(len(turn.tokens) for turn in turns if turn.actor not in (EXPERT, WRONG_TURN))
    rows = [row for e in episodes for row in pack(session.prompter(View(), e.task).samples(e))]
    read = sum(len(row.ids) for row in rows)
    token_factor, turn_factor = _left_out(episodes, cut, session.limits)
    scored = (token_factor * sampled + turn_factor * (read - sampled)) / read
    counts = {
        "generate": (sampled, token_factor, "sampled tokens"),
        "environment": (len(turns), turn_factor, "turns"),
        "prompts": (read, scored, "tokens read"),
        "teacher": (read, scored, "tokens read"),
        "update": (read, scored, "tokens read"),
    }
    seconds = session.clock.seconds
    return [
        Part(
            name=n,
            seconds=seconds[n] * counts[n][1],
            rate=counts[n][0] / seconds[n],
            unit=counts[n][2],
        )
        for n in PHASES
        if seconds.get(n, 0.0) > 0
    ]


# -- printing


def show(report: Report, console: Console) -> None:
    say = partial(console.print, highlight=False)
    cut = f", {report.cut}" if report.cut else ""
    say(
        f"A step of {report.step} episodes takes about {report.seconds:.3g} s on this machine "
        f"(measured on {report.played} episodes{cut}).\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase")
    for column in ("seconds", "share", "per second"):
        table.add_column(column, justify="right")
    table.add_column("")
    for part in report.parts:
        share = f"{100 * part.seconds / report.seconds:.0f} %"
        table.add_row(part.name, f"{part.seconds:.3g}", share, f"{part.rate:,.4g}", part.unit)
    console.print(table)
    slowest = report.bottleneck
    say(f"\nBottleneck: {slowest.name} ({100 * slowest.seconds / report.seconds:.0f} %).")
