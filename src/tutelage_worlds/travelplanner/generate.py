"""Generate a country in TravelPlanner's format, the same for the same name.

It has cities in states, roads and flights between them, hotels, restaurants and attractions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final, NamedTuple

from tutelage_worlds.travelplanner.query import CUISINES, RULES
from tutelage_worlds.travelplanner.tables import Attraction, Flight, Hotel, Restaurant, Road, World

_HEADS: Final = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "k",
    "l",
    "m",
    "n",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
)
_MIDDLES: Final = ("a", "e", "i", "o", "u", "ai", "ea")
_TAILS: Final = ("l", "n", "r", "s", "ld", "nd", "rn", "st", "lm", "rd", "sk", "nt")
TOWNS: Final = ("ton", "ford", "ville", "burg", "field", "port", "dale", "wick")
LANDS: Final = ("ia", "ora", "ana", "omi", "aska", "ington")
SIGHTS: Final = (
    "Museum",
    "Gardens",
    "Bridge",
    "Park",
    "Castle",
    "Zoo",
    "Tower",
    "Aquarium",
    "Market Hall",
    "Lighthouse",
)
TABLES: Final = (
    "Kitchen",
    "Diner",
    "Grill",
    "Bistro",
    "Noodle House",
    "Tea Room",
    "Oven",
    "Canteen",
    "Curry Corner",
    "Taproom",
)
BEDS: Final = ("Room", "Loft", "Studio", "Cottage", "Flat", "House")
LOOKS: Final = ("Quiet", "Bright", "Small", "Roomy", "Old", "Modern", "Sunny", "Plain")
PLACES: Final = (
    "by the river",
    "near the station",
    "on the hill",
    "with a garden",
    "downtown",
    "at the market",
)
STREETS: Final = ("Mill St", "Lake Rd", "Oak Ave", "Station St", "Hill Rd", "Bay St")
OTHER_CUISINES: Final = (
    "Tea",
    "Bakery",
    "BBQ",
    "Cafe",
    "Fast Food",
    "Seafood",
    "Pizza",
    "Desserts",
)


class Words:
    """Invented words, none of them a part of another."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._used: set[str] = set()
        self._parts: set[str] = set()  # all parts of the words that are in use

    def word(self, ending: str = "") -> str:
        while True:
            rng = self._rng
            name = rng.choice(_HEADS) + rng.choice(_MIDDLES) + rng.choice(_TAILS)
            name += ending or rng.choice(_MIDDLES) + rng.choice(_TAILS)
            ends = range(len(name) + 1)
            parts = {name[a:b] for a in ends for b in ends[a + 3 :]}
            if name not in self._parts and not parts & self._used:
                self._used.add(name)
                self._parts |= parts
                return name.capitalize()


DATES: Final = tuple(f"2022-03-{day:02}" for day in range(1, 32))
"""When journeys can be made."""
NIGHTS: Final = (1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 5.0, 30.0)
"""How many a place to stay asks for at least."""


class Size(NamedTuple):
    """How large a country is, and whether its names are single words."""

    states: int
    cities: int  # of a state
    restaurants: int  # of a city, as hotels and attractions
    hotels: int
    attractions: int
    short: bool
    cuisines: int  # how many of those that queries name are known
    airports: float  # the share of routes that are flown
    daily: bool  # whether flights have the same number and price every day


SIZES: Final = {
    "full": Size(12, 5, 24, 16, 12, False, 7, 0.8, False),
    "small": Size(6, 3, 5, 3, 2, True, 3, 0.8, True),
}


@cache
def country(size: str) -> World:
    """The world of a size."""
    counts = SIZES[size]
    rng = Random(f"travelplanner {size}")
    words = Words(rng)
    states = {
        words.word(TOWNS[0] if counts.short else rng.choice(TOWNS)): state
        for state in [words.word(rng.choice(LANDS)) for _ in range(counts.states)]
        for _ in range(counts.cities)
    }
    where = {city: (rng.uniform(0, 2000), rng.uniform(0, 1200)) for city in states}
    return World(
        name=f"own-{size}",
        states=states,
        cities=tuple(states),
        attractions={city: tuple(_attractions(rng, words, city, counts)) for city in states},
        restaurants={city: tuple(_restaurants(rng, words, city, counts)) for city in states},
        hotels={city: tuple(_hotels(rng, words, city, counts)) for city in states},
        roads=dict(_roads(rng, where)),
        flights=Timetable(size, counts, tuple(states), where),
    )


def _attractions(rng: Random, words: Words, city: str, size: Size) -> Iterator[Attraction]:
    for _ in range(size.attractions):
        word = words.word()
        name = word if size.short else f"{word} {rng.choice(SIGHTS)}"
        yield Attraction(
            name,
            round(rng.uniform(30, 48), 6),
            round(rng.uniform(-120, -75), 6),
            f"{rng.randrange(1, 900)} {rng.choice(STREETS)}, {city}",
            f"({rng.randrange(200, 999)}) 555-{rng.randrange(10_000):04}",
            f"https://{word.lower()}.example.org/",
            city,
        )


