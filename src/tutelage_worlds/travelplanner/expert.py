"""The expert of travelplanner: it plans a trip from the answers of its searches."""

from collections.abc import Sequence
from typing import Final

from tutelage_worlds.travelplanner import brief, itinerary
from tutelage_worlds.travelplanner.env import Mode, Trip
from tutelage_worlds.travelplanner.itinerary import Itinerary
from tutelage_worlds.travelplanner.solver import Ride, fill, rides, routes, solve
from tutelage_worlds.travelplanner.texts import legs

Turns = list[tuple[str, str]]
"""Actions with the thoughts behind them."""
PLACES: Final = {
    "AccommodationSearch": ("Accommodations", "where to sleep"),
    "RestaurantSearch": ("Restaurants", "where to eat"),
    "AttractionSearch": ("Attractions", "what to see"),
}


def finish(trip: Trip, plan: Itinerary, *, short: bool) -> str:
    """The action that hands a plan in."""
    return brief.write(plan) if short else f"Finish[{itinerary.write(plan)}]"


def demonstrate(trip: Trip, mode: Mode, *, short: bool) -> Turns:
    """Look up what a plan needs, note it, and plan with what comes first, or with the cheapest
    where that is too dear; nothing where no such plan is found."""
    if mode == "sole":
        found = solve(trip.world, trip.query, trip.route, trip.query.budget)
        return [(finish(trip, found.plan, short=short), WHY)] if found else []
    return _Searcher(trip, short=short).run()


WHY: Final = "everything fits"


class _Searcher:
    """Searches city by city, each search once."""

    def __init__(self, trip: Trip, *, short: bool) -> None:
        self.trip, self.short = trip, short
        self.turns: Turns = []
        self.searches: set[str] = set()

    def look(self, action: str, thought: str, note: str = "") -> None:
        """Search, and write down what was found."""
        if action in self.searches:
            return
        self.searches.add(action)
        self.turns.append((action, thought))
        if note:
            self.turns.append((f"NotebookWrite[{note}]", "the planner needs it"))

    def run(self) -> Turns:
        query, world = self.trip.query, self.trip.world
        if query.cities > 1:
            self.look(f"CitySearch[{query.dest}]", f"which cities are in {query.dest}")
        # other cities than those of the reference information are not in every copy of the data
        known = [self.trip.route] if self.trip.information else routes(world, query)
        for route in known:
            plan = self.try_route(route)
            if plan is not None:
                self.turns.append((f"Planner[{query.text}]", "all is known"))
                self.turns.append((finish(self.trip, plan, short=self.short), WHY))
                return self.turns
        return []

    def try_route(self, route: Sequence[str]) -> Itinerary | None:
        query, world = self.trip.query, self.trip.world
        for kind in ("fly", "drive"):
            if query.transport == {"fly": "no flight", "drive": "no self-driving"}[kind]:
                continue
            self.transport(route, kind)
            for cheap in (False, True):
                for ride in rides(world, query, route, cheap=cheap):
                    if (kind == "fly") != _flown(ride):
                        continue
                    self.places(route)
                    found = fill(world, query, route, ride, cheap=cheap)
                    if found and found.cost <= query.budget:
                        return found.plan
        return None

    def transport(self, route: Sequence[str], kind: str) -> None:
        for origin, destination, date in legs(self.trip.query, route):
            between = f"{origin} to {destination}"
            if kind == "drive":
                self.road(origin, destination, "self-driving")
            elif self.trip.world.flights.between(origin, destination, date):
                search = f"FlightSearch[{origin}, {destination}, {date}]"
                self.look(search, f"how to get from {between}", f"Flights from {between} on {date}")
            else:
                search = f"FlightSearch[{origin}, {destination}, {date}]"
                self.look(search, f"how to get from {between}")
                self.road(origin, destination, "taxi")

    def road(self, origin: str, destination: str, mode: str) -> None:
        between = f"{origin} to {destination}"
        search = f"GoogleDistanceMatrix[{origin}, {destination}, {mode}]"
        self.look(search, f"how far is it from {between}", f"{mode} from {between}")

    def places(self, route: Sequence[str]) -> None:
        for city in route:
            for tool, (note, thought) in PLACES.items():
                self.look(f"{tool}[{city}]", f"{thought} in {city}", f"{note} in {city}")


def _flown(ride: Ride) -> bool:
    return not ride.texts[0].startswith("Self-driving")


def plan(trip: Trip, mode: Mode, *, short: bool) -> list[str]:
    """The annotators' plan where there is one, else the solver's, after the searches of its
    route."""
    found = solve(trip.world, trip.query, trip.route, trip.query.budget)
    days = trip.gold if trip.gold is not None else found.plan if found else None
    if days is None:
        return []
    last = finish(trip, days, short=short)
    if mode == "sole":
        return [last]
    searcher = _Searcher(trip, short=short)
    rode = str(days[0].get("transportation"))
    searcher.transport(trip.route, "drive" if "driving" in rode.lower() else "fly")
    searcher.places(trip.route)
    return [
        *(action for action, _ in searcher.turns),
        f"Planner[{trip.query.text}]",
        last,
    ]
