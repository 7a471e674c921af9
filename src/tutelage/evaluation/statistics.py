"""Statistics of evaluations: intervals, paired comparisons, and a bootstrap over seeds and tasks.

For comparing methods, values are tables [seed][task] of numbers in [0, 1]: how often a run with
that seed solves the task. Every seed is evaluated on the same tasks, so seeds and tasks are crossed
factors, and both are resampled in a two-way bootstrap (Owen, arXiv:0712.1111). With m the mean of
all values, a_s = mean_t x - m the effect of seed s and b_t = mean_s x - m the effect of task t, one
bootstrap draw of S seeds and T tasks with replacement deviates from m by

    k_S mean_s* a + k_T mean_t* b,    k_n = sqrt(n / (n - 1)) t(n - 1) / z

and the interval runs between the 2.5th and 97.5th percentile of these deviations around m. The
factor k corrects for small samples (the expanded percentile interval of Hesterberg,
arXiv:1411.5279): without it, with 3 seeds that vary much, a 95 % interval covers the truth 75 times
in 100. The interaction of seed and task is contained in both effects and is not resampled again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

Z95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), as (low, high) in [0, 1]. Coverage is
    near 95 % at the default z on average over proportions; near 0 and 1 it can be a few per cent
    less. `successes` may be fractional: a mean success rate times n.

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
    to each side, cut to [0, 1]: (mean, low, high). If all scores are equal, their spread is
    unknown; then Wilson's interval of a proportion is used, since no scores in [0, 1] with that
    mean spread more.

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


def success(shares: Sequence[float]) -> tuple[float, float, float]:
    """The success rate of tasks and its 95 % interval: (rate, low, high).

    shares  of each task's episodes the share that was won

    Wilson's interval where each task was won always or never, as with one episode each; else that
    of a mean, since episodes of one task are not independent.
    """
    n = len(shares)
    if not all(x in (0.0, 1.0) for x in shares):
        return mean(shares)
    return (sum(shares) / n if n else 0.0, *wilson(sum(shares), n))


def paired(a: Sequence[bool], b: Sequence[bool], z: float = Z95) -> tuple[float, float, float]:
    """The difference in success, b minus a, on the same tasks: (difference, low, high). The
    interval is method 10 of Newcombe 1998: Wilson's limits of each, corrected for correlation.

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
    """A mean over seeds and tasks with its 95 % interval. With one seed, the interval covers the
    variation of tasks only."""

    mean: float
    low: float
    high: float
    seeds: int
    tasks: int

    @property
    def distinguishable(self) -> bool:
        """Whether zero lies outside the interval of a difference."""
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
    """Each task's mean over the last evaluations [evaluation][task] of a run. It is used as the
    run's result, because a single evaluation is noisy.

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
    """The mean of a table [seed][task] and its interval. The same `seed` gives the same numbers."""
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
    """Means of n effects drawn with replacement, times k_n: [draws] from effects [n]."""
    n = len(effects)
    expansion = math.sqrt(n / (n - 1)) * student_t(n - 1) / Z95
    picked = torch.randint(n, (draws, n), generator=generator)
    return expansion * effects[picked].mean(1)


def rate(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean success rate of a table. Its interval is at least as wide as Wilson's for one try of
    each task: a bootstrap has no spread where every task is won, or every task is lost."""
    found = estimate(values, draws=draws, seed=seed)
    low, high = wilson(found.mean * found.tasks, found.tasks)
    return Estimate(
        mean=found.mean,
        low=max(0.0, min(found.low, low)),
        high=min(1.0, max(found.high, high)),
        seeds=found.seeds,
        tasks=found.tasks,
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
