"""The other side of the comparison: one game file, played by TextWorld.

tutelage_worlds.household.textworld plays it, here in the process of the test. Two ways to run it:
as it comes, or inside `cached()`, which remembers TextWorld's pure functions and changes nothing
else; tests/parity/test_reference.py compares the two.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, TypeVar
from unittest import mock

from tutelage_worlds.household.textworld import Shown, find_domain, shown_names
from tutelage_worlds.household.textworld import TextWorldGame as ReferenceGame
from tutelage_worlds.household.textworld import missing as unplayable

__all__ = ["ReferenceGame", "Shown", "cached", "find_domain", "missing", "shown_names", "versions"]

T = TypeVar("T")

PACKAGES = ("textworld", "fast-downward-textworld", "tatsu", "alfworld")


def missing() -> str:
    """Why TextWorld cannot be compared with here, or "" if it can."""
    if reason := unplayable():
        return reason
    try:
        distribution("alfworld")
    except PackageNotFoundError:
        return (
            "alfworld, which has the rules, is not installed: pip install --no-deps alfworld==0.4.2"
        )
    return ""


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the comparison rests on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    return found | {name: distribution(name).version for name in PACKAGES}


@contextmanager
def cached() -> Iterator[None]:
    """Make TextWorld several times faster without a change to what it says.

    Three of its functions depend on their arguments alone and are called with the same ones again
    and again: the parser of text templates, the parser of conditions, and the translation of a
    problem for the planner. Their answers are remembered; those that callers alter are handed out
    as copies. The text generator copies what it is about to alter together with all that this
    refers to, the whole game at times, which is most of its time: here it copies no more than it
    alters.
    """
    import fast_downward
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    with (
        mock.patch.object(
            textgen, "_parse_and_convert", _remember(textgen._parse_and_convert, 4096, _copied)
        ),
        mock.patch.object(textgen, "deepcopy", _copied),
        mock.patch.object(
            Rule,
            "parse_conjunctive_query",
            _remember(Rule.parse_conjunctive_query, 4096, lambda rule: rule),
        ),
        mock.patch.object(
            fast_downward, "pddl2sas", _remember(fast_downward.pddl2sas, 2, lambda pair: pair)
        ),
    ):
        yield


def _copied(value: Any) -> Any:
    """A copy of symbols of a text, or of a table of names: as deep as the text generator writes."""
    if isinstance(value, dict):
        return dict(value)  # it enters names, and leaves what they stand for alone
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if not hasattr(value, "symbol"):
        return value  # a text
    symbol = copy(value)
    for within in ("symbol", "expression"):  # which get a context of their own
        if hasattr(symbol, within):
            setattr(symbol, within, _copied(getattr(symbol, within)))
    return symbol


def _remember(
    function: Callable[..., T], size: int, hand_out: Callable[[T], T]
) -> Callable[..., T]:
    known = lru_cache(maxsize=size)(function)
    return lambda *args, **kwargs: hand_out(known(*args, **kwargs))
