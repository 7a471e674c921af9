"""Compact renderings of observations and plans, for tiny models.

A plan is a line for each day, what it holds between semicolons.

    from Ash to Elm ; F0000101 ; - ; - ; - ; - ; Rose
    Elm ; - ; Bluepot ; Oldmill | Pier ; Redpan ; Oven ; Rose
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from tutelage.types import Observation
from tutelage_worlds.travelplanner.itinerary import (
    FIELDS,
    LONGEST,
    MEALS,
    Itinerary,
    bare,
    cities_of,
    place,
)
from tutelage_worlds.travelplanner.itinerary import rows as rows_of
from tutelage_worlds.travelplanner.tables import Attraction, Flight, Hotel, Restaurant, Row, World
from tutelage_worlds.travelplanner.texts import split

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
    Flight: _flight,
    Hotel: _hotel,
    Restaurant: _restaurant,
    Attraction: _attraction,
}


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


MODES: Final = {"drive": "Self-driving", "taxi": "Taxi"}


def read(text: str, world: World) -> list[dict[str, Any]] | None:
    """A plan from its lines; None for anything that is not such lines."""
    if len(text) > LONGEST:
        return None
    days: list[dict[str, Any]] = []
    for line in text.strip().split("\n"):
        parts = [part.strip() for part in line.split(";")]
        if len(parts) != len(FIELDS):
            return None
        days.append({"days": len(days) + 1, **_day(world, dict(zip(FIELDS, parts, strict=True)))})
    return days


def _day(world: World, day: dict[str, str]) -> dict[str, str]:
    cities = [bare(city) for city in cities_of(day["current_city"]) or (day["current_city"],)]
    day["transportation"] = _transportation(world, day["transportation"], cities)
    for meal in MEALS:
        day[meal] = _whole(world.restaurants, day[meal], cities)
    sights = [_whole(world.attractions, s.strip(), cities) for s in day["attraction"].split("|")]
    day["attraction"] = "-" if sights == ["-"] else "".join(f"{sight};" for sight in sights)
    day["accommodation"] = _whole(world.hotels, day["accommodation"], cities[::-1])
    return day


def _transportation(world: World, text: str, cities: Sequence[str]) -> str:
    if text == "-" or len(cities) < 2:
        return text
    between = f"from {cities[0]} to {cities[-1]}"
    if text in MODES:
        return f"{MODES[text]}, {between}"
    return f"Flight Number: {text}, {between}"


def _whole(table: Mapping[str, Sequence[Any]], name: str, cities: Sequence[str]) -> str:
    """A name with its city; one that is in none of the tables is left to the last city."""
    if name in ("", "-"):
        return "-"
    found = [city for city in cities if any(row.name == name for row in table.get(city, ()))]
    return f"{name}, {(found or cities)[0]}"


def write(plan: Itinerary) -> str:
    """A plan in few words; details of transportation and the cities of places are left out."""
    return "\n".join(" ; ".join(_cells(row)) for row in rows_of(plan))


def _cells(row: Sequence[str]) -> list[str]:
    city, transportation, breakfast, attraction, lunch, dinner, accommodation = row
    sights = " | ".join(_name(sight) for sight in attraction.split(";") if sight)
    return [
        city,
        _vehicle(transportation),
        _name(breakfast),
        sights,
        _name(lunch),
        _name(dinner),
        _name(accommodation),
    ]


def _name(text: str) -> str:
    return text if text == "-" else place(text)[0]


def _vehicle(text: str) -> str:
    for short, long in MODES.items():
        if text.startswith(long):
            return short
    return text.removeprefix("Flight Number: ").partition(",")[0]
