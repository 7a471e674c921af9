"""Schedules: exact ends, monotone between them, and the curricula as formulas."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.algorithms.guided_opd import guided_opd
from tutelage.schedules import SHAPES, as_schedule, constant, cosine, exponential, linear

ENDS = st.floats(0.01, 9)
CURRICULA = ("cosine", "linear", "exponential")


@pytest.mark.parametrize("name", SHAPES)
@given(steps=st.integers(1, 500), start=ENDS, end=ENDS)
def test_a_schedule_is_monotone_and_ends_exactly(
    name: str, steps: int, start: float, end: float
) -> None:
    at = SHAPES[name](start, end, steps)
    values = [at(s) for s in range(steps + 3)]
    assert values[0] == pytest.approx(start)
    assert values[steps:] == [end] * 3
    assert all((b - a) * (end - start) >= -1e-12 for a, b in itertools.pairwise(values))
    assert at(10**9) == end
    assert at(-5) == pytest.approx(start)


@given(steps=st.integers(1, 500), step=st.integers(0, 600))
def test_each_shape_as_its_formula(steps: int, step: int) -> None:
    x = min(step / steps, 1.0)
    assert linear(3.0, 1.0, steps)(step) == pytest.approx(3 - 2 * x)
    assert cosine(3.0, 1.0, steps)(step) == pytest.approx(
        3 + (1 - 3) * (1 - math.cos(math.pi * x)) / 2
    )
    assert exponential(3.0, 1.0, steps)(step) == pytest.approx(3 * (1 / 3) ** x)


@pytest.mark.parametrize("name", SHAPES)
@given(steps=st.integers(1, 400))
def test_a_schedule_that_ends_at_zero_is_exactly_zero_there(name: str, steps: int) -> None:
    at = SHAPES[name](1.0, 0.0, steps)
    assert [at(s) for s in (steps, steps + 1, 10 * steps)] == [0.0, 0.0, 0.0]
    assert all(at(s) > 0 for s in range(steps))


def test_an_exponential_to_zero_stops_at_its_floor() -> None:
    at = exponential(1.0, 0.0, 100)
    assert at(50) == pytest.approx(0.1)
    assert at(99) == pytest.approx(0.01 ** (99 / 100))
    assert at(100) == 0.0
    assert exponential(1.0, 0.0, 100, floor=0.0001)(50) == pytest.approx(0.01)


def test_an_exponential_to_zero_never_rises() -> None:
    at = exponential(0.005, 0.0, 10)
    values = [at(s) for s in range(12)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("steps", [0, -1])
@pytest.mark.parametrize("name", SHAPES)
def test_a_schedule_over_no_steps_is_refused(name: str, steps: int) -> None:
    with pytest.raises(ValueError, match="steps > 0"):
        SHAPES[name](1.0, 0.5, steps)


@pytest.mark.parametrize(
    ("start", "end", "floor"), [(0.0, 1.0, 0.01), (1.0, -1.0, 0.01), (1.0, 0.0, 0.0)]
)
def test_an_exponential_through_zero_is_refused(start: float, end: float, floor: float) -> None:
    with pytest.raises(ValueError, match="positive start"):
        exponential(start, end, 5, floor=floor)


def test_a_number_is_a_constant_schedule() -> None:
    assert [as_schedule(0.25)(s) for s in (0, 7, 10**6)] == [0.25] * 3
    assert as_schedule(constant(2.0))(3) == 2.0


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("total", [1, 5, 77, 250])
def test_guidance_starts_at_one_and_is_exactly_zero_after_four_fifths(
    curriculum: str, total: int
) -> None:
    beta = guided_opd(total_steps=total, curriculum=curriculum).actors["teacher"]
    assert beta(0) == 1.0
    for step in range(max(1, round(0.8 * total)), total + 20):
        assert beta(step) == 0.0


def test_the_papers_numbers_for_a_run_of_250_steps() -> None:
    beta = guided_opd(total_steps=250).actors["teacher"]
    shown = [round(beta(step), 3) for step in (0, 50, 100, 150, 200, 249)]
    assert shown == [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    straight = guided_opd(total_steps=250, curriculum="linear", start=0.5, end=0.1, decay=0.4)
    assert straight.actors["teacher"](50) == pytest.approx(0.3)
    assert straight.actors["teacher"](100) == 0.1
