"""Schedules: values that change with the training step, `step -> float`."""

import math
from collections.abc import Callable
from numbers import Real

from tutelage.errors import ConfigError, kind

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """The same at every step."""
    kind("value", value, Real, "a number")
    return _named(lambda step: value, f"constant({value:g})")


def _named(at: Schedule, text: str) -> Schedule:
    """The schedule with the name under which a dry run shows it."""
    at.__name__ = text
    return at


def _check(steps: int, **values: float) -> None:
    for name, value in {"steps": steps, **values}.items():
        kind(f"{name} of a schedule", value, Real, "a number")
    if steps <= 0:
        raise ConfigError(f"a schedule needs steps > 0, got {steps}")


def _interpolate(
    name: str, start: float, end: float, steps: int, shape: Callable[[float], float]
) -> Schedule:
    _check(steps, start=start, end=end)

    def at(step: int) -> float:
        # the end is returned as given: a curriculum that ends at 0 must be exactly 0
        return end if step >= steps else start + (end - start) * shape(max(step / steps, 0.0))

    return _named(at, f"{name}({start:g}, {end:g}, {steps})")


def linear(start: float, end: float, steps: int) -> Schedule:
    """From `start` at step 0 to `end` at `steps`, then `end`.

    >>> [linear(1.0, 0.0, 4)(s) for s in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """
    return _interpolate("linear", start, end, steps, lambda x: x)


def cosine(start: float, end: float, steps: int) -> Schedule:
    """Slow at both ends, fast in the middle.

    >>> [round(cosine(1.0, 0.0, 4)(s), 3) for s in (0, 1, 2, 4)]
    [1.0, 0.854, 0.5, 0.0]
    """
    return _interpolate("cosine", start, end, steps, lambda x: (1 - math.cos(math.pi * x)) / 2)


def exponential(start: float, end: float, steps: int, *, floor: float = 0.01) -> Schedule:
    """A constant ratio between steps. An end of 0 is approached down to `floor`, then set:
    the value is start (floor / start)^(step / steps) before `steps`, and exactly 0 from there
    (from a start below the floor it waits at the start).

    >>> [exponential(1.0, 0.01, 2)(s) for s in (0, 1, 2)]
    [1.0, 0.1, 0.01]
    >>> [exponential(1.0, 0.0, 2)(s) for s in (0, 1, 2, 3)]
    [1.0, 0.1, 0.0, 0.0]
    """
    _check(steps, start=start, end=end, floor=floor)
    if start <= 0 or end < 0 or floor <= 0:
        raise ConfigError(
            f"an exponential schedule needs a positive start and floor and an end of at least 0, "
            f"got {start}, {floor} and {end}"
        )
    target = end or min(floor, start)

    def at(step: int) -> float:
        if step >= steps:
            return end
        return start * float((target / start) ** (max(step, 0) / steps))

    return _named(at, f"exponential({start:g}, {end:g}, {steps})")


def as_schedule(value: float | Schedule) -> Schedule:
    return value if callable(value) else constant(value)


SHAPES = {"linear": linear, "cosine": cosine, "exponential": exponential}
"""The schedules that a configuration can name: `coef = "linear(0.05, 0, 100)"`."""
