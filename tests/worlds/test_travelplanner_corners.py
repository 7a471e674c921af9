"""travelplanner's corners: names that fit several, notes, repeats, dates and lost plans."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from worlds.test_travelplanner_rules import QUERY, WORLD, hotels

from tutelage.types import Observation
from tutelage_worlds.travelplanner import TravelPlanner, brief, commonsense, env
from tutelage_worlds.travelplanner.brief import compact
from tutelage_worlds.travelplanner.judge import Verdict
from tutelage_worlds.travelplanner.suite import find
from tutelage_worlds.travelplanner.tables import Hotel
from tutelage_worlds.travelplanner.texts import legs
from tutelage_worlds.travelplanner.tools import Desk


def test_a_journey_begins_where_the_query_says() -> None:
    days = [
        {"current_city": "from Oak to Elm"},
        {"current_city": "Elm"},
        {"current_city": "from Elm to Oak"},
    ]
    assert "must begin in Ash" in commonsense.reasonable_city_route(WORLD, QUERY, days)


def test_a_city_between_others_is_mentioned_twice_in_a_row() -> None:
    assert commonsense._in_sequence(["Ash", "Elm", "Elm", "Oak", "Oak", "Ash"])
    assert not commonsense._in_sequence(["Ash", "Elm", "Oak", "Oak", "Ash"])


def test_a_stay_whose_name_fits_several_is_not_looked_at() -> None:
    more = Hotel("Long Stay Two", 10.0, "Shared room", "No visitors", 1.0, 4, 4.0, "Elm")
    twins = replace(WORLD, hotels={**WORLD.hotels, "Elm": (*hotels("Elm"), more)})
    plan = [{"accommodation": "Long Stay, Elm"}, {"accommodation": "-"}, {"accommodation": "-"}]
    assert "wants 3 nights" in commonsense.minimum_nights_stay(WORLD, QUERY, plan)
    assert commonsense.minimum_nights_stay(twins, QUERY, plan) == ""


@pytest.mark.parametrize("more", [-1, 1])
def test_a_line_with_too_few_or_too_many_parts_is_no_plan(more: int) -> None:
    assert brief.read(";".join(["-"] * (len(brief.FIELDS) + more)), WORLD) is None


def test_what_was_noted_is_part_of_the_state() -> None:
    desks = Desk(WORLD), Desk(WORLD)
    for desk, note in zip(desks, ("one", "two"), strict=True):
        desk.act(f"NotebookWrite[{note}]")
        desk.act("CitySearch[Ohio]")
    assert desks[0].key() != desks[1].key()


def test_an_action_with_other_line_breaks_is_the_same_action() -> None:
    desk = Desk(WORLD)
    actions = [
        desk.act(text).over
        for text in ("CitySearch[Ohio]", "CitySearch[\nOhio]", "City\nSearch[Ohio]")
    ]
    assert actions == [False, False, True]


def test_each_city_is_left_two_days_after_it_was_reached() -> None:
    days = tuple(f"2022-03-{k:02}" for k in range(1, 8))
    week = replace(QUERY, days=7, dates=days, cities=3)
    assert [leg[2] for leg in legs(week, ("Elm", "Oak", "Fir"))] == [
        days[0],
        days[2],
        days[4],
        days[6],
    ]


def test_a_plan_that_makes_sense_but_does_not_fit_the_query_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite = TravelPlanner(size="small", train=36)
    task = next(iter(suite.tasks("train")))
    sensible = Verdict(asked=("budget",), commonsense={"days": ""}, hard={"budget": "too dear"})
    assert sensible.sensible
    assert not sensible.passed
    monkeypatch.setattr(env, "judge", lambda *_: sensible)
    playing = suite.make()
    playing.reset(task)
    assert playing.step(suite.demonstrate(task)[-1]).won is False


def test_few_words_say_dates_as_searches_take_them() -> None:
    request = "Given information: []\nQuery: Leave on March 5th, 2022, with $1,200."
    assert compact(Observation(text=request)).endswith("Leave on 2022-03-05 , with 1200 .")


def test_nobody_travels_within_the_state_where_they_live() -> None:
    suite = TravelPlanner(size="small", train=200)
    for task in suite.tasks("train"):
        one = find(task)
        states = one.world.states
        assert states[one.query.org] != states[one.route[0]]


def test_what_a_planner_was_asked_is_part_of_the_state() -> None:
    suite = TravelPlanner(size="small", train=36, mode="two-stage")
    task = next(iter(suite.tasks("train")))
    states = []
    for asked in ("one", "two"):
        playing = suite.make()
        playing.reset(task)
        states.append(playing.step(f"Planner[{asked}]").state)
    assert states[0] != states[1]


@pytest.mark.skipif(shutil.which("localedef") is None, reason="needs a locale to be made")
def test_dates_are_english_wherever_a_program_was_told_to_speak_otherwise(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"], check=False
    )
    if ran.returncode:
        pytest.skip("the definition of the locale is not there")
    code = (
        "import datetime, locale; locale.setlocale(locale.LC_ALL, ''); "
        "from tutelage_worlds.travelplanner.requests import spoken; "
        "print(f'{datetime.date(2022, 5, 1):%B}', spoken('2022-05-01'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "Mai May 1st\n"
