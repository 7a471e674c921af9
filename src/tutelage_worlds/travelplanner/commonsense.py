"""The eight commonsense constraints of TravelPlanner (arXiv:2402.01622, table 1).

Each answers with a sentence about what is wrong, empty if nothing is. Where TravelPlanner's own
evaluation would stop with an exception, `Unjudged` is raised, and the constraint is not met.
Oddities of the evaluation are kept, and marked "as there".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from tutelage_worlds.travelplanner.itinerary import MEALS, Day, Itinerary, bare, cities_of, place
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.tables import World, named

LATER: Final = "You don't need to fill in the information for this or later days."
"""What the annotators' form says in place of a city."""
TO_A_CITY: Final = 3
"""Days of a journey to one city; longer ones go to several of a state."""


class Unjudged(ValueError):
    """A plan lacks what a constraint needs to be judged at all."""


def field(day: Day, key: str) -> str | None:
    """A field that must be there, though it may be None."""
    if key not in day:
        raise Unjudged(f"a day has no {key}")
    value: str | None = day[key]
    return value


def words(day: Day, key: str) -> str:
    """A field that must be there and hold text."""
    value = field(day, key)
    if value is None:
        raise Unjudged(f"{key} is null")
    return value


def given(value: str | None) -> bool:
    return bool(value) and value != "-"


def journey(text: str) -> tuple[str, str]:
    """The cities of "from A to B" without their states."""
    found = cities_of(text)
    if found is None:
        raise Unjudged(f"{text!r} is not of the form: from A to B")
    return bare(found[0]), bare(found[1])


def days_of(query: Query, plan: Itinerary) -> Itinerary:
    return plan[: query.days]


# -- one by one


def reasonable_city_route(world: World, query: Query, plan: Itinerary) -> str:
    """A closed circle from the city of departure, through cities of the state that was asked for,
    each seen for at least two mentions in a row and once only."""
    route: list[str] = []
    for i, day in enumerate(days_of(query, plan)):
        current = words(day, "current_city")
        if "from" in current:
            there = journey(current)
            if i == 0 and there[0] != query.org:
                return f"the journey must begin in {query.org}"
            route += there
        else:
            route.append(bare(current))
    if route[0] != route[-1]:
        return "the journey must end where it began"
    if not _in_sequence(route):
        return "a city is seen twice, or only in passing"
    for i, city in enumerate(route):
        if city not in world.states:
            return f"there is no city {city!r}"
        inside = 0 < i < len(route) - 1
        if inside and query.days > TO_A_CITY and world.states[city] != query.dest:
            return f"{city} is not in {query.dest}"
    return ""


def _in_sequence(route: Sequence[str]) -> bool:
    if len(route) < 3:
        return False
    last, start, seen = len(route) - 1, 0, set[str]()
    for city, group in groupby(route):
        count = len(list(group))
        if city in seen and start not in (0, last):
            return False
        if count == 1 and 0 < start < last:
            return False
        seen.add(city)
        start += count
    return True


def diverse_restaurants(world: World, query: Query, plan: Itinerary) -> str:
    """No restaurant twice, compared by the whole text."""
    seen = set()
    for i, day in enumerate(days_of(query, plan), 1):
        for meal in MEALS:
            text = day.get(meal)
            if given(text):
                if text in seen:
                    return f"day {i}: {text} was visited before"
                seen.add(text)
    return ""


def sights(day: Day) -> list[str]:
    """Attractions end with a semicolon; what follows the last one is not looked at, as there."""
    text = day.get("attraction")
    return text.split(";")[:-1] if text is not None and given(text) else []


def diverse_attractions(world: World, query: Query, plan: Itinerary) -> str:
    """No attraction twice."""
    seen = set()
    for i, day in enumerate(days_of(query, plan), 1):
        for sight in sights(day):
            if sight in seen:
                return f"day {i}: {sight} was visited before"
            seen.add(sight)
    return ""


def _vehicle(text: str) -> str:
    lower = text.lower()
    return next((kind for kind in ("taxi", "self-driving", "flight") if kind in lower), "")


def non_conflicting_transportation(world: World, query: Query, plan: Itinerary) -> str:
    """Who drives a car of their own neither flies nor takes a taxi; the first day must have
    transportation."""
    if not given(field(plan[0], "transportation")):
        return "day 1 needs transportation"
    texts = [day.get("transportation") for day in days_of(query, plan)]
    used = {_vehicle(text) for text in texts if text is not None and given(text)}
    if "self-driving" in used and used & {"flight", "taxi"}:
        return "a car of one's own cannot be left behind"
    return ""


def within_current_city(world: World, query: Query, plan: Itinerary) -> str:
    """Everything is in the city or cities of its day.

    On a day in one city, single letters of its name are looked for instead, as there; so meals and
    attractions hardly ever fail, and transportation must hold all of them.
    """
    for i, day in enumerate(days_of(query, plan), 1):
        current = words(day, "current_city")
        cities: Sequence[str] = journey(current) if "from" in current else bare(current)
        wrong = _elsewhere(day, cities)
        if wrong:
            return f"day {i}: {wrong} is in another city"
    return ""


