"""Queries from their sentences, where a file has nothing else: the 45 for training.

What the makers of TravelPlanner rule out for validation and test, to turn sentences into
constraints, is not offered for them: their files hold the constraints.
"""

import re
from collections.abc import Sequence
from typing import Final

from tutelage_worlds.travelplanner.query import CUISINES, Query

_NUMBERS: Final = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "pair": 2,
}
_COUNT: Final = r"(\d+|" + "|".join(_NUMBERS) + r")"
_PEOPLE: Final = (
    rf"\b{_COUNT} (?:people|persons?|individuals|travell?ers)\b",
    rf"\b(?:group|party) of {_COUNT}\b",
    rf"\bfor (?:a )?{_COUNT}\b(?! (?:days|cities))(?=,| depart| leav| starting)",
    rf"\bitinerary for (?:a )?{_COUNT} leaving\b",
)
_BUDGET: Final = re.compile(r"\$([\d,]+)")
_RULES: Final = (
    ("children under 10", r"children under|children under the age of"),
    ("smoking", r"smoking"),
    ("parties", r"part(?:ies|y)\b(?! of)"),
    ("visitors", r"allow visitors"),
    ("pets", r"\bpets?\b"),
)
_ROOMS: Final = (
    ("entire room", r"entire rooms?"),
    ("private room", r"private rooms?"),
    ("not shared room", r"not (?:be )?shared"),
    ("shared room", r"shared rooms?"),
)
_TRANSPORT: Final = (
    (
        "no self-driving",
        r"non-self-driving|n[o']t plan (?:on|to) (?:self-)?driv",
    ),
    ("no flight", r"(?:not|avoid)\b[^.]*\b(?:flights?|flying)"),
)


def people(text: str) -> int:
    """Number of travellers; one if no number is given.

    >>> people("a 3-day trip for two, starting in Ash"), people("a solo trip")
    (2, 1)
    """
    for pattern in _PEOPLE:
        found = re.search(pattern, text)
        if found:
            return _NUMBERS.get(found[1]) or int(found[1])
    return 1


def from_sentence(
    text: str, *, level: str, route: Sequence[str], org: str, dates: Sequence[str], state: str
) -> Query:
    """A query, given what its reference information says: the cities and the dates. Raises
    ValueError for a sentence without a budget."""
    found = _BUDGET.search(text)
    if found is None:
        raise ValueError("the query names no budget in dollars")
    hard = level != "easy"
    return Query(
        text=text,
        level=level,
        org=org,
        dest=route[0] if len(route) == 1 else state,
        days=len(dates),
        cities=len(route),
        dates=tuple(dates),
        people=people(text),
        budget=int(found[1].replace(",", "")),
        rule=_first_match(_RULES, text) if hard else None,
        room=_first_match(_ROOMS, text) if hard else None,
        transport=_first_match(_TRANSPORT, text) if hard else None,
        cuisines=tuple(c for c in CUISINES if hard and re.search(rf"\b{c}\b", text)),
    )


def _first_match(patterns: Sequence[tuple[str, str]], text: str) -> str | None:
    found = (name for name, pattern in patterns if re.search(pattern, text, re.IGNORECASE))
    return next(found, None)
