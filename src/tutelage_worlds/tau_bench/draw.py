"""Random draws that are equal in every Python version: only `Random.random()` never changes."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from tutelage_worlds.tau_bench.catalogue import PLACES, STREETS

T = TypeVar("T")


def pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[int(len(choices) * rng.random())]


def number(rng: Random, digits: int) -> str:
    """A number of `digits` digits that does not begin with 0."""
    low = 10 ** (digits - 1)
    return str(low + int(9 * low * rng.random()))


def address(rng: Random) -> dict[str, str]:
    city, state = pick(rng, PLACES)
    return {
        "address1": f"{1 + int(999 * rng.random())} {pick(rng, STREETS)}",
        "address2": f"Flat {1 + int(40 * rng.random())}",
        "city": city,
        "state": state,
        "country": "USA",
        "zip": number(rng, 5),
    }
