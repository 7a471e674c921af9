"""Intervals over seeds and tasks: against a bootstrap written as plain loops, against tables of
Student's t, and against how often they hold the truth."""

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.statistics import (
    Estimate,
    Values,
    difference,
    estimate,
    mean_of_last,
    rate,
    student_t,
    wilson,
)


# the usual tables, 97.5th percentile
@pytest.mark.parametrize(
    ("degrees", "value"),
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (12, 2.179),
        (15, 2.131),
        (30, 2.042),
        (120, 1.980),
    ],
)
def test_students_t_as_in_tables(degrees: int, value: float) -> None:
    assert student_t(degrees) == pytest.approx(value, abs=6e-4)


def test_students_t_falls_to_the_normal() -> None:
    values = [student_t(n) for n in range(1, 200)]
    assert values == sorted(values, reverse=True)
    with pytest.raises(ValueError, match="at least 1"):
        student_t(0)


# -- a run's result


def test_a_result_is_the_mean_of_the_last_evaluations() -> None:
    runs = [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert mean_of_last(runs, 3) == pytest.approx([1, 2 / 3, 1 / 3])
    assert mean_of_last(runs, 1) == [1, 1, 1]
    for last in (0, 5):
        with pytest.raises(ValueError, match="of 4 evaluations"):
            mean_of_last(runs, last)


# -- the interval, written again


def loops(values: Values, draws: int) -> tuple[float, float, float]:
    """The module's formula by plain loops, with other random numbers."""
    draw = random.Random(1)
    s, t = len(values), len(values[0])
    m = sum(map(sum, values)) / (s * t)
    of_seed = [sum(row) / t - m for row in values]
    of_task = [sum(row[k] for row in values) / s - m for k in range(t)]

    def k(n: int) -> float:
        return math.sqrt(n / (n - 1)) * student_t(n - 1) / 1.959964

    results = []
    for _ in range(draws):
        off = k(t) * sum(draw.choice(of_task) for _ in range(t)) / t
        if s > 1:
            off += k(s) * sum(draw.choice(of_seed) for _ in range(s)) / s
        results.append(m + off)
    results.sort()
    return m, results[round(0.025 * draws)], results[round(0.975 * draws)]


def random_table(seeds: int, tasks: int, spread: float, draw: random.Random) -> list[list[float]]:
    of_task = [draw.gauss(0, 1.5) for _ in range(tasks)]
    of_seed = [draw.gauss(0, spread) for _ in range(seeds)]
    return [
        [sum(draw.random() < 1 / (1 + math.exp(-a - b)) for _ in range(3)) / 3 for b in of_task]
        for a in of_seed
    ]


@pytest.mark.parametrize(("seeds", "tasks", "spread"), [(1, 30, 0.0), (3, 40, 0.8), (5, 25, 0.3)])
def test_the_interval_is_the_documented_bootstrap(seeds: int, tasks: int, spread: float) -> None:
    table = random_table(seeds, tasks, spread, random.Random(seeds))
    found = estimate(table)
    m, low, high = loops(table, 6000)
    assert found.mean == pytest.approx(m)
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)
    assert (found.seeds, found.tasks) == (seeds, tasks)


def test_equal_calls_give_equal_numbers() -> None:
    table = random_table(3, 20, 0.5, random.Random(0))
    state = torch.get_rng_state()
    assert estimate(table) == estimate(table)
    assert estimate(table) != estimate(table, seed=1)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left alone"


TABLES = st.tuples(st.integers(1, 4), st.integers(2, 12)).flatmap(
    lambda size: st.lists(
        st.lists(st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0]), min_size=size[1], max_size=size[1]),
        min_size=size[0],
        max_size=size[0],
    )
)