def _elsewhere(day: Day, cities: Sequence[str]) -> str:
    transportation = day.get("transportation")
    if given(transportation) and not all(city in str(transportation) for city in cities):
        return "transportation"
    for meal in MEALS:
        if given(day.get(meal)) and not any(city in day[meal] for city in cities):
            return meal
    if any(not any(city in sight for city in cities) for sight in sights(day)):
        return "an attraction"
    if given(day.get("accommodation")):
        if not cities:
            raise Unjudged("a day is in no city")
        if cities[-1] not in day["accommodation"]:
            return "accommodation"
    return ""


def within_sandbox(world: World, query: Query, plan: Itinerary) -> str:
    """Everything is in the tables: flights by number and cities (not by date), roads, places."""
    for i, day in enumerate(days_of(query, plan), 1):
        wrong = next(_unknown(world, day), "")
        if wrong:
            return f"day {i}: there is no such {wrong}"
    return ""


def _unknown(world: World, day: Day) -> Iterator[str]:
    transportation = field(day, "transportation")
    if transportation is not None and given(transportation) and not _runs(world, day):
        yield "transportation"
    for meal in MEALS:
        if given(day.get(meal)) and not named(world.restaurants, *place(day[meal])):
            yield meal
    for sight in sights(day):
        if not named(world.attractions, *place(sight)):
            yield "attraction"
    if given(day.get("accommodation")) and not named(world.hotels, *place(day["accommodation"])):
        yield "accommodation"


def ride(day: Day) -> tuple[str, str] | None:
    """From where to where a day's transportation goes, by its own words or by the day's city."""
    return cities_of(words(day, "transportation")) or cities_of(words(day, "current_city"))


def flight_number(text: str) -> str:
    _, found, rest = text.partition("Flight Number: ")
    if not found:
        raise Unjudged(f"{text!r} has no flight number after 'Flight Number: '")
    return rest.partition("Flight Number: ")[0].partition(",")[0]


def _runs(world: World, day: Day) -> bool:
    text, between = words(day, "transportation"), ride(day)
    lower = text.lower()
    if "flight number" in lower:
        if between is None:
            raise Unjudged(f"{text!r} does not say from where to where")
        found = world.flights.numbered(flight_number(text))
        ends = (bare(between[0]), bare(between[1]))
        return any((flight.origin, flight.destination) == ends for flight in found)
    for mode in ("self-driving", "taxi"):
        if mode in lower:
            return fare(world, between, mode) is not None
    return True


def fare(world: World, between: tuple[str, str] | None, mode: str) -> int | None:
    """What one car costs; None where there is no road."""
    if between is None:
        return None
    road = world.roads.get((bare(between[0]), bare(between[1])))
    return None if road is None else road.cost(mode)


def minimum_nights_stay(world: World, query: Query, plan: Itinerary) -> str:
    """Stays are as long as the accommodation asks for; one whose name fits several is not looked
    at, as there."""
    if any("accommodation" not in day for day in days_of(query, plan)):
        return "a day has no accommodation"
    for text, group in groupby(day["accommodation"] for day in days_of(query, plan)):
        nights = len(list(group))
        if text in ("-", ""):
            continue
        if text is None:
            raise Unjudged("accommodation is null")
        found = named(world.hotels, *place(text))
        if len(found) == 1 and nights < found[0].minimum_nights:
            return f"{text} wants {found[0].minimum_nights:g} nights"
    return ""


def complete_information(world: World, query: Query, plan: Itinerary) -> str:
    """All days, the right number of cities, and for each day what its kind needs."""
    days = days_of(query, plan)
    if sum(bool(day) and field(day, "current_city") != LATER for day in days) != query.days:
        return f"the plan must have {query.days} days"
    wrong = _city_number(query, days)
    if wrong:
        return wrong
    there = 0
    for i, day in enumerate(days, 1):
        wrong = next(_missing(day, last=i == query.days), "")
        if wrong:
            return f"day {i} needs {wrong}"
        there += sum(bool(value) and value != "-" for value in day.values())
    return "" if 2 * there >= 6 * query.days else "more than half of the plan is missing"


def _city_number(query: Query, days: Itinerary) -> str:
    seen: set[str] = set()
    for i, day in enumerate(days):
        current = words(day, "current_city")
        if "from" in current:
            cities = journey(current)
            if i == 0 and cities[0] != query.org:
                return f"the journey must begin in {query.org}"
            seen.update(cities)
        else:
            seen.add(bare(current))
    if len(seen - {query.org}) != query.cities:
        return f"{query.cities} cities must be seen"
    return ""


def _missing(day: Day, *, last: bool) -> Iterator[str]:
    yield from (
        key for key in ("transportation", *MEALS, "attraction", "accommodation") if key not in day
    )
    current, nothing = words(day, "current_city"), ("", "-")
    if ("from " in current or "to " in current) and day["transportation"] in nothing:
        yield "transportation"
    if "from " not in current and " to " not in current and day["attraction"] in nothing:
        yield "attraction"
    if not last and day["accommodation"] in nothing:
        yield "accommodation"
    if "from " not in current and any(day[meal] in nothing for meal in MEALS):
        yield "meals"


Constraint = Callable[[World, Query, Itinerary], str]
COMMONSENSE: Final[Mapping[str, Constraint]] = {
    check.__name__: check
    for check in (
        within_sandbox,
        complete_information,
        within_current_city,
        reasonable_city_route,
        diverse_restaurants,
        diverse_attractions,
        non_conflicting_transportation,
        minimum_nights_stay,
    )
}
"""By name, in the order of the paper's table."""
