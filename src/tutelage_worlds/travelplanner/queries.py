"""TravelPlanner's queries, as the data set osunlp/TravelPlanner has them: train.csv,
validation.csv, or the same as JSON lines."""

import ast
import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tutelage.errors import EnvError
from tutelage_worlds.travelplanner import itinerary
from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.query import DAYS, LEVELS, ROOMS, RULES, TRANSPORT, Query
from tutelage_worlds.travelplanner.records import lines
from tutelage_worlds.travelplanner.tables import World

SPLITS: Final = ("train", "validation", "test")
COLUMNS: Final = ("query", "level", "org", "dest", "days", "visiting_city_number", "date",
                  "people_number", "local_constraint", "budget",
                  "reference_information")  # fmt: skip
_WISHES: Final[Mapping[str, tuple[str, ...]]] = {
    "house rule": RULES, "room type": ROOMS, "transportation": TRANSPORT,
}  # fmt: skip
_ROUTE: Final = re.compile(r"Attractions in ([^'\"\\]+)")


def files(root: Path) -> list[Path]:
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
        for path in files(root)
    }


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    limit = csv.field_size_limit(2**30)  # reference information is one cell
    try:
        with path.open(encoding="utf-8", newline="") as file:
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
        query = _query(entry)
    except (TypeError, ValueError, SyntaxError, KeyError) as wrong:
        raise EnvError(f"{where} cannot be used ({wrong}); get the file again") from None
    information = str(entry["reference_information"])
    route = tuple(dict.fromkeys(_ROUTE.findall(information)))
    if len(route) != query.cities:
        raise EnvError(
            f"{where} is about {query.cities} cities, but its reference_information tells of "
            f"{len(route)}; get the file again"
        )
    return Trip(
        world=world, query=query, route=route, information=information,
        gold=_gold(entry.get("annotated_plan")),
    )  # fmt: skip


def _read(value: Any) -> Any:
    return ast.literal_eval(value) if isinstance(value, str) else value


def _query(entry: Mapping[str, Any]) -> Query:
    wishes, dates = _read(entry["local_constraint"]), _read(entry["date"])
    for name, known in _WISHES.items():
        if wishes[name] not in (None, *known):
            raise ValueError(
                f"its {name} is {wishes[name]!r} and must be one of {', '.join(known)}"
            )
    cuisines = wishes["cuisine"] or []
    days, level = int(entry["days"]), entry["level"]
    if days not in DAYS or level not in LEVELS or len(dates) != days:
        raise ValueError(f"{days} days, {len(dates)} dates and the level {level!r} do not fit")
    if len(set(cuisines)) != len(cuisines):
        raise ValueError("a cuisine is named twice")
    numbers = [int(entry[name]) for name in ("visiting_city_number", "people_number", "budget")]
    if min(numbers) < 1:
        raise ValueError("cities, people and budget must be at least 1")
    cities, people, budget = numbers
    return Query(
        text=entry["query"], level=level, org=entry["org"], dest=entry["dest"], days=days,
        cities=cities, dates=tuple(dates), people=people, budget=budget,
        rule=wishes["house rule"], room=wishes["room type"],
        transport=wishes["transportation"], cuisines=tuple(cuisines),
    )  # fmt: skip


def _gold(text: Any) -> itinerary.Itinerary | None:
    """The annotators' plan: a list of days, the query's own record before them."""
    made = _read(text) if text else None
    if isinstance(made, list) and made and isinstance(made[-1], list):
        made = made[-1]
    return itinerary.valid(made)
