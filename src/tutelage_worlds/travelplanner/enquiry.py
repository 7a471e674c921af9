"""CostEnquiry: what one day of a plan costs, as TravelPlanner's planners can ask (arXiv:2402.01622,
appendix B.1). Unlike the evaluation, it wants names whole."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tutelage_worlds.travelplanner import itinerary
from tutelage_worlds.travelplanner.commonsense import fare
from tutelage_worlds.travelplanner.itinerary import MEALS, cities_of, place
from tutelage_worlds.travelplanner.tables import World, cars, rooms

UNREADABLE: Final = "The sub plan can not be parsed into json format, please check."


def enquiry(world: World, argument: str) -> tuple[str, bool]:
    """The answer to one day's plan with its number of people, and whether it could be read."""
    made = itinerary.literal(argument.strip()) if len(argument) <= itinerary.LONGEST else None
    if made is None:
        return UNREADABLE, False
    people = made.get("people_number") if isinstance(made, dict) else None
    if not isinstance(people, int) or people < 1 or itinerary.valid([made]) is None:
        return f"{UNREADABLE} Only one day plan is supported.", False
    total, wrong = _day(world, made, people)
    if not wrong:
        return f"The cost of your plan is {total} dollars.", True
    reasons = "".join(f"{k}. {reason} \t" for k, reason in enumerate(wrong, 1))
    return (
        "Sorry, the cost of your plan is not available because of the following reasons:" + reasons
    ), True


def _day(world: World, day: Mapping[str, Any], people: int) -> tuple[float, Sequence[str]]:
    total: float = 0
    wrong: list[str] = []
    if _said(day, "transportation"):
        cost, reason = _ride(world, day, people)
        total += cost
        wrong += [reason] if reason else []
    for meal in MEALS:
        name, city = place(day[meal]) if _said(day, meal) else ("-", "-")
        if name == "-" or city == "-":
            continue
        costs = [row.cost for row in world.restaurants.get(city, ()) if row.name == name]
        total += costs[0] * people if costs else 0
        # "breakfase" is how the original spells it
        spelt = "breakfase" if meal == "breakfast" else meal
        wrong += [] if costs else [f"The {spelt} information is not valid, please check."]
    name, city = place(day["accommodation"]) if _said(day, "accommodation") else ("-", "-")
    if name != "-" and city != "-":
        hotels = [row for row in world.hotels.get(city, ()) if row.name == name]
        total += hotels[0].price * rooms(people, hotels[0]) if hotels else 0
        wrong += [] if hotels else ["The accommodation information is not valid, please check."]
    return total, wrong


def _said(day: Mapping[str, Any], key: str) -> bool:
    return bool(day.get(key)) and day[key] != "-"


def _ride(world: World, day: Mapping[str, Any], people: int) -> tuple[float, str]:
    text = day["transportation"]
    between, lower = cities_of(text) or cities_of(day.get("current_city") or ""), text.lower()
    if "flight number" in lower:
        after = text.partition("Flight Number: ")[2]
        found = world.flights.numbered(after.partition(",")[0]) if after else ()
        if found:
            return found[0].price * people, ""
        return 0, "The filght information is not valid"  # as the original spells it
    mode = next((mode for mode in ("self-driving", "taxi") if mode in lower), "")
    if not mode:
        return 0, ""
    invalid = "The transporation information is not valid, please check."
    if between is None:
        return 0, (
            f"{invalid} You have to make sure there are two cities (from A to B) in your "
            "transportation plan."
        )
    cost = fare(world, between, mode)
    return (0, invalid) if cost is None else (cost * cars(people, mode), "")
