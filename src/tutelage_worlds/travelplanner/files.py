"""TravelPlanner's own files, read from a folder and checked before anything is played.

Two layouts are known by what lies in the folder:

database/train_ref_info.jsonl   as in a clone of the repository, with std_travelplanner.jsonl of
                                its `finetuning_data` (both may lie in the folder itself, the latter
                                also as train_gold_plans.jsonl): the 45 tasks for training, over
                                what their reference information tells
database/flights/, ...          the database that the repository's README links to, with the
                                queries as train.csv, validation.csv or the same as .jsonl, columns
                                as in the data set osunlp/TravelPlanner
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from tutelage.errors import EnvError
from tutelage_worlds.travelplanner import database, itinerary, queries, sentences
from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.query import LEVELS
from tutelage_worlds.travelplanner.records import lines, rows_of
from tutelage_worlds.travelplanner.tables import (
    Attraction,
    Flight,
    Hotel,
    Listed,
    Restaurant,
    Road,
    World,
)

REFERENCE: Final = "train_ref_info.jsonl"
GOLD: Final = ("std_travelplanner.jsonl", "train_gold_plans.jsonl")
HOW: Final = (
    "get it with `git clone https://github.com/OSU-NLP-Group/TravelPlanner`, which has the queries "
    "for training, and for others put its database and train.csv or validation.csv into the folder"
)
Splits = Mapping[str, tuple[Trip, ...]]


@cache
def load(folder: str) -> Splits:
    """The tasks of a folder by split, read once in a process.

    Raises EnvError, naming file, place and fix, for what is missing or does not fit.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise EnvError(f"there is no folder {folder} with TravelPlanner's data; {HOW}")
    if any(queries.files(root)):
        return queries.splits(root, database.world(root, HOW))
    told = _first(root, REFERENCE, f"database/{REFERENCE}")
    if told is None:
        raise EnvError(f"{folder} has neither {REFERENCE} nor validation.csv; {HOW}")
    gold = _first(root, *GOLD, *(f"finetuning_data/{name}" for name in GOLD))
    if gold is None:
        raise EnvError(f"{folder} has no {GOLD[0]} to go with {REFERENCE}; {HOW}")
    return {"train": tuple(_training(told, gold))}


def _first(root: Path, *names: str) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _training(told: Path, gold: Path) -> Iterator[Trip]:
    known, plans = list(lines(told)), list(lines(gold))
    if len(known) != len(plans):
        raise EnvError(
            f"{gold} has {len(plans)} tasks and {REFERENCE} {len(known)}; get both files again"
        )
    said_of = [_messages(plan, f"{gold}:{k}") for k, plan in enumerate(plans, 1)]
    world = _world(told, known, [made for _, made in said_of])
    for k, (entry, (said, made)) in enumerate(zip(known, said_of, strict=True)):
        where = f"{gold}:{k + 1}"
        route = [name.removeprefix("Attractions in ") for name in entry if name.startswith("Attr")]
        information, _, text = said.removeprefix("Given Information:").rpartition("\nQuery:")
        try:
            query = sentences.read(
                text.strip(), level=LEVELS[3 * k // len(known)], route=route,
                org=_origin(entry), dates=_dates(entry), state=world.states[route[0]],
            )  # fmt: skip
        except (ValueError, LookupError) as wrong:
            raise EnvError(f"{where}: its query cannot be used ({wrong}); get it again") from None
        yield Trip(world=world, query=query, route=tuple(route), gold=made, information=information)


def _messages(told: Any, where: str) -> tuple[str, itinerary.Itinerary]:
    """What the planner was told, and its answer."""
    try:
        said = {message["role"]: message["content"] for message in told["messages"]}
        plan = itinerary.read(said["assistant"])
        if plan is not None:
            return said["user"], plan
    except (KeyError, TypeError, AttributeError):
        pass
    raise EnvError(f"{where} is no conversation that ends with a plan; get the file again")


def _legs(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in entry:
        if name.startswith("Flight from "):
            cities, _, day = name.removeprefix("Flight from ").rpartition(" on ")
            origin, _, destination = cities.partition(" to ")
            yield origin, destination, day


def _origin(entry: Mapping[str, Any]) -> str:
    return next(_legs(entry))[0]


def _dates(entry: Mapping[str, Any]) -> list[str]:
    days = [date.fromisoformat(day) for _, _, day in _legs(entry)]
    return [(days[0] + timedelta(k)).isoformat() for k in range((days[-1] - days[0]).days + 1)]


def _states(plans: Iterable[itinerary.Itinerary]) -> dict[str, str]:
    """The states of cities, which plans of several cities write as "Elm(Ohio)"."""
    found = {}
    for day in (day for plan in plans for day in plan if day):
        for city in itinerary.cities_of(day.get("current_city") or "") or ():
            name, _, state = city.partition("(")
            if state:
                found[name] = state.rstrip(") ")
    return found


def _world(path: Path, known: list[Any], plans: Iterable[itinerary.Itinerary]) -> World:
    attractions: dict[str, tuple[Attraction, ...]] = {}
    restaurants: dict[str, tuple[Restaurant, ...]] = {}
    hotels: dict[str, tuple[Hotel, ...]] = {}
    flights: dict[Flight, None] = {}
    roads: dict[tuple[str, str], Road] = {}
    cities: dict[str, str] = {}
    for k, entry in enumerate(known, 1):
        if not isinstance(entry, dict) or not any(_legs(entry)):
            raise EnvError(f"{path}:{k} is no reference information; get the file again")
        for name, content in entry.items():
            where = f"{path}:{k}, {name!r}"
            kind, _, city = name.partition(" in ")
            if kind == "Attractions":
                attractions[city] = rows_of(Attraction, content, where)
            elif kind == "Restaurants":
                restaurants[city] = rows_of(Restaurant, content, where)
            elif kind == "Accommodations":
                hotels[city] = rows_of(Hotel, content, where)
            elif kind.startswith("Flight from "):
                flights.update(dict.fromkeys(rows_of(Flight, content, where)))
            elif kind.startswith(("Self-driving from ", "Taxi from ")):
                ends, road = _road(kind.partition(" from ")[2], content, where)
                if road.usable or ends not in roads:
                    roads[ends] = road
        cities.update(dict.fromkeys((c for leg in _legs(entry) for c in leg[:2]), ""))
    cities.update({city: state for city, state in _states(plans).items() if city in cities})
    return World(
        name="train", states=cities, cities=tuple(cities), attractions=attractions,
        restaurants=restaurants, hotels=hotels, roads=roads, flights=Listed(tuple(flights)),
    )  # fmt: skip


def _road(cities: str, content: Any, where: str) -> tuple[tuple[str, str], Road]:
    origin, _, destination = cities.partition(" to ")
    if not isinstance(content, str):
        raise EnvError(f"{where} must be a text; get the file again")
    parts = dict(part.partition(": ")[::2] for part in content.replace(", cost", "; cost")
                 .replace(", distance", "; distance").replace(", duration", "; duration")
                 .split("; "))  # fmt: skip
    road = Road(parts.get("duration", ""), parts.get("distance", ""))
    return (origin, destination), road
