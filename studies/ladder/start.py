"""What each hint is worth to a start of rung (c), and whether its hinted self can go on for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import cast

from studies import tables
from studies.plan import TEACHER, Run
from studies.runner import put
from tutelage.envs.base import Plans
from tutelage.errors import RunError
from tutelage.evaluation.evaluate import evaluate
from tutelage.evaluation.statistics import Estimate, difference, wilson
from tutelage.hints.bank import load as load_bank
from tutelage.hints.kinds import steps
from tutelage.objective import Acting, Algorithm, View
from tutelage.rollout.play import play
from tutelage.rollout.session import Session
from tutelage.runs.assemble import assemble
from tutelage.schedules import constant
from tutelage.types import Episode, Task, Turn

HERE = Path(__file__).parent
FOUND = HERE / "start.json"
AFTER = (0, 2, 4, 8, 12)
"""Turns of the student after which its hinted self takes over."""
HINTED = View(hint="plan")
SKILLS = HERE.parent / "household" / "skills"
"""In the words of the household, which are all that the student's tokenizer has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Success with a hint: a text of 0 and 1, a task each in the panel's order."""

    hint: str
    outcomes: str
    turns: float
    invalid: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What came of the episodes that lasted longer than `after` turns.

    hinted, plain  how many were won where the hinted self took over, and where the student went on
    invalid        share of the hinted self's turns that the environment refused
    first          the same of its first turn after it took over
    """

    after: int
    n: int
    hinted: int
    plain: int
    invalid: float
    first: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything that is measured of one start."""

    seed: int
    key: str
    teacher: Grade  # the bigger model, without a hint
    grades: tuple[Grade, ...]
    handed: tuple[Handed, ...]


def measure(run: Run) -> Known:
    """Of the start and the teacher of a run, on the study's panel. Raises RunError where the start is
    not trained."""
    assert run.config is not None
    assert run.start is not None
    if not run.start.finished:
        raise RunError(
            f"{run.start.name} is not trained; `python -m studies.ladder run --seed {run.seed}` "
            "begins with it"
        )
    parts = assemble(run.config, learns=False)
    assert parts.panel is not None
    assert isinstance(parts.suite, Plans)
    panel, seed = parts.panel, run.seed
    temperature = run.config.eval.temperature
    with parts.open(others=(TEACHER,), tick=lambda done, total: None) as opened:
        limits = replace(opened.session.limits, temperature=temperature)
        session = replace(opened.session, limits=limits)
        taught = evaluate(session, panel, policy=TEACHER, seed=seed, temperature=temperature)
        written = {
            "wrong": {a.id: steps(parts.suite.plan(b)) for a, b in others(panel.tasks)},
            "half": {t.id: _half(parts.suite.plan(t)) for t in panel.tasks},
        }
        grades = []
        for name in ("plan", "half", "actions", "skills", "", "wrong"):
            hints = replace(
                session.hints, bank=load_bank(str(SKILLS)), written=written.get(name, {})
            )
            found = evaluate(
                replace(session, hints=hints),
                panel,
                hint="written" if name in written else name,
                seed=seed,
                temperature=temperature,
            )
            grades.append(_grade(name, found.episodes))
            if not name:
                plain = found.episodes
        taken = handed(session, panel.tasks, plain, seed)
    return Known(
        seed=seed,
        key=run.start.key,
        teacher=_grade(TEACHER, taught.episodes),
        grades=tuple(grades),
        handed=taken,
    )


def others(tasks: Sequence[Task]) -> list[tuple[Task, Task]]:
    """Each task and the next one of its family, whose plan is well formed and wrong for it.

    >>> a, b, c = (Task(id=name, family=name[0]) for name in ("x1", "y1", "x2"))
    >>> [other.id for _, other in others([a, b, c])]
    ['x2', 'y1', 'x1']
    """
    by_family: dict[str, list[Task]] = {}
    for task in tasks:
        by_family.setdefault(task.family, []).append(task)
    following = {
        one.id: two
        for family in by_family.values()
        for one, two in zip(family, [*family[1:], family[0]], strict=True)
    }
    return [(task, following[task.id]) for task in tasks]


def _half(plan: Sequence[str]) -> str:
    return steps(plan[: (len(plan) + 1) // 2])


def _grade(name: str, episodes: Sequence[Episode]) -> Grade:
    turns = [turn for e in episodes for turn in e.turns]
    return Grade(
        hint=name,
        outcomes="".join(str(int(e.won)) for e in episodes),
        turns=round(len(turns) / len(episodes), 2),
        invalid=round(fmean(not turn.valid for turn in turns), 4),
    )


def handed(
    session: Session, tasks: Sequence[Task], plain: Sequence[Episode], seed: int
) -> tuple[Handed, ...]:
    """What comes of a hand-over after each number of turns that an episode outlasted."""
    longest = max(len(e.turns) for e in plain)
    return tuple(_handed(session, tasks, plain, k, seed) for k in AFTER if k < longest)


def _handed(
    session: Session, tasks: Sequence[Task], plain: Sequence[Episode], after: int, seed: int
) -> Handed:
    begun, episodes = taken_over(session, tasks, plain, after, HINTED, seed=seed)
    own = [e.turns[after:] for e in episodes]
    return Handed(
        after=after,
        n=len(episodes),
        hinted=sum(e.won for e in episodes),
        plain=sum(e.won for e in begun),
        invalid=round(fmean(not turn.valid for turns in own for turn in turns), 4),
        first=round(fmean(not turns[0].valid for turns in own if turns), 4),
    )


def taken_over(
    session: Session,
    tasks: Sequence[Task],
    plain: Sequence[Episode],
    after: int,
    taker: View,
    *,
    seed: int,
) -> tuple[list[Episode], list[Episode]]:
    """The student's episodes that lasted longer than `after` turns, and the same with another view that
    takes every turn from there on."""
    begun = {e.task.id: e for e in plain if len(e.turns) > after}
    acting = Algorithm(
        terms=(),
        views={"taker": taker},
        actors={"taker": constant(1.0)},
        # all turns but the last are taken from the record, so one more than is wanted is given
        acting=Acting(student_turns=constant(1.0)),
    )
    recorded: Mapping[str, Sequence[Turn]] = {
        name: e.turns[: after + 1] for name, e in begun.items()
    }
    played = play(
        session,
        [task for task in tasks if task.id in begun],
        acting,
        seed=seed,
        step=-1,
        recorded=recorded,
    )
    return [begun[e.task.id] for e in played], list(played)


# -- kept for the page


def save(found: Sequence[Known], path: Path = FOUND) -> None:
    """Put measurements into the file, over those of the same seed."""
    all_of = {known.seed: known for known in (*read(path), *found)}
    lines = [f' "{seed}": {json.dumps(asdict(all_of[seed]))}' for seed in sorted(all_of)]
    put(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read(path: Path = FOUND) -> list[Known]:
    """What `save` wrote; nothing where there is no file."""
    if not path.exists():
        return []
    table = cast(dict[str, dict[str, object]], json.loads(path.read_text(encoding="utf-8")))
    return [
        Known(
            seed=int(seed),
            key=str(each["key"]),
            teacher=Grade(**cast(dict[str, object], each["teacher"])),  # type: ignore[arg-type]
            grades=tuple(Grade(**g) for g in cast(list[dict[str, object]], each["grades"])),  # type: ignore[arg-type]
            handed=tuple(Handed(**h) for h in cast(list[dict[str, object]], each["handed"])),  # type: ignore[arg-type]
        )
        for seed, each in table.items()
    ]


NAMES = {
    "plan": "the plan",
    "half": "the first half of the plan",
    "actions": "the plan's verbs",
    "skills": "the family's skill",
    "": "none",
    "wrong": "another task's plan",
}


def worth(known: Sequence[Known], hint: str) -> tuple[Estimate, Estimate]:
    """Success with a hint over the starts that were measured, and that minus success without."""
    own = [[float(x) for x in _of(each, hint).outcomes] for each in known]
    plain = [[float(x) for x in _of(each, "").outcomes] for each in known]
    return difference([[0.0] * len(own[0])] * len(own), own), difference(plain, own)


def _of(known: Known, hint: str) -> Grade:
    return next(grade for grade in known.grades if grade.hint == hint)


def grades_table(known: Sequence[Known]) -> str:
    """A row for each hint and start."""
    rows = []
    for hint, title in NAMES.items():
        for each in known:
            grade = _of(each, hint)
            gap = worth([each], hint)[1]
            won, n = grade.outcomes.count("1"), len(grade.outcomes)
            rows.append(
                [
                    title if each is known[0] else "",
                    str(each.seed),
                    f"{won} of {n}",
                    tables.signed(gap) if hint else "",
                    f"{grade.turns:.1f}",
                    tables.percent(grade.invalid),
                ]
            )
    head = ["hint", "start", "won", "hinted minus plain (95 %)", "turns", "refused turns"]
    return tables.table(head, rows)


def handed_table(known: Sequence[Known]) -> str:
    """A row for each number of turns after which the hinted self took over."""
    rows = [
        [
            str(each.seed) if row is each.handed[0] else "",
            str(row.after),
            str(row.n),
            share(row.hinted, row.n),
            share(row.plain, row.n),
            tables.percent(row.first),
            tables.percent(row.invalid),
        ]
        for each in known
        for row in each.handed
    ]
    head = [
        "start",
        "turns of the student",
        "episodes",
        "then its hinted self wins (95 %)",
        "it would have won itself",
        "first turn refused",
        "turns refused",
    ]
    return tables.table(head, rows)


def share(won: int, n: int) -> str:
    low, high = wilson(won, n)
    return f"{100 * won / n:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
