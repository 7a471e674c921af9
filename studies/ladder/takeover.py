"""Whether a bigger teacher can still win once the student has acted for k turns: Guided-OPD's reason.

That errors compound and leave the ground that the teacher knows shows in two numbers over k: how often it
wins from there, and how sure it is of what it says first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from studies import tables
from studies.ladder.start import share, taken_over
from studies.plan import TEACHER, Run
from studies.runner import put
from tutelage.errors import RunError
from tutelage.evaluation.evaluate import evaluate
from tutelage.objective import View
from tutelage.rollout.session import Session
from tutelage.runs.assemble import assemble
from tutelage.types import Episode, Task

FOUND = Path(__file__).with_name("takeover.json")
AFTER = (0, 1, 2, 4, 8, 12)
"""Turns of the student after which the teacher takes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Of the panel's episodes that lasted longer than `after` turns of the student.

    taken, plain  how many the teacher won after it took over, and the student where it went on
    logp          log-probability of a token in the teacher's first turn, which it sampled: mean, nats
    in_time       of all tasks, those that the teacher, playing alone, wins in the turns that are left here
    """

    after: int
    n: int
    taken: int
    plain: int
    logp: float
    in_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A student, before its training (method "") or after it, and a point for each of AFTER."""

    start: str
    method: str
    seed: int
    won: int  # tasks of the panel that the student wins alone
    tasks: int
    points: tuple[Point, ...]


def measure(run: Run, start: str, *, trained: bool) -> Curve:
    """The student of a run, before or after it, on the study's panel. Raises RunError where the run is
    not finished."""
    assert run.config is not None
    assert run.start is not None
    student = run if trained else run.start
    if not student.finished:
        raise RunError(
            f"{student.name} is not trained; `python -m studies.ladder strengths` does it"
        )
    policy = run.config.policy.model_copy(update={"model": str(student.folder)})
    parts = assemble(run.config.model_copy(update={"policy": policy}), learns=False)
    assert parts.panel is not None
    temperature = run.config.eval.temperature
    with parts.open(others=(TEACHER,), tick=lambda done, total: None) as opened:
        limits = replace(opened.session.limits, temperature=temperature)
        session = replace(opened.session, limits=limits)
        plain = evaluate(session, parts.panel, seed=run.seed, temperature=temperature).episodes
        tasks, seed = parts.panel.tasks, run.seed
        _, alone = taken_over(session, tasks, plain, 0, View(policy=TEACHER), seed=seed)
        points = [_point(session, tasks, plain, after, alone, seed=seed) for after in AFTER]
    return Curve(
        start=start,
        method=run.method if trained else "",
        seed=run.seed,
        won=sum(e.won for e in plain),
        tasks=len(plain),
        points=tuple(points),
    )


def _point(
    session: Session,
    tasks: Sequence[Task],
    plain: Sequence[Episode],
    after: int,
    alone: Sequence[Episode],
    *,
    seed: int,
) -> Point:
    begun, taken = taken_over(session, tasks, plain, after, View(policy=TEACHER), seed=seed)
    left = session.limits.max_turns - after
    first = [p for e in taken for turn in e.turns[after : after + 1] for p in turn.logps]
    return Point(
        after=after,
        n=len(taken),
        taken=sum(e.won for e in taken),
        plain=sum(e.won for e in begun),
        logp=round(fmean(first), 4) if first else 0.0,
        in_time=sum(e.won and len(e.turns) <= left for e in alone),
    )


# -- kept for the page


def save(found: Sequence[Curve], path: Path = FOUND) -> None:
    """Put curves into the file, over those of the same student."""
    all_of = {(c.start, c.method, c.seed): c for c in (*read(path), *found)}
    lines = [f" {json.dumps(asdict(all_of[key]))}" for key in sorted(all_of)]
    put(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read(path: Path = FOUND) -> list[Curve]:
    """What `save` wrote; nothing where there is no file."""
    if not path.exists():
        return []
    return [
        Curve(**{**each, "points": tuple(Point(**p) for p in each["points"])})
        for each in json.loads(path.read_text(encoding="utf-8"))
    ]


def table(found: Sequence[Curve], titles: Mapping[str, str]) -> str:
    """A row for each student and number of turns, over the seeds; `titles` names methods."""
    rows = []
    for method in dict.fromkeys(c.method for c in found):
        curves = [c for c in found if c.method == method]
        name = f"after {titles[method]}" if method else "before training"
        won, tasks = sum(c.won for c in curves), sum(c.tasks for c in curves)
        for points in zip(*(c.points for c in curves), strict=True):
            if not (n := sum(p.n for p in points)):
                continue
            after = points[0].after
            rows.append(
                [
                    f"{name} ({_seeds(len(curves))}; wins {100 * won / tasks:.0f} % alone)"
                    if not after
                    else "",
                    str(after),
                    str(n),
                    share(sum(p.taken for p in points), n),
                    share(sum(p.plain for p in points), n),
                    tables.percent(sum(p.in_time for p in points) / tasks),
                    f"{sum(p.logp * p.n for p in points) / n:.3f}",
                ]
            )
    head = [
        "student",
        "turns of the student",
        "episodes",
        "then the teacher wins (95 %)",
        "it would have won itself",
        "the teacher alone, in the turns left",
        "log-prob of the teacher's first turn, nats a token",
    ]
    return tables.table(head, rows)


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"
