"""TravelPlanner's files: its training tasks where they are at hand, its database's format, and what
can be wrong in them."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.travelplanner_plans import DATA

from tutelage.envs.check import check
from tutelage.errors import EnvError
from tutelage_worlds.travelplanner import TravelPlanner, database, judge, needs, rates
from tutelage_worlds.travelplanner.__main__ import main
from tutelage_worlds.travelplanner.database import PATHS
from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.files import load
from tutelage_worlds.travelplanner.generate import Timetable
from tutelage_worlds.travelplanner.hard import cost
from tutelage_worlds.travelplanner.itinerary import literal, write
from tutelage_worlds.travelplanner.requests import FAMILIES, trip
from tutelage_worlds.travelplanner.sentences import people
from tutelage_worlds.travelplanner.solver import cheapest, solve
from tutelage_worlds.travelplanner.tables import Flight, Restaurant
from tutelage_worlds.travelplanner.texts import reference, split

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"TravelPlanner's training data are not in {DATA}"
)


@pytest.fixture(scope="module")
def training() -> tuple[Trip, ...]:
    return load(str(DATA))["train"]


# -- the 45 tasks for training


@needs_data
def test_all_gold_plans_pass(training: tuple[Trip, ...]) -> None:
    verdicts = [judge(one.world, one.query, one.gold) for one in training]
    found = rates(verdicts)
    assert len(verdicts) == 45
    assert (found.delivery, found.commonsense_micro, found.hard_micro, found.final_pass) == (1,) * 4
    # the number that TravelPlanner divides by
    assert sum(len(verdict.asked) for verdict in verdicts) == 105


@needs_data
def test_the_solver_passes_all_training_tasks_for_less(training: tuple[Trip, ...]) -> None:
    for one in training:
        found = solve(one.world, one.query, one.route, one.query.budget)
        least = cheapest(one.world, one.query, one.route)
        assert found is not None
        assert least is not None
        assert judge(one.world, one.query, found.plan).passed
        assert found.cost == cost(one.world, one.query, found.plan) <= one.query.budget
        assert least.cost <= found.cost


@needs_data
def test_queries_are_read_from_their_sentences(training: tuple[Trip, ...]) -> None:
    levels = [one.query.level for one in training]
    assert levels == ["easy"] * 15 + ["medium"] * 15 + ["hard"] * 15
    assert [one.query.days for one in training] == [3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 7, 7, 7, 7, 7] * 3
    people_of = [one.query.people for one in training]
    assert people_of == [1] * 15 + [2, 2, 8, 2, 2, 6, 4, 7, 2, 4, 4, 5, 2, 4, 2] + [
        2,
        3,
        2,
        2,
        5,
        3,
        7,
        3,
        2,
        5,
        5,
        4,
        2,
        2,
        2,
    ]
    some = training[30].query
    assert (some.org, some.dest, some.rule, some.room, some.transport) == (
        "Houston",
        "Fayetteville",
        "children under 10",
        None,
        "no self-driving",
    )
    assert some.cuisines == ("American", "Chinese", "French", "Mediterranean")
    assert training[40].query.room == "entire room"
    assert training[14].query.dest == "Wisconsin"
    for one in training:
        count = len(one.query.hard)
        assert count == {"easy": 1, "medium": 2, "hard": 4}[one.query.level], one.query
        assert one.query.org in one.query.text
        assert one.query.dest in one.query.text
        assert f"${one.query.budget:,}" in one.query.text


@needs_data
def test_tables_are_written_as_the_reference_information_has_them(
    training: tuple[Trip, ...],
) -> None:
    compared, moved = 0, list[tuple[str, str]]()
    for one in training:
        theirs = literal(one.information)
        ours = list(reference(one.world, one.query, one.route))
        elsewhere = [
            (entry["Description"], name)
            for entry, (name, _) in zip(theirs, ours, strict=True)
            if entry["Description"] != name
        ]
        moved += elsewhere
        for entry, (name, content) in zip(theirs, ours, strict=True):
            if name != entry["Description"]:
                continue
            if name.startswith("Restaurants"):  # these have the numbers of their rows in front
                assert split(entry["Content"], Restaurant) == split(content, Restaurant)
            else:
                assert entry["Content"] == content, name
            compared += 1
    # one query's reference information has the flights of the second and third day
    assert moved == [
        (f"Flight from {ends} on 2022-03-{given}", f"Flight from {ends} on 2022-03-{day}")
        for ends, given, day in (("Dallas to Houston", 11, 12), ("Houston to San Antonio", 12, 14))
    ]
    assert compared == 45 * 3 * 2 * 2 + 45 * 3 - len(moved)


@needs_data
@pytest.mark.parametrize("mode", ["sole", "two-stage"])
def test_training_tasks_are_played(mode: Any) -> None:
    suite = TravelPlanner(data=str(DATA), mode=mode)
    for finding in check(suite, ["train"], tasks=3):
        assert not finding.problems, finding
    tasks = suite.tasks("train")
    assert len(tasks) == 45
    first = {task.family: task.id for task in reversed(tasks)}
    assert {task.family for task in tasks[:9]} == {*first} == {*FAMILIES}
    assert first["medium-5"] == "travelplanner/train/0020"
    for task in tasks[::4]:
        for script in (suite.plan(task), suite.demonstrate(task)):
            env = suite.make()
            env.reset(task)
            assert [env.step(action) for action in script][-1].won
    easy = TravelPlanner(data=str(DATA), levels=["easy"], days=[3])
    assert len(easy.tasks("train")) == 5
    with pytest.raises(ValueError, match="no queries of a split 'test'; it has train"):
        suite.tasks("test")


def test_people_are_counted() -> None:
    for text, count in (
        ("a group of 4, from", 4),
        ("for two, starting", 2),
        ("for a pair, ", 2),
        ("three individuals", 3),
        ("a 3-day trip for me", 1),
        ("party of seven?", 7),
        ("7-day trip for one person", 1),
    ):
        assert people(text) == count


# -- the same in small


REFERENCE = {
    "Attractions in Elm": [
        {
            "Name": "Mill",
            "Latitude": 41.5,
            "Longitude": -80.0,
            "Address": "1 Mill St, Elm, OH",
            "Phone": "Unknown",
            "Website": "Unknown",
            "City": "Elm",
        }
    ],
    "Restaurants in Elm": [
        {
            "Name": f"Cafe {k}",
            "Average Cost": 10,
            "Cuisines": "Tea",
            "Aggregate Rating": 4,
            "City": "Elm",
        }
        for k in range(3)
    ],
    "Accommodations in Elm": [
        {
            "NAME": "Inn",
            "price": 50.0,
            "room type": "Private room",
            "house_rules": "No pets",
            "minimum nights": 1.0,
            "maximum occupancy": 2,
            "review rate number": 4.0,
            "city": "Elm",
        }
    ],
    "Flight from Ash to Elm on 2022-03-01": "There is no flight from Ash to Elm on 2022-03-01.",
    "Self-driving from Ash to Elm": (
        "self-driving, from Ash to Elm, duration: 2 hours, distance: 1,190 km, cost: 59"
    ),
    "Taxi from Ash to Elm": "No valid information.",
    "Flight from Elm to Ash on 2022-03-03": [
        {
            "Flight Number": "F2",
            "Price": 80,
            "DepTime": "08:00",
            "ArrTime": "09:00",
            "ActualElapsedTime": "1 hours 0 minutes",
            "FlightDate": "2022-03-03",
            "OriginCityName": "Elm",
            "DestCityName": "Ash",
            "Distance": 300.0,
        }
    ],
    "Self-driving from Elm to Ash": "No valid information.",
    "Taxi from Elm to Ash": "taxi, from Elm to Ash, duration: 1 day 2 hours, distance: 9 km, cost: 9",
}
GOLD = {
    "messages": [
        {"role": "system", "content": "?"},
        {"role": "user", "content": "Given Information:[]\nQuery:A trip for $500."},
        {"role": "assistant", "content": "[{'days': 1, 'current_city': 'from Ash to Elm(Ohio)'}]"},
    ]
}


def small(folder: Path, *, entry: Any = REFERENCE, gold: Any = GOLD) -> Path:
    (folder / "train_ref_info.jsonl").write_text(json.dumps(entry) + "\n")
    (folder / "std_travelplanner.jsonl").write_text(json.dumps(gold) + "\n\n")
    return folder


def test_small_files_are_read(tmp_path: Path) -> None:
    (one,) = load(str(small(tmp_path)))["train"]
    assert (one.query.org, one.query.dest, one.query.days, one.route) == ("Ash", "Elm", 3, ("Elm",))
    assert one.world.states == {"Ash": "", "Elm": "Ohio"}
    assert one.world.roads["Ash", "Elm"].cost("taxi") == 1190
    assert not one.world.roads["Elm", "Ash"].usable
    assert [flight.number for flight in one.world.flights.numbered("F2")] == ["F2"]
    assert one.query.dates == ("2022-03-01", "2022-03-02", "2022-03-03")
    assert one.information == "[]"


def test_tasks_for_training_come_by_level(tmp_path: Path) -> None:
    for name, one in (("train_ref_info.jsonl", REFERENCE), ("std_travelplanner.jsonl", GOLD)):
        (tmp_path / name).write_text(f"{json.dumps(one)}\n" * 6)
    found = [one.query.level for one in load(str(tmp_path))["train"]]
    assert found == ["easy", "easy", "medium", "medium", "hard", "hard"]


def without(key: str, name: str) -> Any:
    return {
        **REFERENCE,
        key: [{k: v for k, v in row.items() if k != name} for row in REFERENCE[key]],  # type: ignore[attr-defined]
    }


def with_cell(key: str, name: str, value: object) -> dict[str, Any]:
    first = REFERENCE[key][0]  # type: ignore[index]
    return {"entry": {**REFERENCE, key: [{**first, name: value}]}}  # type: ignore[dict-item]


def asking(prompt: object) -> dict[str, Any]:
    return {"gold": {"messages": [{"role": "user", "content": prompt}, GOLD["messages"][2]]}}


def flying(day: str) -> dict[str, Any]:
    """The way home on another day."""
    renamed = {key.replace("2022-03-03", day): value for key, value in REFERENCE.items()}
    return {"entry": renamed}


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"entry": []}, "is no reference information"),
    ({"entry": {"Restaurants in Elm": []}}, "is no reference information"),
    ({"entry": {**REFERENCE, "Restaurants in Elm": 5}}, "'Restaurants in Elm' must be a list"),
    ({"entry": {**REFERENCE, "Restaurants in Elm": [5]}}, "entry 0 must be an object"),
    ({"entry": {**REFERENCE, "Taxi from Ash to Elm": 5}}, "must be a text"),
    ({"entry": without("Restaurants in Elm", "Cuisines")}, "entry 0 has no 'Cuisines'"),
    (with_cell("Attractions in Elm", "Latitude", "far"), "'Latitude' is 'far' and must be a float"),
    (with_cell("Attractions in Elm", "Latitude", float("inf")), "'Latitude' is inf and must be a"),
    (
        with_cell("Restaurants in Elm", "Average Cost", 1.5),
        "'Average Cost' is 1.5 and must be a int",
    ),
    (
        with_cell("Restaurants in Elm", "Average Cost", float("nan")),
        "'Average Cost' is nan and must",
    ),
    (
        with_cell("Restaurants in Elm", "Average Cost", float("inf")),
        "'Average Cost' is inf and must",
    ),
    (with_cell("Accommodations in Elm", "price", 10**400), "000 and must be a float"),
    (with_cell("Accommodations in Elm", "maximum occupancy", 0), "is 0 and must be at least 1"),
    (
        {"entry": {**REFERENCE, "Taxi from Ash to Elm": "taxi, duration: 1 hour, distance: far"}},
        "has a distance of 'far'",
    ),
    (asking(["a", "list"]), "is no conversation"),
    (asking("Given Information:[]\nQuery:A trip for 0 people, for $500."), "must be at least 1"),
    (asking("Given Information:[]\nQuery:A trip for $,."), "its query cannot be used"),
    (flying("2022-02-30"), "its query cannot be used"),
    (flying("2022-02-27"), "0 days, 0 dates"),
    (flying("2022-03-04"), "4 days, 4 dates"),
    ({"gold": {}}, "std_travelplanner.jsonl:1 is no conversation that ends with a plan"),
    (
        {"gold": {"messages": [*GOLD["messages"][:2], {"role": "assistant", "content": "?"}]}},
        "is no conversation",
    ),
    (
        {
            "gold": {
                "messages": [
                    {"role": "user", "content": "Given Information:[]\nQuery:Free!"},
                    GOLD["messages"][2],
                ]
            }
        },
        "names no budget",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(EnvError) as error:
        load(str(small(tmp_path, **changes)))
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_the_doctor_is_told_what_the_data_are() -> None:
    assert [need.required for need in needs({})] == [False]
    (need,) = needs({"data": "/none"})
    assert need.missing
    assert need.get.startswith("git clone ")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"no folder .*nowhere.*git clone"):
        load(str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EnvError, match=r"has neither train_ref_info.jsonl nor validation.csv"):
        load(str(empty))
    (small(tmp_path) / "std_travelplanner.jsonl").unlink()
    with pytest.raises(EnvError, match="has no std_travelplanner"):
        load(str(tmp_path))
    (tmp_path / "train_gold_plans.jsonl").write_text("{\n")
    with pytest.raises(EnvError, match=r"jsonl:1 is not JSON"):
        load(str(tmp_path))
    (tmp_path / "train_gold_plans.jsonl").write_text("{}\n{}\n")
    load.cache_clear()
    with pytest.raises(EnvError, match=r"has 2 tasks and train_ref_info.jsonl 1"):
        load(str(tmp_path))


# -- the whole database


def entry(one: Trip) -> dict[str, Any]:
    """A query as osunlp/TravelPlanner has it."""
    query = one.query
    wishes = {
        "house rule": query.rule,
        "cuisine": list(query.cuisines) or None,
        "room type": query.room,
        "transportation": query.transport,
    }
    gold = solve(one.world, query, one.route, query.budget)
    assert gold is not None
    return {
        "org": query.org,
        "dest": query.dest,
        "days": query.days,
        "level": query.level,
        "visiting_city_number": query.cities,
        "date": str(list(query.dates)),
        "people_number": query.people,
        "local_constraint": str(wishes),
        "budget": query.budget,
        "query": query.text,
        "annotated_plan": str([{"org": query.org}, gold.plan]),
        "reference_information": one.known(),
    }


ENTRIES = [
    entry(trip("small", "train", k, family.partition("-")[0], int(family[-1])))
    for k, family in enumerate(FAMILIES)
]


def whole(folder: Path, entries: list[dict[str, Any]] | None = None) -> Path:
    """Our small country in TravelPlanner's format."""
    some = trip("small", "train", 0, "easy", 3).world
    assert isinstance(some.flights, Timetable)
    database.write(some, some.flights.all(), folder / "database")
    if entries is not None:
        with (folder / "validation.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ENTRIES[0]))
            writer.writeheader()
            writer.writerows(entries)
    return folder


@pytest.fixture(scope="module")
def country_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole(tmp_path_factory.mktemp("country"), ENTRIES)


def test_a_database_is_the_country_it_was_made_of(country_folder: Path) -> None:
    entries = load(str(country_folder))["validation"]
    for k, (one, family) in enumerate(zip(entries, FAMILIES, strict=True)):
        ours = trip("small", "train", k, family.partition("-")[0], int(family[-1]))
        assert replace(one, gold=None, information="", world=ours.world) == ours
        assert one.information == ours.known()
        for name in ("states", "cities", "hotels", "restaurants", "attractions", "roads"):
            assert getattr(one.world, name) == getattr(ours.world, name), name
        assert one.gold is not None
        assert judge(one.world, one.query, one.gold).passed
        assert list(reference(one.world, one.query, one.route)) == list(
            reference(ours.world, ours.query, ours.route)
        )
    suite = TravelPlanner(data=str(country_folder), mode="two-stage")
    for finding in check(suite, ["validation"], tasks=4):
        assert not finding.problems, finding


def test_of_two_rows_about_a_road_the_first_counts(tmp_path: Path) -> None:
    path = whole(tmp_path, ENTRIES[:1]) / "database" / database.ROADS
    with path.open(newline="") as file:
        first = next(row for row in csv.DictReader(file) if row["distance"])
    with path.open("a", newline="") as file:
        csv.DictWriter(file, list(first)).writerow({**first, "distance": "1 km"})
    (one,) = load(str(tmp_path))["validation"]
    assert one.world.roads[first["origin"], first["destination"]].distance == first["distance"]


def test_indexed_flights_are_the_same(tmp_path: Path) -> None:
    before = load(str(whole(tmp_path, ENTRIES[:1])))["validation"][0].world.flights
    main([str(tmp_path / "database")])
    load.cache_clear()
    after = load(str(tmp_path))["validation"][0].world.flights
    assert isinstance(after, database.Indexed)
    ours = trip("small", "train", 0, "easy", 3).world.flights
    assert isinstance(ours, Timetable)
    for flight in list(ours.all())[::40]:
        ends = (flight.origin, flight.destination, flight.date)
        assert (
            list(after.between(*ends)) == list(before.between(*ends)) == list(ours.between(*ends))
        )
        assert list(after.numbered(flight.number)) == list(before.numbered(flight.number))
    assert after.numbered("\ud800") == after.between("a", "b", "c") == []
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])


