"""Random draws that are equal in every Python version: only `Random.random()` never changes."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[int(len(choices) * rng.random())]


def whole(rng: Random, low: int, high: int) -> int:
    """A number from `low` to `high`, both included."""
    return low + int((high - low + 1) * rng.random())


def several(rng: Random, choices: Sequence[T], count: int) -> list[T]:
    """Different ones, in a random order."""
    left, found = list(choices), list[T]()
    for _ in range(min(count, len(left))):
        found.append(left.pop(int(len(left) * rng.random())))
    return found
