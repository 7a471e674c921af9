"""Read and check TravelPlanner's own files.

Two layouts are known by what lies in the folder:

database/train_ref_info.jsonl   as in a clone of the repository, with std_travelplanner.jsonl of
                                its `finetuning_data` (both may lie in the folder itself, the latter
                                also as train_gold_plans.jsonl): the 45 tasks for training, over
                                what their reference information tells
database/flights/, ...          the database that the repository's README links to, with the
                                queries as train.csv, validation.csv or the same as .jsonl, columns
                                as in the data set osunlp/TravelPlanner
"""

import ast
import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from tutelage.errors import EnvError, first_line
from tutelage_worlds.read_once import read_once
from tutelage_worlds.travelplanner import database, itinerary
from tutelage_worlds.travelplanner.database import lines, road, rows_of
from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.query import (
    CUISINES,
    DAYS,
    LEVELS,
    ROOMS,
    RULES,
    TRANSPORT,
    Query,
)
from tutelage_worlds.travelplanner.sentences import from_sentence
from tutelage_worlds.travelplanner.tables import (
    Attraction,
    Flight,
    Hotel,
    Listed,
    Restaurant,
    Road,
    World,
)

# -- queries as the data set osunlp/TravelPlanner has them: CSV, or the same as JSON lines

SPLITS: Final = ("train", "validation", "test")
COLUMNS: Final = (
    "query",
    "level",
    "org",
    "dest",
    "days",
    "visiting_city_number",
    "date",
    "people_number",
    "local_constraint",
    "budget",
    "reference_information",
)
_WISHES: Final[Mapping[str, tuple[str, ...]]] = {
    "house rule": RULES,
    "room type": ROOMS,
    "transportation": TRANSPORT,
}
_ROUTE: Final = re.compile(r"Attractions in ([^'\"\\]+)")


def query_files(root: Path) -> list[Path]:
    """The queries that lie in a folder, a file for each split."""
    found = [
        [path for path in (root / f"{split}.csv", root / f"{split}.jsonl") if path.is_file()]
        for split in SPLITS
    ]
    return [paths[0] for paths in found if paths]


def splits(root: Path, world: World) -> dict[str, tuple[Trip, ...]]:
    """The queries of each split."""
    return {
        path.stem: tuple(
            _trip(world, entry, f"{path}, query {k}")
            for k, entry in enumerate(_csv(path) if path.suffix == ".csv" else lines(path), 1)
        )
        for path in query_files(root)
    }


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    limit = csv.field_size_limit(2**30)  # reference information is one cell
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EnvError(f"{path} could not be read ({error}); get the file again") from None
    finally:
        csv.field_size_limit(limit)


def _trip(world: World, entry: Any, where: str) -> Trip:
    if not isinstance(entry, Mapping):
        raise EnvError(f"{where} must be an object; get the file again")
    missing = [name for name in COLUMNS if entry.get(name) in (None, "")]
    if missing:
        raise EnvError(
            f"{where} has no {missing[0]!r}; only queries with their constraints can be played, so "
            "take train or validation, and hand plans for test in at TravelPlanner's leaderboard"
        )
    try:
        query = _fitting(_query(entry))
    except _UNFIT as wrong:
        raise EnvError(f"{where} cannot be used ({_words(wrong)}); get the file again") from None
    information = str(entry["reference_information"])
    route = tuple(dict.fromkeys(_ROUTE.findall(information)))
    if len(route) != query.cities:
        raise EnvError(
            f"{where} is about {query.cities} cities, but its reference_information tells of "
            f"{len(route)}; get the file again"
        )
    return Trip(
        world=world,
        query=query,
        route=route,
        information=information,
        gold=_gold(entry.get("annotated_plan")),
    )


_UNFIT: Final = (
    TypeError,
    ValueError,
    OverflowError,
    SyntaxError,
    LookupError,
    AttributeError,
    MemoryError,
    RecursionError,
)
"""What reading a value of another type, or a literal that is none, may raise."""


def _words(error: BaseException) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else first_line(error)


def _read(value: Any) -> Any:
    return ast.literal_eval(value) if isinstance(value, str) else value


def _fitting(query: Query) -> Query:
    """The query, if it can be played. Raises ValueError."""
    for name in ("text", "org", "dest"):
        if not isinstance(getattr(query, name), str):
            raise ValueError(f"its {name} is {getattr(query, name)!r} and must be a text")
    if query.days not in DAYS or query.level not in LEVELS or len(query.dates) != query.days:
        raise ValueError(
            f"{query.days} days, {len(query.dates)} dates and the level {query.level!r} do not fit"
        )
    for day in query.dates:
        date.fromisoformat(day)
    if len(set(query.cuisines)) != len(query.cuisines):
        raise ValueError("a cuisine is named twice")
    if unknown := [cuisine for cuisine in query.cuisines if cuisine not in CUISINES]:
        raise ValueError(f"its cuisine {unknown[0]!r} must be one of {', '.join(CUISINES)}")
    if min(query.cities, query.people, query.budget) < 1:
        raise ValueError("cities, people and budget must be at least 1")
    return query


