"""How fast a run goes on this machine: a small step of it, measured, and settings tried out.

Nothing is written, and what is learnt is thrown away.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from tutelage.cli.progress import PHASES
from tutelage.cli.trials import PLAYING, WORTH, Trial, tried
from tutelage.config.schema import Config
from tutelage.config.toml_file import parse, read_table
from tutelage.errors import RunError
from tutelage.objective import View
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.packing import pack
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Limits, Session
from tutelage.runs import assemble, models
from tutelage.runs.assemble import Phase
from tutelage.runs.offline import Tick, staged
from tutelage.training.optimizer import adamw
from tutelage.training.train_step import train_step
from tutelage.types import EXPERT, WRONG_TURN, Episode, Stop

SECONDS = 100.0
"""What it takes, about: the rest of two minutes goes into loading models."""
FIRST = 8
"""Tokens of the one turn that is tried first."""
GROWTH = 6.0
"""What twice the turns of twice the tokens take, at most: attention grows faster than they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a phase takes of a whole step, and how fast it went."""

    name: str
    seconds: float
    rate: float  # a second
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    played: int  # episodes
    step: int  # episodes of a step
    cut: str = ""  # what was left out of the episodes, where there was no time for whole ones
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

        share[PLAYING] = share.get("generate", 0.0) + share.get("environment", 0.0)
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
    phases = assemble.phases_of(config)
    wanted = assemble.policies_wanted(phases, config.policies)
    with staged(config, sorted(wanted - {"reference"}), student, tick) as session:
        own = session.policies["self"]
        assert isinstance(own, HFPolicy)
        if "reference" in wanted - set(config.policies):
            session.policies = {**session.policies, "reference": own.copied()}
        small = _step(config, session, phases[-1], seconds / 2)
        size, episodes = config.rollout.tasks_per_step * config.rollout.group_size, small.episodes
        scale = size / len(episodes)
        grown = tuple(replace(part, seconds=part.seconds * scale) for part in small.parts)
        whole = {part.name: part.seconds for part in grown}
        made = tried(config, session, phases[-1], episodes, whole, limit=seconds / 2)
        return Report(
            played=len(episodes), step=size, cut=small.cut, parts=grown, trials=tuple(made)
        )


# -- a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A step in the small: its seconds are those of whole episodes, cut or not."""

    episodes: list[Episode]
    parts: list[Part]
    cut: str


def _step(config: Config, session: Session, phase: Phase, seconds: float) -> Small:
    """As much of a step as is played and learnt from in about so many seconds: whole tasks, or
    where not even one can be, one with fewer turns and tokens."""
    tasks = assemble.tasks_of(
        session.suite, config.env.split, config.rollout.tasks_per_step, where="env"
    )
    student, end = session.policies["self"], time.perf_counter() + seconds
    assert isinstance(student, HFPolicy)
    optimizer = adamw(
        student.parameters(), lr=phase.lr, betas=config.update.betas,
        weight_decay=config.update.weight_decay, offload=config.update.offload,
    )  # fmt: skip
    update = assemble.update_of(config, student.device)
    whole = session.limits

    def work(count: int) -> float:
        session.clock, since = Clock(), time.perf_counter()
        made = play(
            session,
            tasks[:count],
            phase.algorithm,
            seed=phase.seed,
            group_size=config.rollout.group_size,
        )
        episodes[:] = [e for e in made if e.turns and not e.stop.broken]
        if not episodes:
            raise RunError(
                "no episode could be played: " + (made[0].error or "its first prompt is too long")
            )
        train_step(
            phase.algorithm, episodes, session.policies, optimizer, session.prompter, update, step=0,
            seed=phase.seed, clock=session.clock,
        )  # fmt: skip
        return time.perf_counter() - since

    episodes: list[Episode] = []
    session.limits = cut = _least(whole)
    try:
        work(1)  # warms up
        while (took := work(1)) * GROWTH < end - time.perf_counter() and cut != whole:
            session.limits = cut = _twice(cut, whole)
        work(max(1, min(config.rollout.tasks_per_step, int((end - time.perf_counter()) / took))))
    finally:
        session.limits = whole
    return Small(
        episodes=list(episodes), parts=_parts(session, episodes, cut), cut=_said(cut, whole)
    )


def _least(whole: Limits) -> Limits:
    return replace(whole, max_turns=1, max_new_tokens=min(FIRST, whole.max_new_tokens))


def _twice(cut: Limits, whole: Limits) -> Limits:
    """Twice the turns of twice the tokens, at most those of whole episodes."""
    turns, tokens = (
        min(2 * cut.max_turns, whole.max_turns),
        min(2 * cut.max_new_tokens, whole.max_new_tokens),
    )
    return replace(cut, max_turns=turns, max_new_tokens=tokens)


def _said(cut: Limits, whole: Limits) -> str:
    if cut == whole:
        return ""
    return (
        f"cut to {cut.max_turns} of {whole.max_turns} turns and {cut.max_new_tokens} of {whole.max_new_tokens} "
        "tokens a turn; seconds are scaled to the whole, as if every episode that was cut used it"
    )


def _left_out(episodes: Sequence[Episode], cut: Limits, whole: Limits) -> tuple[float, float]:
    """How many times the sampled tokens, and the turns, whole episodes have: those that reached
    what they were cut to are taken to go on to the end."""
    turns = tokens = sampled = played = 0.0
    for episode in episodes:
        longer = whole.max_turns / cut.max_turns if episode.stop is Stop.TURNS else 1.0
        played, turns = played + len(episode.turns), turns + longer * len(episode.turns)
        for turn in episode.turns:
            if turn.actor in (EXPERT, WRONG_TURN):
                continue
            wordier = whole.max_new_tokens / cut.max_new_tokens
            full = len(turn.tokens) >= cut.max_new_tokens
            sampled += len(turn.tokens)
            tokens += longer * len(turn.tokens) * (wordier if full else 1.0)
    return (tokens / sampled if sampled else 1.0), turns / played


def _parts(session: Session, episodes: Sequence[Episode], cut: Limits) -> list[Part]:
    """Each phase, its seconds as of whole episodes; rates are those that were measured."""
    turns = [turn for e in episodes for turn in e.turns]
    sampled = sum(len(turn.tokens) for turn in turns if turn.actor not in (EXPERT, WRONG_TURN))
    rows = [row for e in episodes for row in pack(session.prompter(View(), e.task).samples(e))]
    read = sum(len(row.ids) for row in rows)
    wordier, longer = _left_out(episodes, cut, session.limits)
    scored = (wordier * sampled + longer * (read - sampled)) / read
    counts = {
        "generate": (sampled, wordier, "sampled tokens"),
        "environment": (len(turns), longer, "turns"),
        "teacher": (read, scored, "tokens read"),
        "update": (read, scored, "tokens read"),
    }
    seconds = session.clock.seconds
    return [
        Part(
            name=n, seconds=seconds[n] * counts[n][1], rate=counts[n][0] / seconds[n],
            unit=counts[n][2],
        )
        for n in PHASES
        if seconds.get(n, 0.0) > 0
    ]  # fmt: skip


# -- on paper


def show(report: Report, console: Console) -> None:
    whole = sum(part.seconds for part in report.parts)
    say = partial(console.print, highlight=False)
    say(
        f"A step of {report.step} episodes takes about {whole:.3g} s here, by "
        f"{report.played} of them{f', {report.cut}' if report.cut else ''}.\n"
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
