"""Generate queries about the generated country that can be fulfilled."""

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from random import Random
from typing import Final

from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.generate import DATES, SIZES, country
from tutelage_worlds.travelplanner.query import CUISINES, DAYS, LEVELS, RULES, Query
from tutelage_worlds.travelplanner.query import ROOMS as ROOM_WISHES
from tutelage_worlds.travelplanner.query import TRANSPORT as RIDE_WISHES
from tutelage_worlds.travelplanner.solver import cheapest, fill, rides, routes
from tutelage_worlds.travelplanner.tables import World

SPLITS: Final = ("train", "validation", "test")
ATTEMPTS: Final = 1000
_ALLOWED: Final = {
    "smoking": "smoking must be allowed where we stay",
    "parties": "we want to hold parties where we stay",
    "children under 10": "we bring children under 10, who must be welcome where we stay",
    "visitors": "we expect visitors where we stay",
    "pets": "our pets must be welcome where we stay",
}
_RIDES: Final = {"no flight": "we will not fly", "no self-driving": "we will not drive ourselves"}
_MONTHS: Final = (  # `%B` depends on the locale of the process
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_OPENINGS: Final = (
    "Please plan a trip",
    "Could you plan a trip",
    "We need a plan for a trip",
    "Make a travel plan",
    "Help with a journey",
)


@lru_cache(maxsize=4096)
def trip(size: str, split: str, seed: int, level: str, days: int) -> Trip:
    """A query that can be met, with the first route that does.

    `test` is about states where no other split goes.
    """
    world, rng = country(size), Random(f"{size} {split} {seed} {level} {days}")
    for _ in range(ATTEMPTS):
        found = _try(world, size, split, rng, level, days)
        if found is not None:
            return found
    raise RuntimeError(f"no {level} query of {days} days for {split} {seed} can be met in {size}")


def _try(world: World, size: str, split: str, rng: Random, level: str, days: int) -> Trip | None:
    states = list(dict.fromkeys(world.states.values()))
    cut = len(states) * 2 // 3
    state = rng.choice(states[cut:] if split == "test" else states[:cut])
    org = rng.choice([city for city, its in world.states.items() if its != state])
    cities = DAYS.index(days) + 1
    start = rng.randrange(len(DATES) - days + 1)
    wishes = _wishes(rng, size, level)
    draft = Query(
        text="",
        level=level,
        org=org,
        days=days,
        cities=cities,
        budget=0,
        dest=rng.choice(world.in_state(state)) if cities == 1 else state,
        dates=DATES[start : start + days],
        people=1 if level == "easy" else rng.randrange(2, 4 if SIZES[size].short else 9),
        rule=next((w for w in wishes if w in RULES), None),
        room=next((w for w in wishes if w in ROOM_WISHES), None),
        transport=next((w for w in wishes if w in RIDE_WISHES), None),
        cuisines=tuple(sorted(w for w in wishes if w in CUISINES)),
    )
    for route in routes(world, draft):
        way = next(rides(world, draft, route, cheap=False), None)
        first = fill(world, draft, route, way, cheap=False) if way else None
        least = cheapest(world, draft, route)
        if first and least:
            # a traveller with few wishes can afford the first entries
            enough = first.cost if level == "easy" else least.cost
            budget = 100 * (int(enough * rng.uniform(1.05, 1.6)) // 100 + 1)
            query = _worded(draft, budget, rng, short=SIZES[size].short)
            return Trip(world=world, query=query, route=route)
    return None


def _wishes(rng: Random, size: str, level: str) -> list[str]:
    """Words of RULES, ROOMS, TRANSPORT and CUISINES: none, of one kind, of three kinds."""
    known = CUISINES[: SIZES[size].cuisines]
    some = {"easy": 0, "medium": 2, "hard": 2 if SIZES[size].short else 4}[level]
    kinds: list[Sequence[str]] = [
        [rng.choice(RULES)],
        [rng.choice(ROOM_WISHES)],
        rng.sample(known, some),
        [rng.choice(RIDE_WISHES)],
    ]
    if level == "easy":
        return []
    chosen = [rng.choice(kinds[:3])] if level == "medium" else rng.sample(kinds, 3)
    return [wish for kind in chosen for wish in kind]


def _worded(draft: Query, budget: int, rng: Random, *, short: bool) -> Query:
    goal = draft.dest if draft.cities == 1 else f"{draft.cities} cities in {draft.dest}"
    people = "1 person" if draft.people == 1 else f"{draft.people} people"
    opening = _OPENINGS[0] if short else rng.choice(_OPENINGS)
    first, last = spoken(draft.dates[0]), spoken(draft.dates[-1])
    text = (
        f"{opening} from {draft.org} to {goal} for {draft.days} days, from {first} to {last}, "
        f"2022, for {people} with a budget of ${budget:,}."
    )
    wants = []
    if draft.rule:
        wants.append(_ALLOWED[draft.rule])
    if draft.room:
        rooms = {"entire room": "an entire home", "not shared room": "a room that is not shared"}
        wants.append(f"we want {rooms.get(draft.room, f'a {draft.room}')}")
    if draft.cuisines:
        wants.append(f"we want to eat {' and '.join(draft.cuisines)} food")
    if draft.transport:
        wants.append(_RIDES[draft.transport])
    if wants:
        wish_text = "; ".join(wants)
        text += f" {wish_text[0].upper()}{wish_text[1:]}."
    return Query(
        text=text,
        level=draft.level,
        org=draft.org,
        dest=draft.dest,
        days=draft.days,
        cities=draft.cities,
        dates=draft.dates,
        people=draft.people,
        budget=budget,
        rule=draft.rule,
        cuisines=draft.cuisines,
        room=draft.room,
        transport=draft.transport,
    )


def spoken(day: str) -> str:
    """A date as people say it.

    >>> spoken("2022-03-22")
    'March 22nd'
    """
    parsed = date.fromisoformat(day)
    ending = (
        "th" if 10 < parsed.day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(parsed.day % 10, "th")
    )
    return f"{_MONTHS[parsed.month - 1]} {parsed.day}{ending}"


FAMILIES: Final = tuple(f"{level}-{days}" for level in LEVELS for days in DAYS)
"""Kinds of queries: how much they want, and for how many days."""
