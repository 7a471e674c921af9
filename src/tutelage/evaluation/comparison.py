"""Runs compared on the same tasks: differences with intervals, what each run spent, and the power of
a comparison.

Runs that differ in their seed alone are one method. Every seed of every method is evaluated on one
panel, so seeds and tasks are crossed, and differences are paired by both where they can be.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.errors import ConfigError
from tutelage.evaluation.panels import in_words
from tutelage.evaluation.statistics import Z95, Estimate, difference, paired, rate, student_t

SPENT = ("steps", "episodes", "tokens", "seconds")
"""What a run's efficiency is measured by."""
FORMS = ("text", "markdown", "csv", "latex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One evaluation of one run: each task's outcome in the panel's order, and what was spent up to
    it (`steps`, `episodes`, `tokens`, `seconds`)."""

    outcomes: tuple[float, ...]
    spent: Mapping[str, float]

    @property
    def success(self) -> float:
        return sum(self.outcomes) / len(self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A run with its evaluations in the order of steps, all on one panel."""

    name: str
    method: str
    seed: int
    panel: str
    split: str
    evaluations: tuple[Measured, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method: its result, its difference from the baseline (None for the baseline itself), what
    its runs spent, and what they had spent when they first reached the common mark."""

    method: str
    seeds: tuple[int, ...]
    result: Estimate
    gap: Estimate | None
    pairing: str  # how the difference is paired
    spent: Mapping[str, float]
    reached: Mapping[str, float]  # means over the seeds; empty where not every seed reached it


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows, the baseline first."""

    rows: tuple[Row, ...]
    panel: str
    split: str
    tasks: int
    mark: float  # the success rate whose cost is compared


def compare(
    runs: Sequence[Evaluated], *, baseline: str = "", last: int = 1, mark: float | None = None
) -> Comparison:
    """Every method against one of them, by the mean of each run's last evaluations.

    baseline  the method that others are compared with; the first one if empty
    last      evaluations at the end of a run whose mean is its result
    mark      the success rate whose cost is compared; the baseline's result if left out

    Raises ConfigError for runs that were not evaluated on the same tasks.
    """
    panels = {(run.panel, len(e.outcomes)) for run in runs for e in run.evaluations}
    if len({panel for panel, _ in panels}) > 1 or len({n for _, n in panels}) > 1:
        named = "; ".join(f"{run.name} on {run.panel}" for run in runs)
        raise ConfigError(
            f"these runs were evaluated on different tasks ({named}); compare runs of one panel, "
            "or evaluate them with `tutelage eval` on the same split and number of tasks"
        )
    for run in runs:
        if len(run.evaluations) < last:
            raise ConfigError(
                f"{run.name} has {len(run.evaluations)} evaluations, fewer than --last {last}; "
                "ask for fewer, or leave the run out"
            )
    methods: dict[str, list[Evaluated]] = {}
    for run in runs:
        methods.setdefault(run.method, []).append(run)
    for name, members in methods.items():
        members.sort(key=lambda run: run.seed)
        if len({run.seed for run in members}) < len(members):
            raise ConfigError(
                f"two runs of {name} have the same seed and the same settings; compare one of them"
            )
    first = baseline or next(iter(methods))
    if first not in methods:
        raise ConfigError(f"there is no method {first!r} among {', '.join(methods)}")
    results = {
        name: {run.seed: _result(run, last) for run in members} for name, members in methods.items()
    }
    at = rate(list(results[first].values())).mean if mark is None else mark
    order = [first, *(name for name in methods if name != first)]
    rows = tuple(
        _row(name, methods[name], results[name], results[first], at, base=name == first)
        for name in order
    )
    return Comparison(
        rows=rows,
        panel=runs[0].panel,
        split=runs[0].split,
        tasks=len(runs[0].evaluations[-1].outcomes),
        mark=at,
    )


def _result(run: Evaluated, last: int) -> list[float]:
    chosen = run.evaluations[-last:]
    return [sum(task) / last for task in zip(*(e.outcomes for e in chosen), strict=True)]


def _row(
    name: str,
    members: Sequence[Evaluated],
    results: Mapping[int, list[float]],
    base_of: Mapping[int, list[float]],
    mark: float,
    *,
    base: bool,
) -> Row:
    gap, pairing = (None, "") if base else _gap(base_of, results)
    spent = _mean([run.evaluations[-1].spent for run in members])
    firsts = [next((e for e in run.evaluations if e.success >= mark), None) for run in members]
    reached = [e.spent for e in firsts if e is not None]
    return Row(
        method=name,
        seeds=tuple(results),
        result=rate(list(results.values())),
        gap=gap,
        pairing=pairing,
        spent=spent,
        reached=_mean(reached) if len(reached) == len(members) else {},
    )


def _gap(base: Mapping[int, list[float]], other: Mapping[int, list[float]]) -> tuple[Estimate, str]:
    """The difference, paired by seed where both have the seed; else the runs in their order."""
    common = [seed for seed in base if seed in other]
    if common:
        a, b = [base[seed] for seed in common], [other[seed] for seed in common]
        pairing = f"{len(common)} seeds in pairs" if len(common) > 1 else "one seed"
    else:
        count = min(len(base), len(other))
        a, b = list(base.values())[:count], list(other.values())[:count]
        pairing = f"{count} runs of other seeds" if count > 1 else "one run each, of other seeds"
    if len(a) == 1 and {*a[0], *b[0]} <= {0.0, 1.0}:
        middle, low, high = paired([x == 1 for x in a[0]], [x == 1 for x in b[0]])
        return Estimate(mean=middle, low=low, high=high, seeds=1, tasks=len(a[0])), pairing
    return difference(a, b), pairing


def _mean(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: sum(table[name] for table in tables) / len(tables)
        for name in SPENT
        if tables and all(name in table for table in tables)
    }


# -- as text that can be printed


def verdict(row: Row) -> str:
    """What a difference says, in words."""
    if row.gap is None:
        return "baseline"
    if not row.gap.distinguishable:
        return "not distinguishable"
    return "better" if row.gap.mean > 0 else "worse"


def columns(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the table, as words."""
    mark = f"{100 * comparison.mark:.0f} %"
    there = [name for name in SPENT if any(name in row.spent for row in comparison.rows)]
    titles = ["method", "seeds", "solved, %", "difference, points", "verdict"]
    titles += there
    titles += [f"{name} to {mark}" for name in there]
    cells = []
    for row in comparison.rows:
        result, gap = row.result, row.gap
        cells.append(
            [
                row.method,
                ", ".join(map(str, row.seeds)),
                f"{100 * result.mean:.1f} ({100 * result.low:.1f} to {100 * result.high:.1f})",
                f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
                if gap
                else "",
                verdict(row),
                *(_count(row.spent.get(name)) for name in there),
                *(_count(row.reached.get(name), missing="not reached") for name in there),
            ]
        )
    return titles, cells


def note(comparison: Comparison) -> str:
    """What the numbers are, in sentences, to stand below the table."""
    pairings = sorted({row.pairing for row in comparison.rows if row.pairing})
    one = any(len(row.seeds) == 1 for row in comparison.rows)
    text = (
        f"Per cent of {comparison.tasks} tasks of the split {comparison.split}, "
        f"{in_words(comparison.split, comparison.panel)}, with 95 % intervals; differences on the "
        "same tasks, "
        f"paired: {', '.join(pairings) or 'none'}."
    )
    if one:
        text += " With one seed an interval covers the variation of tasks alone."
    return text


def caption(comparison: Comparison) -> str:
    """What a plot shows, in sentences, to stand below it."""
    seeds = {len(row.seeds) for row in comparison.rows}
    over = "tasks alone (one seed)" if seeds == {1} else "seeds and tasks"
    return (
        f"Success on n = {comparison.tasks} tasks of the split {comparison.split}, "
        f"{in_words(comparison.split, comparison.panel)}. Bands are 95 % intervals over {over}."
    )


def _count(value: float | None, *, missing: str = "") -> str:
    return missing if value is None else f"{value:,.0f}"


def rendered(comparison: Comparison, form: str) -> str:
    """The table as "markdown", "csv" or "latex".

    Raises ValueError for another form; "text" is laid out by the command line.
    """
    titles, cells = columns(comparison)
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            [
                "method",
                "seeds",
                "tasks",
                "success",
                "low",
                "high",
                "difference",
                "difference_low",
                "difference_high",
                "verdict",
                *SPENT,
                *(f"{name}_to_mark" for name in SPENT),
                "mark",
                "panel",
            ]
        )  # numbers in full, for other programs
        for row in comparison.rows:
            gap = row.gap
            writer.writerow(
                [
                    row.method,
                    " ".join(map(str, row.seeds)),
                    comparison.tasks,
                    row.result.mean,
                    row.result.low,
                    row.result.high,
                    *((gap.mean, gap.low, gap.high) if gap else ("", "", "")),
                    verdict(row),
                    *(row.spent.get(name, "") for name in SPENT),
                    *(row.reached.get(name, "") for name in SPENT),
                    comparison.mark,
                    comparison.panel,
                ]
            )
        return out.getvalue()
    if form == "markdown":
        lines = [titles, ["---"] * 2 + ["---:"] * (len(titles) - 2), *cells]
        table = "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        )
        return f"{table}\n\n{note(comparison)}\n"
    if form == "latex":
        body = " \\\\\n".join(" & ".join(map(_tex, line)) for line in cells)
        return (
            f"% {note(comparison)}\n\\begin{{tabular}}{{ll{'r' * (len(titles) - 2)}}}\n\\hline\n"
            f"{' & '.join(map(_tex, titles))} \\\\\n\\hline\n{body} \\\\\n\\hline\n\\end{{tabular}}\n"
        )
    raise ValueError(f"there is no form {form!r}; choose one of {', '.join(FORMS)}")


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _tex(text: str) -> str:
    """Text for LaTeX.

    >>> _tex("guided_opd & 5 %")
    'guided\\\\_opd \\\\& 5 \\\\%'
    """
    return "".join(_TEX.get(character, character) for character in text)


# -- what a comparison can show

Z80 = 0.8416212335729143
"""The 80th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How a comparison of two methods is laid out.

    tasks    on the panel
    seeds    runs of each method, paired by seed
    rate     success rate about which both lie
    alike    correlation of two runs' outcomes over tasks: how far hard tasks are hard for both
    seed_sd  standard deviation of a method's success rate from seed to seed
    """

    tasks: int
    seeds: int = 1
    rate: float = 0.5
    alike: float = 0.0
    seed_sd: float = 0.0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("tasks", self.tasks, 2, math.inf),
            ("seeds", self.seeds, 1, math.inf),
            ("rate", self.rate, 0.0, 1.0),
            ("alike", self.alike, 0.0, 0.999),
            ("seed_sd", self.seed_sd, 0.0, 1.0),
        ):
            if not low <= value <= high:
                allowed = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
                raise ConfigError(f"{name} must be {allowed}, got {value:g}")

    @property
    def error(self) -> float:
        """The standard error of the difference of two methods' success rates:

        sqrt(2 p (1 - p) (1 - r) / (S n) + 2 s^2 / S)

        for n tasks and S seeds, with r = `alike` and s = `seed_sd`.
        """
        tasks = 2 * self.rate * (1 - self.rate) * (1 - self.alike) / (self.seeds * self.tasks)
        return math.sqrt(tasks + 2 * self.seed_sd**2 / self.seeds)

    @property
    def detectable(self) -> float:
        """The true difference that is found in 80 of 100 comparisons at the 95 % level. With few
        seeds Student's t stands for the normal quantile, as in the intervals."""
        quantile = student_t(self.seeds - 1) if self.seeds > 1 and self.seed_sd else Z95
        return (quantile + Z80) * self.error


def tasks_needed(design: Design, wished: float, most: int = 1_000_000) -> int | None:
    """The tasks with which a difference is detectable with the design's seeds; None where no number
    of tasks will do, because seeds vary too much.

    >>> tasks_needed(Design(tasks=2, rate=0.5), 0.1)
    393
    """
    return _least(lambda n: _with(design, tasks=n).detectable <= wished, 2, most)


def seeds_needed(design: Design, wished: float, most: int = 1000) -> int | None:
    """The seeds with which a difference is detectable with the design's tasks; None above `most`."""
    return _least(lambda n: _with(design, seeds=n).detectable <= wished, 1, most)


def _with(design: Design, *, tasks: int | None = None, seeds: int | None = None) -> Design:
    return Design(
        tasks=tasks or design.tasks,
        seeds=seeds or design.seeds,
        rate=design.rate,
        alike=design.alike,
        seed_sd=design.seed_sd,
    )


def _least(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least number in a range that is enough, given that every larger one is too."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
