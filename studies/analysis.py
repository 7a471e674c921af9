"""From outcomes to estimates: a method's result, its difference to another's, its families.

Everything is a table seed -> values of the panel's tasks, so that each estimate knows the seeds and
the tasks (`tutelage.evaluation.statistics`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from studies import tables
from studies.results import Result, Results
from tutelage.evaluation.comparison import Z80
from tutelage.evaluation.statistics import Z95, Estimate, difference, mean_of_last, rate

Measure = Callable[[Result, int], list[float]]
"""A run and how many last evaluations make its result -> a value for each task."""


def result(run: Result, last: int) -> list[float]:
    """What counts: the mean of the last evaluations."""
    return mean_of_last([e.won for e in run.evaluations], min(last, len(run.evaluations) - 1))


def start(run: Result, last: int) -> list[float]:
    """Before the first step."""
    return mean_of_last([run.evaluations[0].won], 1)


def after(step: int) -> Measure:
    """The evaluation after a training step."""

    def measure(run: Result, last: int) -> list[float]:
        return [float(x) for e in run.evaluations if e.step == step for x in e.won]

    return measure


def early(run: Result, last: int) -> list[float]:
    """The mean of the evaluations in the first third of training, the start left out."""
    return _within(run, 0, run.steps / 3)


def middle(run: Result, last: int) -> list[float]:
    """The mean of the evaluations in the second third of training."""
    return _within(run, run.steps / 3, 2 * run.steps / 3)


def fall(run: Result, last: int) -> list[float]:
    """The best evaluation of a run minus its result: how much was lost again. It is above zero by
    chance alone, so only a difference between two methods says something."""
    best = max(run.evaluations, key=lambda e: sum(e.won))
    return [x - y for x, y in zip(best.won, result(run, last), strict=True)]


def _within(run: Result, above: float, until: float) -> list[float]:
    chosen = [e.won for e in run.evaluations if above < e.step <= until]
    # a short run may have no evaluation there: then its first one after
    chosen = chosen or [next(e.won for e in run.evaluations if e.step > above)]
    return mean_of_last(chosen, len(chosen))


@dataclass(frozen=True, slots=True)
class Panel:
    """The results of a study, ready to be asked."""

    results: Results
    last: int

    def values(self, method: str, measure: Measure = result) -> dict[int, list[float]]:
        """Seed -> task -> value; the teacher's one evaluation a seed is any measure of it."""
        if method == "teacher":
            return {s: [float(x) for x in bits] for s, bits in self.results.teacher.items()}
        return {run.seed: measure(run, self.last) for run in self.results.of(method)}

    def rate(self, method: str, measure: Measure = result, family: str = "") -> Estimate | None:
        """Mean success with its interval, of all tasks or of one family's."""
        found = self.values(method, measure)
        columns = [k for k, name in enumerate(self.results.families) if family in ("", name)]
        if not found or len(columns) < 2:
            return None
        return rate([[found[seed][k] for k in columns] for seed in sorted(found)])

    def start(self) -> Estimate | None:
        """Success before any training: of one run a seed, since all start alike."""
        first = {run.seed: start(run, self.last) for run in reversed(self.results.runs)}
        return rate([first[seed] for seed in sorted(first)]) if first else None

    def gap(
        self,
        method: str,
        baseline: str,
        measure: Measure = result,
        of_baseline: Measure | None = None,
    ) -> Estimate | None:
        """Method minus baseline over the seeds that both have; None where there are none."""
        a = self.values(baseline, of_baseline or measure)
        b = self.values(method, measure)
        both = sorted(set(a) & set(b))
        return difference([a[s] for s in both], [b[s] for s in both]) if both else None

    def curve(self, method: str) -> list[tuple[int, Estimate]]:
        """The estimate over all seeds at each step that every one of them was evaluated at."""
        runs = self.results.of(method)
        by_step = [{e.step: [float(x) for x in e.won] for e in run.evaluations} for run in runs]
        steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
        return [(step, rate([found[step] for found in by_step])) for step in steps]

    def starts_differ(self) -> list[int]:
        """Seeds whose runs did not all solve the same tasks before their first step, although they
        start from the same weights: their evaluations were not the same."""
        seen: dict[int, set[str]] = {}
        for run in self.results.runs:
            seen.setdefault(run.seed, set()).add(run.evaluations[0].outcomes)
        return sorted(seed for seed, outcomes in seen.items() if len(outcomes) > 1)


def verdict(found: Estimate | None, ahead: str = "ahead", behind: str = "behind") -> str:
    """The words that an interval allows."""
    if found is None:
        return "not run"
    seed = ", one seed" if found.seeds == 1 else ""
    if not found.distinguishable:
        return f"not distinguishable{seed}; {could(found)}"
    return f"{ahead if found.mean > 0 else behind}{seed}"


def could(found: Estimate) -> str:
    """The true difference that an interval of this width leaves zero out of in 80 of 100 repetitions:
    (z_0.975 + z_0.8) / z_0.975 times half of the width.

    >>> could(Estimate(mean=0.0, low=-0.1, high=0.1, seeds=3, tasks=96))
    '14 points could have been shown'
    """
    least = (Z95 + Z80) / Z95 * (found.high - found.low) / 2
    if not least:
        return "every outcome is the same"
    if least >= 1:
        return "no difference could have been shown"
    return f"{100 * least:.0f} points could have been shown"


def spread(runs: Sequence[Result], last: int) -> list[float]:
    """Each seed's own success."""
    return [sum(values) / len(values) for values in (result(run, last) for run in runs)]


def totals(runs: Sequence[Result]) -> Mapping[str, float]:
    """What a run cost, on average: seconds, episodes, and tokens by who sampled them."""
    names = ["seconds", "episodes", *sorted({name for run in runs for name in run.tokens})]
    return {
        name: sum(
            getattr(run, name) if name in ("seconds", "episodes") else run.tokens.get(name, 0)
            for run in runs
        )
        / len(runs)
        for name in names
    }


def rates_table(titles: Mapping[str, str], runs: Sequence[Result]) -> str:
    """A row for each run of a sweep over rates: success at each of its evaluations."""
    rows = [
        [titles[run.method], *(tables.percent(fmean(e.won)) for e in run.evaluations)]
        for run in runs
    ]
    steps = [f"{e.step} steps" if e.step else "start" for e in runs[0].evaluations]
    return tables.table(["method", *steps], rows)
