"""The tables of a country: cities, flights, roads, hotels, restaurants and attractions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

Value = str | int | float


class Attraction(NamedTuple):
    name: str
    latitude: float
    longitude: float
    address: str
    phone: str
    website: str
    city: str


class Restaurant(NamedTuple):
    name: str
    cost: int
    cuisines: str
    rating: float
    city: str


class Hotel(NamedTuple):
    name: str
    price: float
    room_type: str
    house_rules: str
    minimum_nights: float
    maximum_occupancy: int
    review: float
    city: str


class Flight(NamedTuple):
    number: str
    price: int
    departure: str
    arrival: str
    elapsed: str
    date: str
    origin: str
    destination: str
    distance: float


HEADERS: Final[Mapping[type[tuple[Value, ...]], tuple[str, ...]]] = {
    Attraction: ("Name", "Latitude", "Longitude", "Address", "Phone", "Website", "City"),
    Restaurant: ("Name", "Average Cost", "Cuisines", "Aggregate Rating", "City"),
    Hotel: (
        "NAME",
        "price",
        "room type",
        "house_rules",
        "minimum nights",
        "maximum occupancy",
        "review rate number",
        "city",
    ),
    Flight: (
        "Flight Number",
        "Price",
        "DepTime",
        "ArrTime",
        "ActualElapsedTime",
        "FlightDate",
        "OriginCityName",
        "DestCityName",
        "Distance",
    ),
}
"""What TravelPlanner calls the columns, in the order of the fields."""
Row = Attraction | Restaurant | Hotel | Flight
Place = TypeVar("Place", Attraction, Restaurant, Hotel)


class Road(NamedTuple):
    """From one city to another by car, as texts such as "4 hours 46 mins" and "1,290 km"; both are
    empty where nothing is known."""

    duration: str
    distance: str

    @property
    def usable(self) -> bool:
        """Journeys of days are none."""
        return bool(self.duration and self.distance) and "day" not in self.duration

    def cost(self, mode: str) -> int | None:
        """Dollars for one car; None where there is no price. Whatever mode has "driving" in it is
        self-driving."""
        if not self.usable:
            return None
        kilometres = float(self.distance.replace("km", "").replace(",", ""))
        if "driving" in mode:
            return int(kilometres * 0.05)
        return int(kilometres) if mode == "taxi" else None


class Flights(Protocol):
    """A table of flights, however it is kept."""

    def between(self, origin: str, destination: str, date: str) -> Sequence[Flight]: ...
    def numbered(self, number: str) -> Sequence[Flight]: ...


@dataclass(frozen=True, slots=True)
class Listed:
    """Flights in memory."""

    rows: Sequence[Flight]
    _routes: dict[tuple[str, str, str], list[Flight]] = field(default_factory=dict)
    _numbers: dict[str, list[Flight]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            self._routes.setdefault((row.origin, row.destination, row.date), []).append(row)
            self._numbers.setdefault(row.number, []).append(row)

    def between(self, origin: str, destination: str, date: str) -> Sequence[Flight]:
        return self._routes.get((origin, destination, date), [])

    def numbered(self, number: str) -> Sequence[Flight]:
        return self._numbers.get(number, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The tables, indexed.

    states  city -> state, in the order in which cities are listed
    cities  the names that searches take
    """

    name: str
    states: Mapping[str, str]
    cities: Sequence[str]
    attractions: Mapping[str, Sequence[Attraction]]
    restaurants: Mapping[str, Sequence[Restaurant]]
    hotels: Mapping[str, Sequence[Hotel]]
    roads: Mapping[tuple[str, str], Road]
    flights: Flights

    def in_state(self, state: str) -> list[str]:
        return [city for city, its in self.states.items() if its == state]


def named(rows: Mapping[str, Sequence[Place]], name: str, city: str) -> list[Place]:
    """The places of a city whose name contains `name`, in the table's order: that is how
    TravelPlanner finds what a plan names, so a part of a name, or none, is enough."""
    return [row for row in rows.get(city, ()) if name in row.name]


def cars(people: int, mode: str) -> int:
    """Number of cars for a group: five fit in a self-driven car, four in a taxi."""
    return math.ceil(people / (5 if mode == "self-driving" else 4))


def rooms(people: int, hotel: Hotel) -> int:
    return math.ceil(people / hotel.maximum_occupancy)
