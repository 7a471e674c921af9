"""Find plans that meet every constraint.

A journey stays two nights in each of its cities and moves on the days between. What is chosen is
what comes first in the tables, so that an agent that reads them from the top can do the same; where that
is too dear, the cheapest of everything, which is exact for what is chosen from.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import Any, Final, NamedTuple

from tutelage_worlds.travelplanner.hard import allows, is_of
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.tables import (
    Attraction,
    Hotel,
    Restaurant,
    World,
    cars,
    named,
    rooms,
)
from tutelage_worlds.travelplanner.texts import legs, road_text

NIGHTS: Final = 2
"""In each city of a journey."""
MEALS_A_CITY: Final = range(3, 6)
"""Three on the day between two journeys; dinner before it and breakfast after it if cuisines ask
for them."""
EXTRA: Final = 5
"""Restaurants of a city that serve the same of the wanted cuisines and are looked at."""


class Ride(NamedTuple):
    """How all legs of a journey are travelled: what a plan says of each, and what that costs."""

    texts: tuple[str, ...]
    cost: float


class Found(NamedTuple):
    plan: list[dict[str, Any]]
    cost: float


Table = dict[tuple[int, int], tuple[float, tuple[Restaurant, ...]]]
"""(how many meals, which cuisines as bits) -> what they weigh, and where they are eaten."""


def routes(world: World, query: Query) -> Iterator[tuple[str, ...]]:
    """Cities that a query may mean, in the order in which they are listed."""
    if query.cities == 1:
        yield (query.dest,)
        return
    inside = [city for city in world.in_state(query.dest) if city != query.org]
    yield from permutations(inside, query.cities)


def solve(world: World, query: Query, route: Sequence[str], budget: float) -> Found | None:
    """A plan within a budget."""
    found = (
        fill(world, query, route, ride, cheap=cheap)
        for cheap in (False, True)
        for ride in rides(world, query, route, cheap=cheap)
    )
    return next((solution for solution in found if solution and solution.cost <= budget), None)


def cheapest(world: World, query: Query, route: Sequence[str]) -> Found | None:
    """The cheapest plan that there is of this kind."""
    found = [
        fill(world, query, route, ride, cheap=True)
        for ride in rides(world, query, route, cheap=True)
    ]
    return min(
        (solution for solution in found if solution),
        key=lambda solution: solution.cost,
        default=None,
    )


# -- on the way


def rides(world: World, query: Query, route: Sequence[str], *, cheap: bool) -> Iterator[Ride]:
    """The ways to travel that a query allows: by air, then with a car of one's own."""
    for ways in (flying, driving):
        ride = ways(world, query, route, cheap=cheap)
        if ride:
            yield ride


def flying(world: World, query: Query, route: Sequence[str], *, cheap: bool) -> Ride | None:
    """A flight on every leg that has one, else a taxi."""
    if query.transport == "no flight":
        return None
    found: list[tuple[str, float]] = []
    for origin, destination, date in legs(query, route):
        flights = world.flights.between(origin, destination, date)
        if not flights:
            taxi = _by_road(world, query.people, origin, destination, "taxi")
            if taxi is None:
                return None
            found.append(taxi)
            continue
        best = min(flights, key=lambda flight: flight.price) if cheap else flights[0]
        text = (
            f"Flight Number: {best.number}, from {origin} to {destination}, Departure Time: "
            f"{best.departure}, Arrival Time: {best.arrival}"
        )
        found.append((text, best.price * query.people))
    return Ride(tuple(text for text, _ in found), sum(cost for _, cost in found))


def driving(world: World, query: Query, route: Sequence[str], *, cheap: bool) -> Ride | None:
    """One's own car on all legs."""
    if query.transport == "no self-driving":
        return None
    found = [_by_road(world, query.people, a, b, "self-driving") for a, b, _ in legs(query, route)]
    known = [leg for leg in found if leg is not None]
    if len(known) < len(found):
        return None
    return Ride(tuple(text for text, _ in known), sum(cost for _, cost in known))


def _by_road(
    world: World, people: int, origin: str, destination: str, mode: str
) -> tuple[str, float] | None:
    road = world.roads.get((origin, destination))
    cost = road.cost(mode) if road else None
    if cost is None:
        return None
    text = road_text(world, origin, destination, mode)
    return text[0].upper() + text[1:], cost * cars(people, mode)


# -- at the places