def test_large_tables_of_flights_must_be_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IN_MEMORY", 100)
    with pytest.raises(EnvError, match=r"index them once: python -m tutelage_worlds.travelplanner"):
        load(str(whole(tmp_path, ENTRIES[:1])))


def test_rows_that_lack_something_are_left_out(tmp_path: Path) -> None:
    path = whole(tmp_path, ENTRIES[:1]) / "database" / PATHS[Restaurant]
    rows = path.read_text().splitlines()
    city = rows[1].rpartition(",")[2]
    more = [f"None,5,Tea,4.5,{city}", f"x,,Tea,4.5,{city}", f'"x, y",5,Tea,4.5,{city}']
    path.write_text("\n".join([*rows, *more]))
    world = load(str(tmp_path))["validation"][0].world
    assert [row.name for row in world.restaurants[city]][-2:] == [
        [row.name for row in trip("small", "train", 0, "easy", 3).world.restaurants[city]][-1],
        "x, y",
    ]


def cell(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1))

    return change


def encoded(path: str) -> Callable[[Path], None]:
    """In another encoding than UTF-8."""
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes() + b"\xe9")


def removed(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


WHOLE: list[tuple[Callable[[Path], None], str]] = [
    (removed("database/background/citySet_with_states.txt"), "no background/citySet_with_states"),
    (removed("validation.csv"), "has neither train_ref_info.jsonl nor validation.csv"),
    (removed(f"database/{PATHS[Flight]}"), "no flights/clean_Flights_2022.csv in"),
    (cell(f"database/{PATHS[Flight]}", "Price", "Cost"), "has no column 'Price'"),
    (cell("database/googleDistanceMatrix/distance.csv", " km", " miles"), "not like '1,290 km'"),
    (cell("database/background/citySet_with_states.txt", "\t", " "), "must be a city, a tab"),
    (cell("validation.csv", "people_number", "persons"), "query 1 has no 'people_number'"),
    (cell("validation.csv", "'house rule': None", "'house rule': 'dogs'"), "house rule is 'dogs'"),
    (cell("validation.csv", ",easy,", ",odd,"), "the level 'odd'"),
    (cell("validation.csv", "'2022-03-", "2022-03-"), "validation.csv, query 1 cannot be used"),
    (cell("validation.csv", "Attractions in", "Sights in"), "tells of 0"),
    (cell("validation.csv", "'cuisine': None", "'cuisine': 'Tea'"), "cuisine 'T' must be one of"),
    (cell("validation.csv", "'cuisine'", "'food'"), "cannot be used (it has no 'cuisine')"),
    (cell("validation.csv", "['2022-03-", "['2022-13-"), "query 1 cannot be used"),
    (cell("validation.csv", "{'house rule'", "{" + "[" * 9_000 + "'house rule'"), "cannot be used"),
    (cell("database/googleDistanceMatrix/distance.csv", " km", "e999 km"), "not like '1,290 km'"),
    (encoded("database/background/citySet_with_states.txt"), "could not be read"),
    (encoded("database/background/citySet.txt"), "could not be read"),
    (encoded(f"database/{PATHS[Restaurant]}"), "could not be read"),
    (encoded("validation.csv"), "could not be read"),
]


@pytest.mark.parametrize(("change", "message"), WHOLE)
def test_what_is_wrong_in_a_database_is_named(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(whole(tmp_path, ENTRIES[:1]))
    with pytest.raises(EnvError) as error:
        load(str(tmp_path))
    assert message in str(error.value)


def test_files_that_an_editor_saved_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    before = load(str(whole(tmp_path, ENTRIES[:1])))["validation"][0]
    tables = [*PATHS.values(), database.ROADS, database.STATES, database.CITIES]
    for path in (tmp_path / "validation.csv", *(tmp_path / "database" / name for name in tables)):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    load.cache_clear()
    after = load(str(tmp_path))["validation"][0]
    assert after.query == before.query
    for name in ("states", "cities", "hotels", "restaurants", "attractions", "roads"):
        assert getattr(after.world, name) == getattr(before.world, name), name


def test_a_plan_of_the_annotators_that_is_none_is_left_out(tmp_path: Path) -> None:
    for text in ("none", "[" * 9_000, "[{'days': 1", "[3]"):
        entry = {**ENTRIES[0], "annotated_plan": text}
        folder = tmp_path / str(len(text))
        folder.mkdir()
        assert load(str(whole(folder, [entry])))["validation"][0].gold is None


@pytest.mark.parametrize(
    "entry", [{"query": 5}, {"org": ["Ash"]}, {"budget": 1e999}, {"date": [1]}]
)
def test_values_of_other_types_are_named(tmp_path: Path, entry: dict[str, Any]) -> None:
    (whole(tmp_path) / "train.jsonl").write_text(json.dumps({**ENTRIES[0], **entry}) + "\n")
    with pytest.raises(EnvError, match=r"train.jsonl, query 1 cannot be used \(.+\); get the file"):
        load(str(tmp_path))


def test_a_table_nested_too_deeply_is_no_json(tmp_path: Path) -> None:
    (whole(tmp_path) / "train.jsonl").write_text("[" * 100_000)
    with pytest.raises(EnvError, match=r"train.jsonl:1 is not JSON"):
        load(str(tmp_path))


def test_an_index_is_found_in_any_folder_and_refused_where_it_is_of_no_use(tmp_path: Path) -> None:
    folder = tmp_path / "50%20 a#b?c"
    folder.mkdir()
    whole(folder, ENTRIES[:1])
    main([str(folder / "database")])
    load.cache_clear()
    flights = load(str(folder))["validation"][0].world.flights
    assert isinstance(flights, database.Indexed)
    some = trip("small", "train", 0, "easy", 3).world.flights
    assert isinstance(some, Timetable)
    first = next(iter(some.all()))
    assert first in flights.numbered(first.number)

    table, indexed = folder / "database" / PATHS[Flight], folder / "database" / database.INDEX
    table.write_text(table.read_text() + "\n")
    load.cache_clear()
    with pytest.raises(EnvError, match=r"made of another table.*remove it, and index them again"):
        load(str(folder))
    for wrong in (b"", b"x" * 5000, indexed.read_bytes()[:5000]):
        indexed.write_bytes(wrong)
        load.cache_clear()
        database._open.cache_clear()
        with pytest.raises(EnvError, match="holds no flights that can be searched"):
            load(str(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for files")
def test_an_index_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    folder = whole(tmp_path, ENTRIES[:1]) / "database"
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "runpy.run_module('tutelage_worlds.travelplanner', run_name='__main__', alter_sys=True)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "cannot be written" in ran.stderr
    assert not (folder / database.INDEX).exists()


def test_queries_may_be_json_lines(tmp_path: Path) -> None:
    with (whole(tmp_path) / "train.jsonl").open("w") as file:
        for entry in ENTRIES[:2]:
            wishes = literal(entry["local_constraint"])
            record = {**entry, "local_constraint": wishes, "annotated_plan": None}
            file.write(json.dumps(record) + "\n")
    one, other = load(str(tmp_path))["train"]
    assert one.gold is None
    assert (one.query.text, other.query.text) == tuple(e["query"] for e in ENTRIES[:2])
    suite = TravelPlanner(data=str(tmp_path))
    task = suite.tasks("train")[0]
    found = solve(one.world, one.query, one.route, one.query.budget)
    assert found is not None
    assert suite.plan(task) == [f"Finish[{write(found.plan)}]"]


def test_the_test_split_is_refused(tmp_path: Path) -> None:
    bare = {name: ENTRIES[0][name] for name in ("org", "dest", "days", "date", "query", "level")}
    (whole(tmp_path) / "test.jsonl").write_text(json.dumps(bare) + "\n")
    with pytest.raises(EnvError, match="leaderboard"):
        load(str(tmp_path))
