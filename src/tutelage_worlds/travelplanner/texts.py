"""The answers of searches in TravelPlanner's words, and the information for sole planning."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from tutelage_worlds.travelplanner.itinerary import bare
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.tables import HEADERS, Row, Value, World

# -- tables as texts: what pandas' `DataFrame.to_string(index=False)` makes of them. Every column, its
# name included, is flush right; names of columns of numbers have a blank in front.

_NUMBERED = re.compile(r"\d+ *\S")
_ESCAPES = str.maketrans({"\t": "\\t", "\r": "\\r", "\n": "\\n"})


def table(rows: Sequence[Row]) -> str:
    """Rows of one kind, at least one of them."""
    columns = [_column(values) for values in zip(*rows, strict=True)]
    heads = [
        f" {name}" if isinstance(rows[0][k], int | float) else name
        for k, name in enumerate(HEADERS[type(rows[0])])
    ]
    widths = [
        max(len(head), *map(len, column)) for head, column in zip(heads, columns, strict=True)
    ]
    lines = [heads, *zip(*columns, strict=True)]
    return "\n".join(
        " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _column(values: Sequence[Value]) -> list[str]:
    if any(isinstance(value, float) for value in values):
        cells = [f"{value:.6f}" for value in values]
        while all(cell.endswith("0") and cell[-2] != "." for cell in cells):
            cells = [cell[:-1] for cell in cells]
        return cells
    return [str(value).translate(_ESCAPES) for value in values]


def split(text: str, kind: type[Row]) -> list[tuple[str, ...]]:
    """The cells of a table of a kind, as texts; nothing where the text is no such table.

    Columns end where their names end. Blanks may be missing before the first name, and rows may
    have their numbers in front, as restaurants in TravelPlanner's reference information do.
    """
    head, *lines = text.split("\n")
    head = head.rjust(max(map(len, lines), default=0))
    ends, at = [], 0
    for name in HEADERS[kind]:
        at = head.find(name, at)
        if at < 0:
            return []
        at += len(name)
        ends.append(at)
    start = 0
    if all(_NUMBERED.match(line[: ends[0]]) for line in lines):
        start = max(len(line) - len(line.lstrip("0123456789")) for line in lines)
    starts = [start, *ends[:-1]]
    return [tuple(line[a:b].strip() for a, b in zip(starts, ends, strict=True)) for line in lines]


# -- answers

NOTHING: Final = "No valid information."
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


class Refused(ValueError):
    """A search that could not be made; the text says why, as TravelPlanner does."""


def flights(world: World, argument: str) -> str:
    """FlightSearch[Departure City, Destination City, Date]"""
    parts = argument.split(", ")
    if len(parts) < 3:
        raise Refused("Illegal Flight Search. Please try again.")
    origin, destination, date = parts[:3]
    if not _DATE.fullmatch(date):
        raise Refused(f"'{date}' is not in the format YYYY-MM-DD")
    for city in (origin, destination):
        _known(world, city)
    return flights_text(world, origin, destination, date)


def flights_text(world: World, origin: str, destination: str, date: str) -> str:
    found = world.flights.between(origin, destination, date)
    return _listing(found, f"There is no flight from {origin} to {destination} on {date}.")


def road(world: World, argument: str) -> str:
    """GoogleDistanceMatrix[Origin, Destination, Mode]"""
    parts = argument.split(", ")
    if len(parts) < 3:
        raise Refused("Illegal GoogleDistanceMatrix. Please try again.")
    return road_text(world, *parts[:3])


def road_text(world: World, origin: str, destination: str, mode: str) -> str:
    origin, destination = bare(origin), bare(destination)
    found = world.roads.get((origin, destination))
    if found is None:
        return f"{mode}, from {origin} to {destination}, no valid information."
    if not found.usable:
        return NOTHING
    return (
        f"{mode}, from {origin} to {destination}, duration: {found.duration}, "
        f"distance: {found.distance}, cost: {found.cost(mode)}"
    )


def accommodations(world: World, city: str) -> str:
    """AccommodationSearch[City]"""
    return _listing(
        world.hotels.get(_known(world, city), ()), "There is no attraction in this city."
    )


def attractions(world: World, city: str) -> str:
    """AttractionSearch[City]"""
    rows = world.attractions.get(_known(world, city), ())
    return _listing(rows, "There is no attraction in this city.")


def restaurants(world: World, city: str) -> str:
    """RestaurantSearch[City]"""
    rows = world.restaurants.get(_known(world, city), ())
    return _listing(rows, "There is no restaurant in this city.")


def cities(world: World, state: str) -> str:
    """CitySearch[State]"""
    found = world.in_state(state)
    return str(found) if found else "Invalid State"


def _known(world: World, city: str) -> str:
    if city not in world.cities:
        raise Refused(f"{city} is not valid city in {list(world.cities)}.")
    return city


def _listing(rows: Sequence[Row], otherwise: str) -> str:
    return table(rows) if rows else otherwise


# -- sole planning


def legs(query: Query, route: Sequence[str]) -> list[tuple[str, str, str]]:
    """From where to where on which date: two nights in each city of the route."""
    stops = [query.org, *route, query.org]
    return [
        (a, b, query.dates[min(2 * k, query.days - 1)]) for k, (a, b) in enumerate(pairwise(stops))
    ]


def reference(world: World, query: Query, route: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Everything that a planner needs to know about a route: descriptions and contents."""
    for city in route:
        yield f"Attractions in {city}", attractions(world, city)
        yield f"Restaurants in {city}", restaurants(world, city)
        yield f"Accommodations in {city}", accommodations(world, city)
    for origin, destination, date in legs(query, route):
        between = f"from {origin} to {destination}"
        yield f"Flight {between} on {date}", flights_text(world, origin, destination, date)
        yield f"Self-driving {between}", road_text(world, origin, destination, "self-driving")
        yield f"Taxi {between}", road_text(world, origin, destination, "taxi")


def given(information: str, query: str) -> str:
    """What a planner is shown."""
    return f"Given information: {information}\nQuery: {query}"


def listed(entries: Sequence[tuple[str, str]]) -> str:
    """Descriptions and contents as one text."""
    return str([{"Description": name, "Content": content} for name, content in entries])