def _query(entry: Mapping[str, Any]) -> Query:
    wishes, dates = _read(entry["local_constraint"]), _read(entry["date"])
    for name, known in _WISHES.items():
        if wishes[name] not in (None, *known):
            raise ValueError(
                f"its {name} is {wishes[name]!r} and must be one of {', '.join(known)}"
            )
    return Query(
        text=entry["query"],
        level=entry["level"],
        org=entry["org"],
        dest=entry["dest"],
        days=int(entry["days"]),
        cities=int(entry["visiting_city_number"]),
        dates=tuple(dates),
        people=int(entry["people_number"]),
        budget=int(entry["budget"]),
        rule=wishes["house rule"],
        room=wishes["room type"],
        transport=wishes["transportation"],
        cuisines=tuple(wishes["cuisine"] or ()),
    )


def _gold(text: Any) -> itinerary.Itinerary | None:
    """The annotators' plan: a list of days, the query's own record before them."""
    days = itinerary.literal(text) if isinstance(text, str) else text
    if isinstance(days, list) and days and isinstance(days[-1], list):
        days = days[-1]
    return itinerary.valid(days)


# -- a folder

REFERENCE: Final = "train_ref_info.jsonl"
GOLD: Final = ("std_travelplanner.jsonl", "train_gold_plans.jsonl")
HOW: Final = (
    "get it with `git clone https://github.com/OSU-NLP-Group/TravelPlanner`, which has the queries "
    "for training, and for others put its database and train.csv or validation.csv into the folder"
)
Splits = Mapping[str, tuple[Trip, ...]]


@read_once(8)
def load(folder: str) -> Splits:
    """The tasks of a folder by split, read once in a process.

    Raises EnvError, naming file, place and fix, for what is missing or does not fit.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise EnvError(f"there is no folder {folder} with TravelPlanner's data; {HOW}")
    if any(query_files(root)):
        return splits(root, database.world(root, HOW))
    reference = _first(root, REFERENCE, f"database/{REFERENCE}")
    if reference is None:
        raise EnvError(f"{folder} has neither {REFERENCE} nor validation.csv; {HOW}")
    gold = _first(root, *GOLD, *(f"finetuning_data/{name}" for name in GOLD))
    if gold is None:
        raise EnvError(f"{folder} has no {GOLD[0]} to go with {REFERENCE}; {HOW}")
    return {"train": tuple(_training(reference, gold))}


def _first(root: Path, *names: str) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _training(reference: Path, gold: Path) -> Iterator[Trip]:
    known, plans = list(lines(reference)), list(lines(gold))
    if len(known) != len(plans):
        raise EnvError(
            f"{gold} has {len(plans)} tasks and {REFERENCE} {len(known)}; get both files again"
        )
    messages = [_messages(plan, f"{gold}:{k}") for k, plan in enumerate(plans, 1)]
    world = _world(reference, known, [gold_plan for _, gold_plan in messages])
    for k, (entry, (prompt, gold_plan)) in enumerate(zip(known, messages, strict=True)):
        where = f"{gold}:{k + 1}"
        route = [name.removeprefix("Attractions in ") for name in entry if name.startswith("Attr")]
        information, _, text = prompt.removeprefix("Given Information:").rpartition("\nQuery:")
        try:
            query = from_sentence(
                text.strip(),
                level=LEVELS[3 * k // len(known)],
                route=route,
                org=_origin(entry),
                dates=_dates(entry),
                state=world.states[route[0]],
            )
            _fitting(query)
        except _UNFIT as wrong:
            raise EnvError(
                f"{where}: its query cannot be used ({_words(wrong)}); get it again"
            ) from None
        yield Trip(
            world=world, query=query, route=tuple(route), gold=gold_plan, information=information
        )


def _messages(entry: Any, where: str) -> tuple[str, itinerary.Itinerary]:
    """The planner's prompt, and its answer."""
    try:
        contents = {message["role"]: message["content"] for message in entry["messages"]}
        plan, prompt = itinerary.read(contents["assistant"]), contents["user"]
        if plan is not None and isinstance(prompt, str):
            return prompt, plan
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
                ends, way = _road(kind.partition(" from ")[2], content, where)
                if way.usable or ends not in roads:
                    roads[ends] = way
        cities.update(dict.fromkeys((c for leg in _legs(entry) for c in leg[:2]), ""))
    cities.update({city: state for city, state in _states(plans).items() if city in cities})
    return World(
        name="train",
        states=cities,
        cities=tuple(cities),
        attractions=attractions,
        restaurants=restaurants,
        hotels=hotels,
        roads=roads,
        flights=Listed(tuple(flights)),
    )


def _road(cities: str, content: Any, where: str) -> tuple[tuple[str, str], Road]:
    origin, _, destination = cities.partition(" to ")
    if not isinstance(content, str):
        raise EnvError(f"{where} must be a text; get the file again")
    parts = dict(
        part.partition(": ")[::2]
        for part in content.replace(", cost", "; cost")
        .replace(", distance", "; distance")
        .replace(", duration", "; duration")
        .split("; ")
    )
    way = road(parts.get("duration", ""), parts.get("distance", ""), where)
    return (origin, destination), way
