"""Beside TravelPlanner's own code: verdicts, costs, searches and notes of the same plans.

    TRAVELPLANNER=CLONE TRAVELPLANNER_PYTHON=PYTHON pytest tests/worlds/test_travelplanner_parity.py

PYTHON needs pandas, tqdm and requests. TRAVELPLANNER_WALKS is how many plans of each world are
judged by both.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.travelplanner_plans import DATA, ODD, wrong

from tutelage_worlds.travelplanner import database, texts
from tutelage_worlds.travelplanner.commonsense import COMMONSENSE
from tutelage_worlds.travelplanner.env import Trip
from tutelage_worlds.travelplanner.files import load
from tutelage_worlds.travelplanner.generate import Timetable
from tutelage_worlds.travelplanner.hard import cost
from tutelage_worlds.travelplanner.judge import judge
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.requests import FAMILIES, trip
from tutelage_worlds.travelplanner.tables import Listed
from tutelage_worlds.travelplanner.tools import Desk, enquiry

CLONE = os.environ.get("TRAVELPLANNER", "")
PYTHON = os.environ.get("TRAVELPLANNER_PYTHON", "")
WALKS = int(os.environ.get("TRAVELPLANNER_WALKS", "200"))
pytestmark = pytest.mark.skipif(
    not (CLONE and PYTHON),
    reason="set TRAVELPLANNER to a clone and TRAVELPLANNER_PYTHON to a Python that has pandas",
)


def trips(world: str) -> list[Trip]:
    if world == "train":
        if not DATA.is_dir():
            pytest.skip(f"TravelPlanner's training data are not in {DATA}")
        return list(load(str(DATA))["train"])
    families = [family.split("-") for family in FAMILIES]
    return [
        trip("small", split, k, level, int(days))
        for split in ("train", "test")
        for k, (level, days) in enumerate(families * 3)
    ]


class Original:
    """TravelPlanner's code over a database of ours."""

    def __init__(self, clone: Path) -> None:
        script = Path(__file__).with_name("travelplanner_original.py")
        self.command = [PYTHON, str(script), str(clone)]

    def ask(self, questions: Sequence[Sequence[Any]]) -> list[Any]:
        lines = "\n".join(map(json.dumps, questions))
        process = subprocess.run(
            self.command, input=lines, capture_output=True, text=True, check=False
        )
        assert not process.returncode, process.stderr
        return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture(scope="module", params=["train", "small"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Original, list[Trip]]]:
    some = trips(request.param)
    clone = tmp_path_factory.mktemp("original") / "clone"
    shutil.copytree(CLONE, clone, ignore=shutil.ignore_patterns(".git", "images", "database"))
    table = some[0].world.flights
    assert isinstance(table, Timetable | Listed)
    flights = table.all() if isinstance(table, Timetable) else table.rows
    database.write(some[0].world, flights, clone / "database")
    yield Original(clone), some
    shutil.rmtree(clone)


def fields(query: Query) -> dict[str, Any]:
    """A query as the data set has it."""
    return {
        "org": query.org,
        "dest": query.dest,
        "days": query.days,
        "budget": query.budget,
        "visiting_city_number": query.cities,
        "people_number": query.people,
        "local_constraint": {
            "house rule": query.rule,
            "cuisine": list(query.cuisines) or None,
            "room type": query.room,
            "transportation": query.transport,
        },
    }


def test_plans_are_judged_alike(both: tuple[Original, list[Trip]]) -> None:
    original, some = both
    rng = Random(some[0].query.text)
    cases = [(one, wrong(rng, one)) for one in rng.choices(some, k=WALKS)]
    answers = original.ask([("judge", fields(one.query), plan) for one, plan in cases])
    passed = 0
    for (one, plan), answer in zip(cases, answers, strict=True):
        verdict = judge(one.world, one.query, plan)
        # where the original stops with an exception, it says null: that is not met here
        for name in COMMONSENSE:
            assert (not verdict.commonsense[name]) == (answer[name] is True), (name, plan, verdict)
        assert bool(verdict.hard) == (answer["hard"] is not None), plan
        for name in one.query.hard if verdict.hard else ():
            assert (not verdict.hard[name]) == (answer["hard"][name] is True), (name, plan)
        if verdict.hard:
            assert cost(one.world, one.query, plan) == answer["cost"], plan
        passed += verdict.passed
    assert 0 < passed < WALKS


def test_days_cost_the_same(both: tuple[Original, list[Trip]]) -> None:
    original, some = both
    rng = Random(some[0].query.org)
    cases = []
    for one in rng.choices(some, k=WALKS):
        day = {**rng.choice(wrong(rng, one)), "people_number": rng.randrange(1, 9)}
        cases.append((one, {key: value for key, value in day.items() if value != []}))
    answers = original.ask([("cost", day) for _, day in cases])
    for (one, day), answer in zip(cases, answers, strict=True):
        text, _ = enquiry(one.world, json.dumps(day))
        # there is no answer where the original stops
        assert answer is None or text == answer, day


def test_searches_answer_alike(both: tuple[Original, list[Trip]]) -> None:
    original, some = both
    world, rng = some[0].world, Random(5)
    cities = [*world.cities, "Nowhere", "Ash(Ohio)"]
    questions: list[tuple[Any, ...]] = []
    for city in cities:
        questions += [("accommodation", city), ("restaurants", city), ("attractions", city)]
    for _ in range(WALKS):
        a, b = rng.choice(cities), rng.choice(cities)
        one = rng.choice(some)
        date = rng.choice(one.query.dates)
        legs = texts.legs(one.query, one.route)
        a, b, date = rng.choice([(a, b, date), *legs])
        mode = rng.choice(("self-driving", "taxi", "walking", "driving", "Taxi"))
        questions += [("flights", a, b, date), ("road", a, b, mode)]
    questions += [("cities", state) for state in {*world.states.values(), "Atlantis"} - {""}]
    for question, answer in zip(questions, original.ask(questions), strict=True):
        assert ours(world, question) == answer, question


def ours(world: Any, question: tuple[Any, ...]) -> str:
    kind, *given = question
    if kind == "flights":
        return texts.flights_text(world, *given)
    if kind == "road":
        return texts.road_text(world, *given)
    if kind == "cities":
        return texts.cities(world, *given)
    city = given[0]
    find = {
        "accommodation": texts.accommodations,
        "restaurants": texts.restaurants,
        "attractions": texts.attractions,
    }[kind]
    if city in world.cities:
        return find(world, city)
    word = "restaurant" if kind == "restaurants" else "attraction"
    return f"There is no {word} in this city."


def test_notebooks_read_alike(both: tuple[Original, list[Trip]]) -> None:
    original, some = both
    for one in some[:10]:
        desk, notes = Desk(one.world), []
        for city in one.route:
            desk.act(f"RestaurantSearch[{city}]")
            note = f'what {city!r} has: "{ODD[-2]}"'
            desk.act(f"NotebookWrite[{note}]")
            notes.append((note, texts.restaurants(one.world, city)))
        assert original.ask([("notebook", notes)]) == [desk.notebook()]
