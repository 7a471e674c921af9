"""The hard constraints of TravelPlanner (arXiv:2402.01622, table 1): budget and wishes.

They are judged only if a plan is complete and within the sandbox.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tutelage_worlds.travelplanner.commonsense import (
    Constraint,
    days_of,
    fare,
    field,
    flight_number,
    given,
    ride,
)
from tutelage_worlds.travelplanner.itinerary import MEALS, Day, Itinerary, place
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.tables import Hotel, Restaurant, World, cars, named, rooms

ROOM_TYPES: Final = {
    "entire room": ("Entire home/apt",),
    "private room": ("Private room",),
    "shared room": ("Shared room",),
    "not shared room": ("Entire home/apt", "Private room"),
}


def cost(world: World, query: Query, plan: Itinerary) -> float:
    """Dollars for everybody; of what a name fits, the first in the table counts."""
    return sum(_cost_of_day(world, query.people, day) for day in days_of(query, plan))


def _cost_of_day(world: World, people: int, day: Day) -> float:
    total: float = 0
    text = field(day, "transportation")
    if text is not None and given(text):
        total += _transportation(world, people, day, text)
    for meal in MEALS:
        found = eaten(world, day, meal)
        total += found.cost * people if found else 0
    hotel = slept(world, day)
    return total + (hotel.price * rooms(people, hotel) if hotel else 0)


def _transportation(world: World, people: int, day: Day, text: str) -> float:
    between, lower = ride(day), text.lower()
    if between is None:
        return 0
    if "flight number" in lower:
        found = world.flights.numbered(flight_number(text))
        return found[0].price * people if found else 0
    for mode in ("self-driving", "taxi"):
        if mode in lower:
            return (fare(world, between, mode) or 0) * cars(people, mode)
    return 0


def eaten(world: World, day: Day, meal: str) -> Restaurant | None:
    """The restaurant of a meal."""
    text = field(day, meal)
    found = named(world.restaurants, *place(text)) if text is not None and given(text) else []
    return found[0] if found else None


def slept(world: World, day: Day) -> Hotel | None:
    """The accommodation of a day."""
    text = field(day, "accommodation")
    found = named(world.hotels, *place(text)) if text is not None and given(text) else []
    return found[0] if found else None


def _hotels(world: World, query: Query, plan: Itinerary) -> Iterator[Hotel]:
    found = (slept(world, day) for day in days_of(query, plan))
    return (hotel for hotel in found if hotel is not None)


def allows(hotel: Hotel, rule: str | None) -> bool:
    return rule is None or f"No {rule}" not in hotel.house_rules


def is_of(hotel: Hotel, room: str | None) -> bool:
    return room is None or hotel.room_type in ROOM_TYPES[room]


# -- one by one


def budget(world: World, query: Query, plan: Itinerary) -> str:
    total = cost(world, query, plan)
    return "" if total <= query.budget else f"it costs {total:g}, more than {query.budget}"


def room_rule(world: World, query: Query, plan: Itinerary) -> str:
    wrong = [h.name for h in _hotels(world, query, plan) if not allows(h, query.rule)]
    return f"{wrong[0]} forbids {query.rule}" if wrong else ""


def room_type(world: World, query: Query, plan: Itinerary) -> str:
    wrong = [h.name for h in _hotels(world, query, plan) if not is_of(h, query.room)]
    return f"{wrong[0]} has no {query.room}" if wrong else ""


def cuisine(world: World, query: Query, plan: Itinerary) -> str:
    """Each cuisine once, outside the city of departure: a meal there ends its day, as there."""
    had: set[str] = set()
    for day in days_of(query, plan):
        for meal in MEALS:
            text = field(day, meal)
            if text is None or not given(text):
                continue
            if place(text)[1] == query.org:
                break
            found = eaten(world, day, meal)
            had.update(c for c in query.cuisines if found and c in found.cuisines)
    missing = [c for c in query.cuisines if c not in had]
    return f"nothing {missing[0]} is eaten" if missing else ""


def transportation(world: World, query: Query, plan: Itinerary) -> str:
    """The words "Flight" or "Self-driving", with their capitals, give it away."""
    unwanted = {"no flight": "Flight", "no self-driving": "Self-driving"}[query.transport or ""]
    texts = [field(day, "transportation") for day in days_of(query, plan)]
    wrong = any(unwanted in text for text in texts if text is not None and given(text))
    return f"{unwanted} was not wanted" if wrong else ""


HARD: Final[Mapping[str, Constraint]] = {
    check.__name__: check for check in (budget, room_rule, cuisine, room_type, transportation)
}
"""By name, in the order of the paper's table; those that a query has are `query.hard`."""
