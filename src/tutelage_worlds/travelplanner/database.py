"""TravelPlanner's database: read it from a folder, and write it in its format.

The flights are 3.8 million, so they are put into a file beside the table, once:

    python -m tutelage_worlds.travelplanner FOLDER
"""

import csv
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from tutelage.errors import EnvError
from tutelage_worlds.json_text import parse
from tutelage_worlds.travelplanner.tables import (
    HEADERS,
    Attraction,
    Flight,
    Flights,
    Hotel,
    Listed,
    Restaurant,
    Road,
    Row,
    World,
)

Kind = TypeVar("Kind", bound=Row)


def lines(path: Path) -> Iterator[Any]:
    """The values of a file of JSON lines. Raises EnvError for what is not JSON."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for k, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield parse(line)
                    except ValueError as error:
                        raise EnvError(f"{path}:{k} is not JSON ({error}); get it again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unread(path, error) from None


def _unread(path: Path, error: Exception) -> EnvError:
    return EnvError(f"{path} could not be read ({error}); get the file again")


def rows_of(kind: type[Kind], content: Any, where: str) -> tuple[Kind, ...]:
    """The rows of a table; a text in its place says that there are none."""
    if isinstance(content, str):
        return ()
    if not isinstance(content, list):
        raise EnvError(f"{where} must be a list of objects; get the file again")
    return tuple(row(kind, entry, f"{where}, entry {k}") for k, entry in enumerate(content))


def row(kind: type[Kind], entry: Any, where: str) -> Kind:
    """A record under its columns' names."""
    if not isinstance(entry, Mapping):
        raise EnvError(f"{where} must be an object; get the file again")
    hints = get_type_hints(kind)
    values = []
    for name, column in zip(kind._fields, HEADERS[kind], strict=True):
        if column not in entry:
            raise EnvError(f"{where} has no {column!r}; get the file again")
        values.append(_value(entry[column], hints[name], f"{where}, {column!r}"))
    found = kind(*values)
    if isinstance(found, Hotel) and found.maximum_occupancy < 1:
        raise EnvError(
            f"{where}, 'maximum occupancy' is {found.maximum_occupancy} and must be at least 1; "
            "get the file again"
        )
    return found


def _value(value: Any, kind: type, where: str) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if kind is not str and isinstance(value, int | float) and not isinstance(value, bool):
        # a comparison that is false for what is no number, and infinite in JSON
        converted = kind(value) if abs(value) < LARGEST else None
        if converted == value:
            return converted
    raise EnvError(f"{where} is {value!r} and must be a {kind.__name__}; get the file again")


LARGEST: Final = 2**53
"""Numbers below it are the same as integers and in floating point."""
PATHS: Final[Mapping[type[Row], str]] = {
    Attraction: "attractions/attractions.csv",
    Restaurant: "restaurants/clean_restaurant_2022.csv",
    Hotel: "accommodations/clean_accommodations_2022.csv",
    Flight: "flights/clean_Flights_2022.csv",
}
ROADS: Final = "googleDistanceMatrix/distance.csv"
STATES: Final = "background/citySet_with_states.txt"
CITIES: Final = "background/citySet.txt"
INDEX: Final = "flights/flights.sqlite"
IN_MEMORY: Final = 50_000_000
"""Bytes of a table of flights that is still read into memory."""
MISSING: Final = frozenset(
    (
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    )
)
"""Cells that TravelPlanner takes for empty; rows with one are left out, whichever column it is."""
R = TypeVar("R", Attraction, Restaurant, Hotel, Flight)


def world(root: Path, how: str) -> World:
    """The tables of a folder, or of `database` in it."""
    folder = root / "database" if (root / "database").is_dir() else root
    for path in (*PATHS.values(), ROADS, STATES):
        if not (folder / path).is_file():
            raise EnvError(f"there is no {path} in {folder}; {how}")
    states = dict(_pairs(folder / STATES))
    listed = folder / CITIES
    names = _text_lines(listed) if listed.is_file() else list(states)
    roads: dict[tuple[str, str], Road] = {}
    for where, cells in _cells(folder / ROADS, ("origin", "destination", "duration", "distance")):
        ends = (cells["origin"], cells["destination"])
        roads.setdefault(ends, road(cells["duration"], cells["distance"], where))
    return World(
        name=folder.name,
        states=states,
        cities=tuple(name.strip() for name in names if name.strip()),
        attractions=_by_city(table(Attraction, folder)),
        restaurants=_by_city(table(Restaurant, folder)),
        hotels=_by_city(table(Hotel, folder)),
        roads=roads,
        flights=_flights(folder),
    )


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unread(path, error) from None


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for k, line in enumerate(_text_lines(path), 1):
        if line.strip():
            city, tab, state = line.rstrip("\r").partition("\t")
            if not tab:
                raise EnvError(f"{path}:{k} must be a city, a tab and a state; get the file again")
            yield city, state


def road(duration: str, distance: str, where: str) -> Road:
    """A road; of nothing where one of both is missing. Raises EnvError for no distance."""
    found = Road(duration, distance)
    if duration in MISSING or distance in MISSING:
        return Road("", "")
    try:
        found.cost("taxi")
    except (ValueError, OverflowError):
        raise EnvError(
            f"{where} has a distance of {distance!r}, which is not like '1,290 km'; get it again"
        ) from None
    return found