def fill(
    world: World, query: Query, route: Sequence[str], ride: Ride, *, cheap: bool
) -> Found | None:
    """The plan for a route and a ride, whatever it costs; None if a city lacks something."""
    hotels = [h for h in (_hotel(world, query, city, cheap=cheap) for city in route) if h]
    sights = [s for s in (_sight(world, city) for city in route) if s]
    meals = _meals(world, query, route, cheap=cheap)
    if meals is None or len(hotels) < len(route) or len(sights) < len(route):
        return None
    stops = [query.org, *route, query.org]
    plan: list[dict[str, Any]] = []
    for k, (hotel, sight) in enumerate(zip(hotels, sights, strict=True)):
        bed = f"{hotel.name}, {hotel.city}"
        plan.append(_moving(len(plan), stops[k], stops[k + 1], ride.texts[k], bed))
        plan.append(_staying(len(plan), route[k], meals[k][:3], sight, bed))
    plan.append(_moving(len(plan), stops[-2], stops[-1], ride.texts[-1], "-"))
    for k, rows in enumerate(meals):
        for row, (day, meal) in zip(rows[3:], ((0, "dinner"), (2, "breakfast")), strict=False):
            plan[2 * k + day][meal] = _meal(row)
    eaten = sum(row.cost for rows in meals for row in rows) * query.people
    slept = sum(NIGHTS * h.price * rooms(query.people, h) for h in hotels)
    return Found(plan, ride.cost + eaten + slept)


def _moving(day: int, origin: str, destination: str, ride: str, bed: str) -> dict[str, Any]:
    return {
        "days": day + 1,
        "current_city": f"from {origin} to {destination}",
        "transportation": ride,
        "breakfast": "-",
        "attraction": "-",
        "lunch": "-",
        "dinner": "-",
        "accommodation": bed,
    }


def _staying(
    day: int, city: str, meals: Sequence[Restaurant], sight: Attraction, bed: str
) -> dict[str, Any]:
    breakfast, lunch, dinner = map(_meal, meals)
    return {
        "days": day + 1,
        "current_city": city,
        "transportation": "-",
        "breakfast": breakfast,
        "attraction": f"{sight.name}, {sight.city};",
        "lunch": lunch,
        "dinner": dinner,
        "accommodation": bed,
    }


def _meal(row: Restaurant | None) -> str:
    return f"{row.name}, {row.city}" if row else "-"


def _hotel(world: World, query: Query, city: str, *, cheap: bool) -> Hotel | None:
    fits = [
        hotel
        for hotel in world.hotels.get(city, ())
        if hotel.minimum_nights <= NIGHTS
        and allows(hotel, query.rule)
        and is_of(hotel, query.room)
        and named(world.hotels, hotel.name.strip(), city)[0] is hotel
    ]
    if cheap:
        fits.sort(key=lambda hotel: hotel.price * rooms(query.people, hotel))
    return fits[0] if fits else None


def _sight(world: World, city: str) -> Attraction | None:
    """One that can be written into a plan."""
    fits = (row for row in world.attractions.get(city, ()) if ";" not in row.name)
    return next(fits, None)


# -- meals: the least weight that serves all cuisines


def _meals(
    world: World, query: Query, route: Sequence[str], *, cheap: bool
) -> list[tuple[Restaurant, ...]] | None:
    """Where to eat in each city of a route."""
    best: dict[int, tuple[float, list[tuple[Restaurant, ...]]]] = {0: (0, [])}
    for city in route:
        further: dict[int, tuple[float, list[tuple[Restaurant, ...]]]] = {}
        for (count, mask), (weight, rows) in _city(world, query, city, cheap=cheap).items():
            if count not in MEALS_A_CITY:
                continue
            for had, (before, chosen) in best.items():
                total = before + weight
                if total < further.get(had | mask, (float("inf"),))[0]:
                    further[had | mask] = (total, [*chosen, rows])
        best = further
    everything = 2 ** len(query.cuisines) - 1
    return best[everything][1] if everything in best else None


def _city(world: World, query: Query, city: str, *, cheap: bool) -> Table:
    """For each number of meals in a city and each set of cuisines, the least weight."""
    rows = [
        row
        for row in world.restaurants.get(city, ())
        if named(world.restaurants, row.name.strip(), city)[0] is row and row.name.strip()
    ]
    weigh: Callable[[int], float] = (lambda k: rows[k].cost) if cheap else (lambda k: k)
    same: dict[int, list[int]] = {}
    for k in sorted(range(len(rows)), key=weigh):
        mask = sum(2**i for i, c in enumerate(query.cuisines) if c in rows[k].cuisines)
        if len(same.setdefault(mask, [])) < EXTRA:
            same[mask].append(k)
    table: Table = {(0, 0): (0, ())}
    for mask, indices in same.items():
        for k in indices:
            for (count, had), (weight, chosen) in list(table.items()):
                key, total = (count + 1, had | mask), weight + weigh(k)
                if key[0] < MEALS_A_CITY.stop and total < table.get(key, (float("inf"),))[0]:
                    table[key] = (total, (*chosen, rows[k]))
    return table
