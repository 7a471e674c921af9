"""Plans as lists of days: parse their texts, and write them.

A day has the keys days, current_city, transportation, breakfast, attraction, lunch, dinner and
accommodation; "-" says that nothing is needed. Every rule that judges a plan reads these texts as
TravelPlanner's evaluation does, which `cities_of`, `bare` and `place` hold.
"""

import ast
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tutelage_worlds.json_text import parse

Day = Mapping[str, Any]
"""Texts, or None, by field; other keys may have any value."""
Itinerary = Sequence[Day]
MEALS: Final = ("breakfast", "lunch", "dinner")
FIELDS: Final = (
    "current_city",
    "transportation",
    "breakfast",
    "attraction",
    "lunch",
    "dinner",
    "accommodation",
)
LONGEST: Final = 50_000
"""Characters of a plan that are read at most."""
_LABELS: Final = {
    "current city": "current_city",
    "transportation": "transportation",
    "breakfast": "breakfast",
    "attraction": "attraction",
    "attractions": "attraction",
    "lunch": "lunch",
    "dinner": "dinner",
    "accommodation": "accommodation",
}
_FROM: Final = re.compile(r"from(\s+)")
_TO: Final = re.compile(r"(?<!\s)\s+to(?=\s+[^,])")
_THERE: Final = re.compile(r"\s+([^,]+)")
_LABEL: Final = re.compile(
    r"(?<!\w)(?:day\s*(?P<day>\d{1,3})\s*:|day\s*:\s*(?P<number>\d{1,3})|(?P<label>current city|"
    r"transportation|breakfast|attractions?|lunch|dinner|accommodation)\s*:)",
    re.IGNORECASE,
)


def cities_of(text: str) -> tuple[str, str] | None:
    """The cities of "from A to B", where B ends at a comma or with the text.

    >>> cities_of("Taxi, from Ash to Elm(Ohio), duration: 2 hours")
    ('Ash', 'Elm(Ohio)')
    """
    # what re.search(r"from\s+(.+?)\s+to\s+([^,]+)", text) finds, whose time grows with the cube of the
    # number of blanks
    ends = list(_TO.finditer(text))
    for way in _FROM.finditer(text):
        k = bisect_left(ends, way.end() + 1, key=re.Match.start)
        if k < len(ends) and "\n" not in (city := text[way.end() : ends[k].start()]):
            return city, _there(text, ends[k])
        k = bisect_left(ends, way.start(1), key=re.Match.start)
        # a "to" after blanks alone: one of them is the first city
        blank = way[1][1:-1].rstrip("\n")[-1:]
        if blank and k < len(ends) and ends[k].start() == way.start(1):
            return blank, _there(text, ends[k])
    return None


def _there(text: str, to: re.Match[str]) -> str:
    found = _THERE.match(text, to.end())
    assert found is not None
    return found[1]


def bare(city: str) -> str:
    """A city without the first thing in parentheses and all that follows it.

    >>> bare("Elm(Ohio)")
    'Elm'
    """
    start = city.find("(")
    # a line break before the parenthesis hides it
    if start < 0 or city.find(")", start) < 0 or "\n" in city[:start]:
        return city
    return city[:start]


def place(text: str) -> tuple[str, str]:
    """The name and the city of "Name, City", cut at the last comma; "-" and "-" if there is none.

    >>> place("Red Ginger Sushi, Grill & Bar, Elm(Ohio)")
    ('Red Ginger Sushi, Grill & Bar', 'Elm')
    """
    name, comma, city = text.rpartition(",")
    if not comma or not city:
        return "-", "-"
    return name.rpartition("\n")[2].strip(), bare(city.strip()).strip()


# -- reading


def read(text: str) -> list[dict[str, Any]] | None:
    """A plan from an agent's words: JSON, a Python literal, or days with labelled lines. None if
    it is none of them.

    >>> [day["lunch"] for day in read("Day 1: Current City: Ash Lunch: - Day 2: Lunch: Mill, Elm")]
    ['-', 'Mill, Elm']
    """
    text = text.strip()
    if len(text) > LONGEST:
        return None
    value = literal(text)
    return valid(value) if value is not None else _labelled(text)


def literal(text: str) -> Any:
    """What JSON or a Python literal stands for; None if it is neither."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        return parse(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def valid(value: Any) -> list[dict[str, Any]] | None:
    """A list of days whose fields are texts or missing; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    for day in value:
        if not isinstance(day, dict) or not all(isinstance(key, str) for key in day):
            return None
        if not all(isinstance(day.get(key), str | None) for key in FIELDS):
            return None
    return value if any(value) else None


def _labelled(text: str) -> list[dict[str, Any]] | None:
    days: list[dict[str, Any]] = []
    found = list(_LABEL.finditer(text))
    for label, after in zip(found, [*found, None][1:], strict=True):
        number = label["day"] or label["number"]
        if number:
            days.append({"days": int(number)})
        elif days:
            key = _LABELS[label["label"].lower()]
            value = text[label.end() : after.start() if after else len(text)].strip()
            days[-1][key] = _closed(value) if key == "attraction" else value
    return days if any(len(day) > 1 for day in days) else None


def _closed(sights: str) -> str:
    """Attractions as a plan has them, with a semicolon after the last one too."""
    listed = sights.rstrip(" .;")
    return f"{listed};" if listed not in ("", "-") else listed


# -- writing


def write(plan: Itinerary) -> str:
    """A plan as lines with labels.

    >>> print(write([{"days": 1, "current_city": "Elm", "lunch": "Mill, Elm"}]))
    Day 1:
    Current City: Elm
    Lunch: Mill, Elm
    """
    labels = {key: label.title() for label, key in _LABELS.items() if label != "attractions"}
    blocks = []
    for number, day in enumerate(filter(None, plan), 1):
        lines = [f"{labels[key]}: {day[key]}" for key in labels if key in day]
        blocks.append("\n".join([f"Day {number}:", *lines]))
    return "\n\n".join(blocks)


def rows(plan: Itinerary) -> Iterator[list[str]]:
    """The fields of each day in their order, "-" where there is none."""
    for day in filter(None, plan):
        yield [str(day.get(key) or "-") for key in FIELDS]