def _restaurants(rng: Random, words: Words, city: str, size: Size) -> Iterator[Restaurant]:
    for _ in range(size.restaurants):
        word = words.word()
        known = CUISINES[: size.cuisines]
        served = rng.sample(known, rng.choice((1, 1, 2)))
        if not size.short:
            served = rng.sample([*served, *rng.sample(OTHER_CUISINES, 3)], len(served) + 3)
        yield Restaurant(
            word if size.short else f"{word} {rng.choice(TABLES)}",
            rng.randrange(10, 100),
            ", ".join(served),
            round(rng.uniform(2, 5), 1),
            city,
        )


def _hotels(rng: Random, words: Words, city: str, size: Size) -> Iterator[Hotel]:
    for k in range(size.hotels):
        word = words.word()
        look, bed, place = map(rng.choice, (LOOKS, BEDS, PLACES))
        forbidden = rng.sample(RULES, rng.choice((0, 1, 1, 2)))
        yield Hotel(
            word if size.short else f"{look} {bed} {word} {place}",
            float(rng.randrange(40, 400)),
            rng.choice(("Entire home/apt", "Private room", "Private room", "Shared room"))
            if k
            else "Entire home/apt",
            " & ".join(f"No {rule}" for rule in forbidden) or "No rules",
            rng.choice(NIGHTS) if not size.short else rng.choice((1.0, 2.0, 3.0)),
            rng.randrange(1, 9),
            float(rng.randrange(1, 6)),
            city,
        )


Places = Mapping[str, tuple[float, float]]


def _kilometres(where: Places, a: str, b: str) -> int:
    return round(math.dist(where[a], where[b]) * 1.25) + 20


def _roads(rng: Random, where: Places) -> Iterator[tuple[tuple[str, str], Road]]:
    for a in where:
        for b in where:
            if a == b:
                continue
            if rng.random() < 0.04:  # as between islands
                yield (a, b), Road("", "")
                continue
            distance = _kilometres(where, a, b)
            hours, minutes = divmod(distance * 60 // 95, 60)
            days, hours = divmod(hours, 24)
            duration = f"{days} day {hours} hours" if days else f"{hours} hours {minutes} mins"
            yield (a, b), Road(duration, f"{distance:,} km")


@dataclass(frozen=True, slots=True)
class Timetable:
    """Flights that exist when they are asked for. Their numbers say where they are found."""

    name: str
    size: Size
    cities: Sequence[str]
    where: Places

    def between(self, origin: str, destination: str, date: str) -> Sequence[Flight]:
        known = {origin, destination} <= self.where.keys() and date in DATES
        return _flights(self.name, origin, destination, date) if known else ()

    def numbered(self, number: str) -> Sequence[Flight]:
        digits = number.removeprefix("F")
        if len(number) != 8 or not (digits.isascii() and digits.isdecimal()):
            return ()
        route, day = divmod(int(digits) // 10, 1 if self.size.daily else len(DATES))
        a, b = divmod(route, len(self.cities))
        if a >= len(self.cities):
            return ()
        found = self.between(self.cities[a], self.cities[b], DATES[day])
        return [flight for flight in found if flight.number == number]

    def all(self) -> Iterator[Flight]:
        """Every flight of the month."""
        for a in self.cities:
            for b in self.cities:
                for date in DATES:
                    yield from self.between(a, b, date)


@cache
def _flights(name: str, origin: str, destination: str, date: str) -> Sequence[Flight]:
    table = country(name).flights
    assert isinstance(table, Timetable)
    size, cities, where = table.size, table.cities, table.where
    rng = Random(f"{name} {origin} {destination}")
    if origin == destination or rng.random() > size.airports:
        return ()
    if not size.daily:
        rng = Random(f"{name} {origin} {destination} {date}")
    miles = _kilometres(where, origin, destination) * 0.62 / 1.25
    route = cities.index(origin) * len(cities) + cities.index(destination)
    place = route if size.daily else route * len(DATES) + DATES.index(date)
    found = []
    for k in range(rng.choice((1, 2)) if size.short else rng.choice((0, 1, 1, 2, 3, 4))):
        leave = rng.randrange(5 * 60, 22 * 60)
        lasts = 35 + round(miles / 7.5) + rng.randrange(20)
        found.append(
            Flight(
                f"F{place * 10 + k:07}",
                30 + round(miles * rng.uniform(0.1, 0.4)),
                _clock(leave),
                _clock(leave + lasts),
                f"{lasts // 60} hours {lasts % 60} minutes",
                date,
                origin,
                destination,
                float(round(miles)),
            )
        )
    return tuple(found)


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"
