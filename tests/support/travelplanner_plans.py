"""Plans that are a little or very wrong, for tests: mutations of good ones."""

import os
from pathlib import Path
from random import Random
from typing import Any

from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.itinerary import FIELDS, MEALS
from tutelage_worlds.travelplanner.solver import solve

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data")) / "travelplanner"
Plan = list[dict[str, Any]]
ODD = (
    "-",
    "",
    None,
    "from",
    "to",
    "from A to B",
    "from  to ",
    "Taxi",
    "Flight Number: F1",
    "flight number: F0000010",
    "Self-driving",
    "Train",
    "a, b",
    ",",
    ", ",
    "a,b,",
    "(x), y(z)",
    "x\ny, z",
    "from a\nb to c",
    "a; b",
    ";",
    "Cafe;",
    "é, ü(Ohio)",
    "from X(Y) to Z(W), Taxi",
    "You don't need to fill in the information for this or later days.",
    "-, -",
)


def good(trip: Trip) -> Plan:
    """The gold plan of a task, or the solver's."""
    if trip.gold is not None:
        return [dict(day) for day in trip.gold]
    found = solve(trip.world, trip.query, trip.route, trip.query.budget)
    assert found is not None
    return found.plan


def value(rng: Random, trip: Trip, key: str) -> Any:
    """Something for a field, mostly what fits its kind."""
    world, roll = trip.world, rng.random()
    if roll < 0.25:
        return rng.choice(ODD)
    city = rng.choice((*trip.route, trip.query.org, rng.choice(list(world.states))))
    other = rng.choice((*trip.route, trip.query.org))
    if key == "current_city":
        return rng.choice((city, f"from {city} to {other}", f"{city}(Ohio)", f"From {city}"))
    if key == "transportation":
        date = rng.choice(trip.query.dates)
        flights = world.flights.between(city, other, date)
        number = flights[0].number if flights else "F0000000"
        between = rng.choice((f"from {city} to {other}", f"from {city}(Ohio) to {other}", ""))
        kind = rng.choice((f"Flight Number: {number}", "Self-driving", "Taxi", "taxi", number))
        return f"{kind}, {between}, duration: 2 hours"
    tables: Any = {"accommodation": world.hotels, "attraction": world.attractions}
    rows = tables.get(key, world.restaurants).get(city, ())
    name = rng.choice(rows).name if rows else "Nothing"
    if rng.random() < 0.2:  # a part of a name
        name = name[rng.randrange(3) : -1 - rng.randrange(3)]
    if rng.random() < 0.1:
        name = rng.choice((name.lower(), f" {name} ", "", "a"))
    place = f"{name}, {city}{rng.choice(('', '', '(Ohio)', ' '))}"
    return place + rng.choice((";", ";", "", f";{place};")) if key == "attraction" else place


def worse(rng: Random, trip: Trip, plan: Plan) -> Plan:
    """A plan after one change, sometimes of its shape."""
    days = [dict(day) for day in plan]
    roll, k = rng.random(), rng.randrange(len(days))
    if roll < 0.04:
        return days[:k] or days
    if roll < 0.07:
        return [*days, {}, {}]
    if roll < 0.10:
        days[k] = {}
    elif roll < 0.14:
        other = rng.randrange(len(days))
        days[k], days[other] = days[other], days[k]
    elif roll < 0.18:
        days[k].pop(rng.choice(FIELDS), None)
    elif roll < 0.22:
        days[k][rng.choice(("cost", "note", "days"))] = rng.choice((0, 1, "-", "x", None, [], 2.5))
    elif roll < 0.30:  # the same again
        key, other = rng.choice((*MEALS, "attraction", "accommodation")), rng.randrange(len(days))
        days[k][key] = days[other].get(rng.choice((key, "lunch", "dinner")), "-")
    else:
        key = rng.choice(FIELDS)
        days[k][key] = value(rng, trip, key)
    return days


def wrong(rng: Random, trip: Trip) -> Plan:
    """A good plan after up to four changes."""
    plan = good(trip)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 4))):
        plan = worse(rng, trip, plan)
    return plan if any(plan) else good(trip)
