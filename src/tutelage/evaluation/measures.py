"""What an evaluation reports, in all and by family: each number with its n and its 95 % interval."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from tutelage.evaluation.evaluate import Evaluation
from tutelage.evaluation.statistics import mean, student_t, success, wilson

MEASURES = ("success", "score", "turns", "tokens", "invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A mean over tasks with its interval. `n` counts tasks: repeats of a task are averaged first,
    since episodes of one task are not independent."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One episode in numbers: what its interval needs."""

    task: str
    family: str
    won: bool
    score: float | None
    turns: int
    tokens: int
    invalid: int  # turns


def played(evaluation: Evaluation) -> list[Played]:
    """Every episode of an evaluation in numbers. A broken one counts as lost."""
    return [
        Played(
            task=episode.task.id,
            family=episode.task.family,
            won=episode.won,
            score=None if episode.score is None else 0.0 if episode.stop.broken else episode.score,
            turns=len(episode.turns),
            tokens=tokens,
            invalid=sum(not turn.valid for turn in episode.turns),
        )
        for episode, tokens in zip(evaluation.episodes, evaluation.tokens, strict=True)
    ]


def measured(rows: Sequence[Played]) -> dict[str, Measure]:
    """Success, score (where every episode has one), turns, tokens, and the share of invalid turns."""
    tasks: dict[str, list[Played]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    groups = list(tasks.values())

    def each(value: Callable[[Played], float]) -> list[float]:
        return [fmean(value(row) for row in group) for group in groups]

    won = each(lambda row: row.won)
    found = {"success": _measure(success(won), len(groups))}
    if rows and all(row.score is not None for row in rows):
        found["score"] = _measure(mean(each(lambda row: row.score or 0.0)), len(groups))
    found["turns"] = average(each(lambda row: row.turns))
    found["tokens"] = average(each(lambda row: row.tokens))
    found["invalid"] = share(each(lambda row: row.invalid), each(lambda row: row.turns))
    return found


def by_family(rows: Sequence[Played]) -> dict[str, dict[str, Measure]]:
    """The same of every family; empty where there is one alone."""
    families = sorted({row.family for row in rows})
    if len(families) < 2:
        return {}
    return {name: measured([row for row in rows if row.family == name]) for name in families}


def _measure(triple: tuple[float, float, float], n: int) -> Measure:
    return Measure(mean=triple[0], low=triple[1], high=triple[2], n=n)


def average(values: Sequence[float]) -> Measure:
    """A mean and its interval by Student's t: mean ± t(n - 1) s / sqrt(n), cut at 0. With one value
    the interval is infinite.

    >>> found = average([2.0, 4.0, 6.0, 8.0])
    >>> found.mean, round(found.low, 3), round(found.high, 3)
    (5.0, 0.891, 9.109)
    """
    n = len(values)
    if n == 0:
        return Measure(mean=0.0, low=0.0, high=math.inf, n=0)
    middle = fmean(values)
    if n == 1:
        return Measure(mean=middle, low=0.0, high=math.inf, n=1)
    half = student_t(n - 1) * stdev(values) / math.sqrt(n)
    return Measure(mean=middle, low=max(0.0, middle - half), high=middle + half, n=n)


def share(parts: Sequence[float], wholes: Sequence[float]) -> Measure:
    """A share of turns, sum(parts) / sum(wholes), with tasks as the units that are drawn. With
    residuals e = part - share whole its standard error is sqrt(n / (n - 1) sum e^2) / sum(wholes)
    (Cochran, Sampling Techniques, 1977, eq. 6.13, without the finite correction); where all
    residuals are 0 Wilson's interval of n tasks stands for it.

    >>> share([1, 0, 2, 1], [4, 4, 4, 4]).mean
    0.25
    """
    n, whole = len(wholes), sum(wholes)
    if whole == 0:
        return Measure(mean=0.0, low=0.0, high=1.0, n=n)
    middle = sum(parts) / whole
    residuals = [part - middle * of for part, of in zip(parts, wholes, strict=True)]
    if n < 2 or not any(residuals):
        return _measure((middle, *wilson(middle * n, n)), n)
    error = math.sqrt(n / (n - 1) * sum(e * e for e in residuals)) / whole
    half = student_t(n - 1) * error
    return Measure(mean=middle, low=max(0.0, middle - half), high=min(1.0, middle + half), n=n)


def as_json(found: Mapping[str, Measure]) -> dict[str, object]:
    """Measures for a file: an infinite end is null."""
    return {
        name: {
            "mean": m.mean,
            "low": m.low,
            "high": m.high if math.isfinite(m.high) else None,
            "n": m.n,
        }
        for name, m in found.items()
    }
