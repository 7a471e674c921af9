"""Comparing methods over seeds and tasks: what can be said of other seeds and other tasks.

Values are tables, seed -> task -> a number in 0..1: how often a run with that seed solves a task.
Every seed is tried on the same tasks, so both are crossed, and both are drawn anew in a two-way
bootstrap (Owen, arXiv:0712.1111). With m the mean of all, a_s = mean_t x - m what is a seed's and
b_t = mean_s x - m what is a task's, a draw of S seeds and T tasks with replacement deviates by

    k_S mean_s* a + k_T mean_t* b,    k_n = sqrt(n / (n - 1)) t(n - 1) / z

and an interval runs between the 2.5th and 97.5th percentile of that around m. k makes up for what
resampling a few leaves out (the expanded percentile interval of Hesterberg, arXiv:1411.5279): with
3 seeds, which hardly ever are the extremes of what seeds do, an interval without it holds the
truth 75 times in 100 where seeds vary much. What is neither a seed's nor a task's is in both a and
b already and is not drawn again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

Z95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927): near 95 % coverage at the default z,
    on average over proportions; close to 0 and 1 it can be a few per cent less.

    >>> tuple(round(x, 3) for x in wilson(0, 200))
    (0.0, 0.019)
    >>> tuple(round(x, 3) for x in wilson(100, 200))
    (0.431, 0.569)
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return max(0.0, low), min(1.0, high)


def mean(scores: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """The mean of scores in [0, 1] and its interval by the normal approximation, z standard errors
    to each side and within [0, 1]. Where all are alike, which tells nothing of how they spread,
    Wilson's limits of a proportion stand for it: no scores of that mean spread more.

    >>> tuple(round(x, 3) for x in mean([0.2, 0.4, 0.6, 0.8]))
    (0.5, 0.247, 0.753)
    >>> mean([0.0] * 200) == (0.0, *wilson(0, 200))
    True
    """
    n = len(scores)
    if n == 0:
        return 0.0, 0.0, 1.0
    if min(scores) == max(scores):
        return scores[0], *wilson(scores[0] * n, n, z)
    middle, half = fmean(scores), z * stdev(scores) / math.sqrt(n)
    return middle, max(0.0, middle - half), min(1.0, middle + half)


def paired(a: Sequence[bool], b: Sequence[bool], z: float = Z95) -> tuple[float, float, float]:
    """Difference in success, b minus a, on the same tasks, with its interval (Newcombe 1998,
    method 10: Wilson's limits of each, corrected for their correlation).

    >>> paired([True, False, True, False], [True, False, True, False])[0]
    0.0
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"a paired comparison needs the same tasks, got {len(a)} and {len(b)}")
    n = len(a)
    pa, pb = sum(a) / n, sum(b) / n
    (la, ua), (lb, ub) = wilson(sum(a), n, z), wilson(sum(b), n, z)
    both = sum(x and y for x, y in zip(a, b, strict=True))
    neither = sum(not x and not y for x, y in zip(a, b, strict=True))
    only_a, only_b = sum(a) - both, sum(b) - both
    product = (both + only_a) * (both + only_b) * (neither + only_a) * (neither + only_b)
    phi = 0.0
    if product:
        cross = float(both * neither - only_a * only_b)
        # Newcombe's continuity correction keeps small samples from a too narrow interval
        cross = max(cross - n / 2, 0.0) if cross > 0 else cross
        phi = cross / math.sqrt(product)
    low = math.sqrt(max(0.0, (pb - lb) ** 2 - 2 * phi * (pb - lb) * (ua - pa) + (ua - pa) ** 2))
    high = math.sqrt(max(0.0, (ub - pb) ** 2 - 2 * phi * (ub - pb) * (pa - la) + (pa - la) ** 2))
    return pb - pa, pb - pa - low, pb - pa + high


Values = Sequence[Sequence[float]]
DRAWS = 10_000
_T975 = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216)
"""The 97.5th percentile of Student's t with 1 to 9 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean, its 95 % interval, and how many seeds and tasks it is of. With one seed the interval
    knows the tasks only."""

    mean: float
    low: float
    high: float
    seeds: int
    tasks: int

    @property
    def distinguishable(self) -> bool:
        """Whether zero is outside of the interval: what a difference has to show."""
        return not self.low <= 0 <= self.high


def student_t(degrees: int) -> float:
    """The 97.5th percentile of Student's t, by Cornish and Fisher's expansion beyond the table.

    >>> round(student_t(2), 3), round(student_t(20), 3), round(student_t(10_000), 3)
    (4.303, 2.086, 1.96)
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {degrees}")
    if degrees <= len(_T975):
        return _T975[degrees - 1]
    z, n = Z95, degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def mean_of_last(evaluations: Values, last: int) -> list[float]:
    """Each task's mean over the last evaluations of a run [evaluation -> task]: the run's result,
    which no single lucky evaluation decides.

    >>> mean_of_last([[1, 1], [0, 1], [0, 0]], 2)
    [0.0, 0.5]
    """
    if not 0 < last <= len(evaluations):
        raise ValueError(
            f"cannot take the mean of the last {last} of {len(evaluations)} evaluations"
        )
    chosen = evaluations[-last:]
    return [sum(task) / last for task in zip(*chosen, strict=True)]


def estimate(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean of a table [seeds, tasks] and its interval; equal calls give equal numbers."""
    sizes = {len(row) for row in values}
    if len(sizes) != 1 or max(sizes) < 2:
        raise ValueError(f"every seed needs the same tasks, at least 2; got {sorted(sizes)}")
    table = torch.tensor([list(row) for row in values], dtype=torch.float64)
    mean = table.mean()
    generator = torch.Generator().manual_seed(seed)
    deviation = _drawn(table.mean(0) - mean, draws, generator)
    if len(values) > 1:
        deviation = deviation + _drawn(table.mean(1) - mean, draws, generator)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = (mean + deviation.quantile(ends)).tolist()
    return Estimate(mean=float(mean), low=low, high=high, seeds=len(values), tasks=len(values[0]))


def _drawn(effects: torch.Tensor, draws: int, generator: torch.Generator) -> torch.Tensor:
    """Expanded means [draws] of effects [n] drawn n at a time."""
    n = len(effects)
    expansion = math.sqrt(n / (n - 1)) * student_t(n - 1) / Z95
    picked = torch.randint(n, (draws, n), generator=generator)
    return expansion * effects[picked].mean(1)


def rate(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean success of a table, with an interval that is nowhere narrower than Wilson's for one
    try at each task: resampling has nothing to vary where all is won, or all is lost."""
    found = estimate(values, draws=draws, seed=seed)
    z2, p, n = Z95 * Z95, found.mean, found.tasks
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * p * (1 - p) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return Estimate(
        mean=p,
        low=max(0.0, min(found.low, middle - half)),
        high=min(1.0, max(found.high, middle + half)),
        seeds=found.seeds,
        tasks=n,
    )


def difference(a: Values, b: Values, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """b minus a, paired: the same seeds in the same order, on the same tasks."""
    if [len(row) for row in a] != [len(row) for row in b]:
        raise ValueError(
            f"a paired comparison needs the same seeds and tasks, got {len(a)} and {len(b)} seeds"
        )
    gaps = [[y - x for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    found = estimate(gaps, draws=draws, seed=seed)
    return Estimate(
        mean=found.mean,
        low=max(-1.0, found.low),
        high=min(1.0, found.high),
        seeds=found.seeds,
        tasks=found.tasks,
    )
