"""Skill banks name the families of their suites, all of them, and no others."""

from collections.abc import Collection

import pytest

from tutelage.hints.bank import load
from tutelage_worlds.bfcl.scenario import FAMILIES as CATEGORIES
from tutelage_worlds.household.scene import Family
from tutelage_worlds.scienceworld.catalogue import TASKS
from tutelage_worlds.search_qa.generate import FAMILIES as QUESTIONS
from tutelage_worlds.tau_bench.generate import FAMILIES as REQUESTS
from tutelage_worlds.textworldexpress.suite import GAMES
from tutelage_worlds.travelplanner.requests import FAMILIES as TRIPS
from tutelage_worlds.webshop import WebShop

# families of tasks that come from a user's files, in the words of those who made them
DATA_SETS = {"nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"}
OF_TAU_BENCH = {
    "tell",
    "cancel_reservation",
    "book_reservation",
    "update_reservation_flights",
    "update_reservation_passengers",
    "update_reservation_baggages",
    "send_certificate",
}
FAMILIES: dict[str, tuple[Collection[str], set[str]]] = {
    "bfcl": (CATEGORIES, set()),
    "household": ([family.value for family in Family], set()),
    "scienceworld": (TASKS, set()),
    "search_qa": (QUESTIONS, DATA_SETS),
    "tau_bench": (REQUESTS, OF_TAU_BENCH),
    "textworldexpress": (GAMES, set()),
    "travelplanner": (TRIPS, set()),
    "webshop": ({t.family for t in WebShop(products=400, test=0, dev=0).tasks("train")}, set()),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_of_a_bank_are_those_of_its_suite(name: str) -> None:
    result, from_files = FAMILIES[name]
    named = [family for skill in load(name).skills for family in skill.families]
    assert sorted(named) == sorted({*result, *from_files})
