"""The same information in few words, for tiny models: a line for each thing, words between single
blanks, and nothing that no constraint asks for."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from tutelage.types import Observation
from tutelage_worlds.travelplanner.frame import split
from tutelage_worlds.travelplanner.tables import Attraction, Flight, Hotel, Restaurant, Row

_GIVEN: Final = re.compile(r"Given information: (?P<known>\[.*\])\nQuery: (?P<query>.*)", re.DOTALL)
_DAY: Final = re.compile(r"\bMarch (\d{1,2})(?:st|nd|rd|th)\b")
_STOP: Final = re.compile(r"(?<=\w)([,;:?!])(?=\s|$)|(?<=\w\w\w)(\.)(?=\s|$)")
_MONEY: Final = re.compile(r"\$([\d,]*\d)")
_ROAD: Final = re.compile(r"(self-driving|taxi), from (.+) to (.+), duration: .*, cost: (\d+)")
_ROOMS: Final = {"Entire home/apt": "entire", "Private room": "private", "Shared room": "shared"}
Cells = tuple[str, ...]


def _flight(c: Cells) -> str:
    return f"{c[6]} > {c[7]} {c[5]} : {c[0]} , {c[1]}"


def _hotel(c: Cells) -> str:
    nights = c[4].removesuffix(".0")
    rules = c[3].replace(" & ", " , ")
    kind = f"{_number(c[1])} , {_ROOMS.get(c[2], c[2])} , for {c[5]} , min {nights} , {rules}"
    return f"sleep {c[7]} : {c[0]} , {kind}"


def _restaurant(c: Cells) -> str:
    return f"eat {c[4]} : {c[0]} , {c[1]} , {c[2].replace(', ', ' , ')}"


def _attraction(c: Cells) -> str:
    return f"see {c[6]} : {c[0]}"


_KINDS: Final[Mapping[type[Row], Callable[[Cells], str]]] = {
    Flight: _flight, Hotel: _hotel, Restaurant: _restaurant, Attraction: _attraction,
}  # fmt: skip


def _number(cell: str) -> str:
    return cell.removesuffix(".0")


@lru_cache(maxsize=512)
def _worded(text: str) -> str:
    found = _GIVEN.fullmatch(text)
    if not found:
        return _entry(text)
    return "\n".join([*_known(found["known"]), _sentence(found["query"])])


def _known(text: str) -> Iterator[str]:
    try:
        entries: list[dict[str, Any]] = ast.literal_eval(text)
        contents = [str(entry["Content"]) for entry in entries]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        yield text
        return
    yield from filter(None, map(_entry, contents))


def _entry(text: str) -> str:
    """What one search answered."""
    for kind, line in _KINDS.items():
        cells = split(text, kind)
        if cells:
            return "\n".join(map(line, cells))
    road = _ROAD.fullmatch(text)
    if road:
        mode = {"self-driving": "drive"}.get(road[1], road[1])
        return f"{road[2]} > {road[3]} : {mode} , {road[4]}"
    if text.startswith("['") and text.endswith("']"):
        return "cities : " + text[2:-2].replace("', '", " , ")
    return _sentence(text)


def _sentence(text: str) -> str:
    """Prose with its marks apart, dates as searches take them, money as numbers."""
    text = _DAY.sub(lambda day: f"2022-03-{int(day[1]):02}", text).replace(", 2022,", ",")
    text = _MONEY.sub(lambda sum_: sum_[1].replace(",", ""), text)
    return _STOP.sub(r" \g<0>", text)


def compact(observation: Observation) -> str:
    """An observation in few words: what its text says of prices, names and rules.

    >>> compact(Observation(text="taxi, from Ash to Elm, duration: x, distance: 9 km, cost: 9"))
    'Ash > Elm : taxi , 9'
    """
    return _worded(observation.text.strip("\n")) or "nothing"
