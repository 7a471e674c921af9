"""Plans in few words, for tiny models: a line for each day, what it holds between semicolons.

    from Ash to Elm ; F0000101 ; - ; - ; - ; - ; Rose
    Elm ; - ; Bluepot ; Oldmill | Pier ; Redpan ; Oven ; Rose
    from Elm to Ash ; drive ; - ; - ; - ; - ; -

City, transportation (a flight's number, "drive" or "taxi"), breakfast, attractions, lunch, dinner
and accommodation. Names stand without their city: it is found in the tables, among the cities of
the day.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
from tutelage_worlds.travelplanner.tables import World

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


def _transportation(world: World, said: str, cities: Sequence[str]) -> str:
    if said == "-" or len(cities) < 2:
        return said
    between = f"from {cities[0]} to {cities[-1]}"
    if said in MODES:
        return f"{MODES[said]}, {between}"
    return f"Flight Number: {said}, {between}"


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