def _cells(path: Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row of a table stands, and its cells by column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise EnvError(f"{path} has no column {column!r}; get the file again")
            for cells in reader:
                yield f"{path}:{reader.line_num}", cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unread(path, error) from None


def table(kind: type[R], folder: Path) -> Iterator[R]:
    """The rows of a table that lack nothing."""
    for where, cells in _cells(folder / PATHS[kind], HEADERS[kind]):
        if None in cells or not MISSING.isdisjoint(cells.values()):
            continue
        yield row(
            kind,
            {
                name: _number(cells[name]) if _counts(kind, name) else cells[name]
                for name in HEADERS[kind]
            },
            where,
        )


def _counts(kind: type[Row], column: str) -> bool:
    field = kind._fields[HEADERS[kind].index(column)]
    return kind.__annotations__[field] is not str


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


C = TypeVar("C", Attraction, Restaurant, Hotel)


def _by_city(rows: Iterable[C]) -> dict[str, tuple[C, ...]]:
    found: dict[str, list[C]] = {}
    for record in rows:
        found.setdefault(record.city, []).append(record)
    return {city: tuple(its) for city, its in found.items()}


# -- flights


@dataclass(frozen=True, slots=True)
class Indexed:
    """Flights in a file, which every process opens for itself."""

    path: str

    def between(self, origin: str, destination: str, date: str) -> list[Flight]:
        where = "origin = ? and destination = ? and date = ?"
        return self._select(where, (origin, destination, date))

    def numbered(self, number: str) -> list[Flight]:
        return self._select("number = ?", (number,))

    def _select(self, where: str, values: tuple[str, ...]) -> list[Flight]:
        try:
            found = _open(self.path).execute(
                f"select * from flights where {where} order by rowid", values
            )
            return [Flight(*cells) for cells in found]
        except UnicodeEncodeError:  # half a character, which no flight has in its name
            return []
        except (sqlite3.Error, TypeError) as error:
            raise _unindexed(self.path, error) from None


@lru_cache(maxsize=8)
def _open(path: str) -> sqlite3.Connection:
    address = f"{Path(path).absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


def _unindexed(path: str, why: object) -> EnvError:
    folder = Path(path).parents[1]
    return EnvError(
        f"{path} holds no flights that can be searched ({why}); remove it, and index them again: "
        f"python -m tutelage_worlds.travelplanner {folder}"
    )


def _mark(table: Path) -> int:
    """What an index remembers of its table: the size, as far as SQLite has room for it."""
    return table.stat().st_size & 0x7FFFFFFF


def _flights(folder: Path) -> Flights:
    if (folder / INDEX).is_file():
        found = Indexed(str(folder / INDEX))
        found.numbered("")
        (mark,) = _open(found.path).execute("pragma user_version").fetchone()
        if mark not in (0, _mark(folder / PATHS[Flight])):
            raise _unindexed(found.path, "it was made of another table")
        return found
    if (folder / PATHS[Flight]).stat().st_size > IN_MEMORY:
        raise EnvError(
            f"the flights in {folder} are too many to be read each time; index them once: "
            f"python -m tutelage_worlds.travelplanner {folder}"
        )
    return Listed(tuple(table(Flight, folder)))


def index(folder: Path) -> int:
    """Put the flights of a database into a file that is quick to search; how many there are."""
    partial = folder / f"{INDEX}.partial"
    partial.unlink(missing_ok=True)
    try:
        count = _indexed(folder, partial)
    except sqlite3.Error as error:
        raise EnvError(
            f"{partial} cannot be written ({error}); name a folder that can be written, with room "
            "for another copy of the flights"
        ) from None
    partial.rename(folder / INDEX)
    return count


def _indexed(folder: Path, partial: Path) -> int:
    with closing(sqlite3.connect(partial)) as connection, connection:
        connection.execute(
            "create table flights (number text, price integer, departure text, arrival text, "
            "elapsed text, date text, origin text, destination text, distance real)"
        )
        marks = ", ".join("?" * len(Flight._fields))
        connection.executemany(f"insert into flights values ({marks})", table(Flight, folder))
        connection.execute("create index routes on flights (origin, destination, date)")
        connection.execute("create index numbers on flights (number)")
        connection.execute(f"pragma user_version = {_mark(folder / PATHS[Flight])}")
        count: int = connection.execute("select count(*) from flights").fetchone()[0]
    return count


# -- writing


def write(world: World, flights: Iterable[Flight], folder: Path) -> None:
    """A world in the format of TravelPlanner's database."""
    everything: dict[type[Row], Iterable[Row]] = {
        Attraction: (record for rows in world.attractions.values() for record in rows),
        Restaurant: (record for rows in world.restaurants.values() for record in rows),
        Hotel: (record for rows in world.hotels.values() for record in rows),
        Flight: flights,
    }
    for kind, rows in everything.items():
        _write(folder / PATHS[kind], HEADERS[kind], rows)
    roads = ((*ends, "", *road) for ends, road in world.roads.items())
    _write(folder / ROADS, ("origin", "destination", "cost", "duration", "distance"), roads)
    (folder / "background").mkdir(parents=True, exist_ok=True)
    (folder / CITIES).write_text("\n".join(world.cities), encoding="utf-8")
    pairs = "\n".join(f"{city}\t{state}" for city, state in world.states.items())
    (folder / STATES).write_text(pairs, encoding="utf-8")


def _write(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
