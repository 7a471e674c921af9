"""The agent's tools: searches, the notebook, the cost enquiry, and when the agent is stopped."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tutelage_worlds.travelplanner import itinerary, texts
from tutelage_worlds.travelplanner.commonsense import fare
from tutelage_worlds.travelplanner.itinerary import MEALS, cities_of, place
from tutelage_worlds.travelplanner.tables import World, cars, rooms
from tutelage_worlds.travelplanner.texts import Refused

PATIENCE: Final = 3
"""Failures of a tool before its next call ends the episode, and how often an action may be said in
a row."""
VALID: Final = (
    "Invalid Action. Valid Actions are  FlightSearch[Departure City, Destination City, Date] / "
    "AccommodationSearch[City] /  RestaurantSearch[City] / NotebookWrite[Short Description] / "
    "AttractionSearch[City] / CitySearch[State] / GoogleDistanceMatrix[Origin, Destination, Mode] "
    "and Planner[Query]."
)
NULL: Final = (
    "No feedback from the environment due to the null action. Please make sure your action does "
    "not start with [Thought, Action, Observation]."
)
_ACTION: Final = re.compile(r"(\w+)\[(.+)\]", re.DOTALL)
Search = Callable[[World, str], str]
SEARCHES: Final[Mapping[str, Search]] = {
    "FlightSearch": texts.flights,
    "AttractionSearch": texts.attractions,
    "AccommodationSearch": texts.accommodations,
    "RestaurantSearch": texts.restaurants,
    "CitySearch": texts.cities,
    "GoogleDistanceMatrix": texts.road,
}
_COUNTED: Final = {"AccommodationSearch": "invalid"}
"""By which counter a tool is stopped, where it is not its own: a name is misspelt there, so the
search for accommodation never is by its own failures."""

_STRIPPED: Final = ("AttractionSearch", "AccommodationSearch", "RestaurantSearch")
"""Searches whose answers are shown without the blanks before their first column's name."""


class Answer(NamedTuple):
    """What a tool says; `over` where the agent is stopped, `planner` where it asked for a plan."""

    text: str
    valid: bool = True
    over: bool = False
    planner: str | None = None


def parse(action: str) -> tuple[str, str]:
    """The name and the argument of `Name[argument]`, empty if it is not of that form. Line breaks
    do not count.

    >>> parse("CitySearch[Ohio]"), parse("CitySearch[]")
    (('CitySearch', 'Ohio'), ('', ''))
    """
    found = _ACTION.fullmatch(action.strip("\n").strip().replace("\n", ""))
    return (found[1], found[2]) if found else ("", "")


class Desk:
    """An agent's searches and notes.

    notes  descriptions and contents, in the order in which they were written
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.notes: list[tuple[str, str | None]] = []
        self._found: str | None = None  # by the last search: what the notebook takes
        self._failures: dict[str, int] = {}
        self._last, self._times = "", 0

    def key(self) -> tuple[object, ...]:
        """Equal where the same actions have the same consequences."""
        failures = tuple(sorted(self._failures.items()))
        return (tuple(self.notes), self._found, failures, self._last, self._times)

    def act(self, action: str) -> Answer:
        text = action.strip("\n").strip().replace("\n", "")
        self._times = self._times + 1 if text == self._last and self._times else 1
        self._last = text
        if self._times == PATIENCE:
            return Answer(
                "The same action has been repeated 3 times consecutively. So we stop here.",
                valid=False,
                over=True,
            )
        if not text:
            return Answer(NULL, valid=False)
        name, argument = parse(text)
        if name == "Planner":
            return Answer("", planner=argument)
        known = name in SEARCHES or name == "NotebookWrite"
        counter = _COUNTED.get(name, name) if known else "invalid"
        if self._failures.get(counter, 0) >= PATIENCE:
            return Answer(f"{name} failed too often. So we stop here.", valid=False, over=True)
        if not known:
            self._fail("invalid")
            return Answer(VALID, valid=False)
        return self._note(argument) if name == "NotebookWrite" else self._search(name, argument)

    def _fail(self, counter: str) -> None:
        self._failures[counter] = self._failures.get(counter, 0) + 1

    def _search(self, name: str, argument: str) -> Answer:
        try:
            text = SEARCHES[name](self._world, argument)
        except Refused as reason:
            self._fail(name)
            return Answer(str(reason), valid=False)
        self._failures.clear()
        if name != "CitySearch":  # a list of cities is not kept for the notebook, as there
            self._found = text
        return Answer(text.strip() if name in _STRIPPED else text)

    def _note(self, description: str) -> Answer:
        self.notes.append((description, self._found))
        self._failures.clear()
        return Answer(
            "The information has been recorded in Notebook, and its index is "
            f"{len(self.notes) - 1}."
        )

    def notebook(self) -> str:
        """All notes as one text."""
        return str(
            [
                {"index": k, "Short Description": description, "Content": content}
                for k, (description, content) in enumerate(self.notes)
            ]
        )


# -- CostEnquiry: what one day of a plan costs, as TravelPlanner's planners can ask (arXiv:2402.01622,
# appendix B.1). Unlike the evaluation, it wants names whole.

MOST_PEOPLE: Final = 10**6
"""More than there are in a group; Python cannot divide whole numbers beyond all floats."""
UNREADABLE: Final = "The sub plan can not be parsed into json format, please check."


def enquiry(world: World, argument: str) -> tuple[str, bool]:
    """The answer to one day's plan with its number of people, and whether it could be read."""
    days = itinerary.literal(argument.strip()) if len(argument) <= itinerary.LONGEST else None
    if days is None:
        return UNREADABLE, False
    people = days.get("people_number") if isinstance(days, dict) else None
    if not isinstance(people, int) or not 1 <= people <= MOST_PEOPLE or not itinerary.valid([days]):
        return f"{UNREADABLE} Only one day plan is supported.", False
    total, wrong = _day(world, days, people)
    if not wrong:
        return f"The cost of your plan is {total} dollars.", True
    reasons = "".join(f"{k}. {reason} \t" for k, reason in enumerate(wrong, 1))
    return (
        "Sorry, the cost of your plan is not available because of the following reasons:" + reasons
    ), True


def _day(world: World, day: Mapping[str, Any], people: int) -> tuple[float, Sequence[str]]:
    total: float = 0
    wrong: list[str] = []
    if _is_given(day, "transportation"):
        cost, reason = _ride(world, day, people)
        total += cost
        wrong += [reason] if reason else []
    for meal in MEALS:
        name, city = place(day[meal]) if _is_given(day, meal) else ("-", "-")
        if name == "-" or city == "-":
            continue
        costs = [row.cost for row in world.restaurants.get(city, ()) if row.name == name]
        total += costs[0] * people if costs else 0
        # "breakfase" is how the original spells it
        spelt = "breakfase" if meal == "breakfast" else meal
        wrong += [] if costs else [f"The {spelt} information is not valid, please check."]
    name, city = place(day["accommodation"]) if _is_given(day, "accommodation") else ("-", "-")
    if name != "-" and city != "-":
        hotels = [row for row in world.hotels.get(city, ()) if row.name == name]
        total += hotels[0].price * rooms(people, hotels[0]) if hotels else 0
        wrong += [] if hotels else ["The accommodation information is not valid, please check."]
    return total, wrong


def _is_given(day: Mapping[str, Any], key: str) -> bool:
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