@given(table=TABLES)
def test_an_interval_holds_its_mean_and_turns_with_its_sides(table: list[list[float]]) -> None:
    found = estimate(table, draws=500)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    zero = [[0.0] * len(row) for row in table]
    there, back = difference(zero, table, draws=500), difference(table, zero, draws=500)
    assert there.mean == pytest.approx(found.mean)
    assert (back.mean, back.low, back.high) == pytest.approx(
        (-there.mean, -there.high, -there.low), abs=2e-3 + 0.1 * (there.high - there.low)
    )
    assert -1 <= there.low <= there.high <= 1
    bounded = rate(table, draws=500)
    assert 0 <= bounded.low <= found.mean + 1e-9
    assert bounded.low <= max(found.low, 0.0) + 1e-9
    assert bounded.high >= min(found.high, 1.0) - 1e-9
    assert bounded.high <= 1


def test_seeds_that_differ_widen_the_interval_and_tasks_alone_do_not_know_them() -> None:
    row = [0.0, 1.0] * 50
    lifted = [min(1.0, x + 0.6) for x in row]
    alike, apart = estimate([row] * 3), estimate([row, row, lifted])
    assert apart.high - apart.low > 3 * (alike.high - alike.low)
    assert estimate([row]).high - estimate([row]).low == pytest.approx(
        alike.high - alike.low, rel=0.05
    )


def test_pairing_takes_out_what_tasks_and_seeds_share() -> None:
    draw = random.Random(3)
    a = random_table(3, 100, 1.0, draw)
    b = [[min(1.0, x + (0.2 if k % 5 == 0 else 0.0)) for k, x in enumerate(row)] for row in a]
    paired = difference(a, b)
    assert paired.high - paired.low < 0.3 * (rate(a).high - rate(a).low)
    assert paired.distinguishable
    assert paired.mean > 0


def test_equal_runs_are_not_distinguishable() -> None:
    same = difference([[0.0, 1.0, 1.0]] * 3, [[0.0, 1.0, 1.0]] * 3)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert not same.distinguishable


@pytest.mark.parametrize(
    ("low", "high", "is_distinguishable"),
    [
        (-0.1, 0.1, False),
        (0.0, 0.2, False),
        (-0.2, 0.0, False),
        (0.01, 0.2, True),
        (-0.2, -0.01, True),
    ],
)
def test_distinguishable_is_zero_outside(low: float, high: float, is_distinguishable: bool) -> None:
    result = Estimate(mean=(low + high) / 2, low=low, high=high, seeds=3, tasks=200)
    assert result.distinguishable is is_distinguishable


def test_all_won_or_lost_is_no_certainty() -> None:
    for value in (0.0, 1.0):
        found = rate([[value] * 50] * 3)
        assert (found.low, found.high) == pytest.approx(wilson(int(value * 50), 50))
    half = rate([[0.0, 1.0] * 25])
    low, high = wilson(25, 50)
    assert half.low <= low + 1e-12
    assert half.high >= high - 1e-12


@pytest.mark.parametrize("table", [[[1.0]], [[1.0, 0.0], [1.0]], [], [[], []]])
def test_a_table_needs_tasks_and_the_same_for_all(table: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="same tasks"):
        estimate(table)


def test_a_comparison_needs_the_same_seeds_and_tasks() -> None:
    row = [0.0, 1.0]
    for other in ([row], [row, [*row, 1.0]]):
        with pytest.raises(ValueError, match="same seeds and tasks"):
            difference([row, row], other)


# -- coverage


def covered(spread: float, seeds: int, of: Callable[[Values, Values], bool]) -> float:
    draw = random.Random(round(10 * spread) + seeds)
    worlds = 150
    return (
        sum(
            of(random_table(seeds, 60, spread, draw), random_table(seeds, 60, spread, draw))
            for _ in range(worlds)
        )
        / worlds
    )


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.4, 1.2])
def test_the_interval_covers_what_it_says(spread: float, seeds: int) -> None:
    """Of the mean over all seeds and tasks (one half, by symmetry), and of a difference of 0."""
    rates = covered(spread, seeds, lambda a, _: _holds(estimate(a, draws=1000), 0.5))
    gaps = covered(spread, seeds, lambda a, b: not difference(a, b, draws=1000).distinguishable)
    assert rates > 0.90
    assert gaps > 0.90


def _holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high
