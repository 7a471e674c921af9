"""Rules that random walks seldom meet, met on purpose in a kitchen made by hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from parity.reference import cached, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from parity.compare import NativeGame
from parity.reference import ReferenceGame, find_domain
from tutelage_worlds.household import Scene, write
from tutelage_worlds.household.scene import Family, Goal, Receptacle, Thing

FOOD = frozenset({"pickupable", "heatable", "coolable", "cleanable", "sliceable"})
KINDS = ("CounterTop", "CounterTop", "Cabinet", "Fridge", "Microwave", "SinkBasin")
PLACES = ("loc_bar_1", "loc_bar_2", "loc_bar_3", "loc_bar_3", "loc_bar_4", "loc_bar_4")
SPOTS = tuple(
    Receptacle(
        id=f"Sink_bar__plus_0{number}_bar_SinkBasin"
        if kind == "SinkBasin"
        else f"{kind}_bar__plus_0{number}",
        kind=kind,
        location=place,
        openable=kind in ("Cabinet", "Fridge", "Microwave"),
    )
    for number, (kind, place) in enumerate(zip(KINDS, PLACES, strict=True))
)
TOP_2, TOP_1, CABINET, FRIDGE, MICROWAVE, SINK = SPOTS


def thing(kind: str, where: Receptacle, traits: frozenset[str] = FOOD, *, n: int = 0) -> Thing:
    return Thing(
        id=f"{kind}_bar__plus_0{n}",
        kind=kind,
        inside=(where.id,),
        at=(where.location,),
        traits=traits,
    )


THINGS = (
    thing("Apple", TOP_1, n=0),
    thing("Apple", CABINET, n=1),
    thing("Knife", TOP_1, frozenset({"pickupable", "cleanable"})),
    thing("DeskLamp", CABINET, frozenset({"toggleable"})),
    thing("Bowl", TOP_1, FOOD | {"isreceptacleobject"}),
)

TWO = Goal(family=Family.TWO, thing="Apple", receptacle="CounterTop")
COOL = Goal(family=Family.COOL, thing="Apple", receptacle="CounterTop")
HEAT = Goal(family=Family.HEAT, thing="Apple", receptacle="CounterTop")
LIGHT = Goal(family=Family.LIGHT, thing="Apple", toggle="DeskLamp")
PICK = Goal(family=Family.PICK, thing="Apple", receptacle="Fridge")

FERRY = ", ".join(  # everything through the cabinet into the fridge beside it
    f"go to countertop 1, take {name} from countertop 1, go to cabinet 1, move {name} to cabinet 1,"
    f" take {name} from cabinet 1, look, move {name} to fridge 1, look"
    for name in ("knife 1", "bowl 1", "apple 2")
)

# What is done, and whether the goal holds at the end. The apple on the countertop is number 2.
SCRIPTS: dict[str, tuple[Goal, str, bool]] = {
    "cooled, then heated": (
        COOL,
        "go to countertop 1, take apple 2 from countertop 1, go to fridge 1, cool apple 2 with"
        " fridge 1, examine apple 2, go to microwave 1, heat apple 2 with microwave 1,"
        " examine apple 2, go to countertop 1, move apple 2 to countertop 1",
        False,
    ),
    "heated, then cooled": (
        HEAT,
        "go to countertop 1, take apple 2 from countertop 1, go to microwave 1, heat apple 2 with"
        " microwave 1, clean apple 2 with sinkbasin 1, examine apple 2, go to fridge 1, cool"
        " apple 2 with fridge 1, examine apple 2, go to countertop 1, move apple 2 to countertop 1",
        False,
    ),
    "cooled twice": (
        COOL,
        "go to countertop 1, take apple 2 from countertop 1, go to fridge 1, cool apple 2 with"
        " fridge 1, cool apple 2 with fridge 1, go to countertop 2, move apple 2 to countertop 2,"
        " look, help",
        True,
    ),
    "two, apart": (
        TWO,
        "go to cabinet 1, open cabinet 1, take apple 1 from cabinet 1, go to countertop 2,"
        " move apple 1 to countertop 2, look",
        False,
    ),
    "two, together": (
        TWO,
        "go to cabinet 1, open cabinet 1, take apple 1 from cabinet 1, go to countertop 1,"
        " move apple 1 to countertop 1, look",
        True,
    ),
    "two, together and apart again": (
        TWO,
        "go to cabinet 1, open cabinet 1, take apple 1 from cabinet 1, go to countertop 1, move"
        " apple 1 to countertop 1, take apple 2 from countertop 1, go to countertop 2, look,"
        " move apple 2 to countertop 2, look, go to countertop 1, look",
        False,
    ),
    "a lamp behind a door": (
        LIGHT,
        "go to countertop 1, take apple 2 from countertop 1, go to cabinet 1, use desklamp 1,"
        " use desklamp 1, examine apple 2, inventory",
        True,
    ),
    "a lamp left behind": (
        LIGHT,
        "go to cabinet 1, use desklamp 1, open cabinet 1, close cabinet 1, open cabinet 1,"
        " take apple 1 from cabinet 1, go to microwave 1, look, go to countertop 1",
        False,
    ),
    "a slice behind a door": (
        replace(PICK, sliced=True),
        "go to countertop 1, take knife 1 from countertop 1, go to cabinet 1, slice apple 1 with"
        " knife 1, open fridge 1, move knife 1 to fridge 1, look, open cabinet 1, take apple 1 from"
        " cabinet 1, look, examine apple 1, move apple 1 to fridge 1, look",
        True,
    ),
    "whole, where a slice is wanted": (
        replace(PICK, sliced=True),
        "go to cabinet 1, open cabinet 1, take apple 1 from cabinet 1, examine apple 1,"
        " open fridge 1, move apple 1 to fridge 1, look, close fridge 1, close cabinet 1, look",
        False,
    ),
    "a slice by lamplight": (
        replace(LIGHT, sliced=True),
        "go to countertop 1, take knife 1 from countertop 1, slice apple 2 with knife 1, slice"
        " apple 2 with knife 1, slice apple 2 with knife 1, move knife 1 to countertop 1, take"
        " apple 2 from countertop 1, examine apple 2, go to cabinet 1, use desklamp 1",
        True,
    ),
    "whole by lamplight": (
        replace(LIGHT, sliced=True),
        "go to countertop 1, take apple 2 from countertop 1, go to cabinet 1, use desklamp 1",
        False,
    ),
    "every quality": (
        replace(HEAT, sliced=True),
        "go to countertop 1, take apple 2 from countertop 1, examine apple 2, go to sinkbasin 1,"
        " clean apple 2 with sinkbasin 1, examine apple 2, heat apple 2 with microwave 1, examine"
        " apple 2, go to fridge 1, cool apple 2 with fridge 1, examine apple 2, go to countertop 1,"
        " move apple 2 to countertop 1, take knife 1 from countertop 1, slice apple 2 with knife 1,"
        " move knife 1 to countertop 1, take apple 2 from countertop 1, examine apple 2, go to"
        " microwave 1, heat apple 2 with microwave 1, examine apple 2, go to countertop 2,"
        " move apple 2 to countertop 2, examine countertop 2",
        True,
    ),
    "many things left behind": (
        PICK,
        "go to cabinet 1, open cabinet 1, open fridge 1, look, "
        f"{FERRY}, take apple 1 from cabinet 1, move apple 1 to fridge 1, look, take bowl 1 from"
        " fridge 1, look, move bowl 1 to cabinet 1, look",
        True,
    ),
    "in a bowl": (
        PICK,
        "go to countertop 1, take bowl 1 from countertop 1, examine bowl 1, inventory, go to"
        " microwave 1, open microwave 1, move bowl 1 to microwave 1, close microwave 1, look,"
        " examine microwave 1",
        False,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _fast() -> Iterator[None]:
    with cached():
        yield


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name: str, tmp_path: Path) -> None:
    goal, script, won = SCRIPTS[name]
    bowl = replace(THINGS[-1], holds=(THINGS[0].id, THINGS[1].id))
    scene = Scene(
        receptacles=SPOTS,
        things=(*THINGS[:-1], bowl),
        accepts=frozenset((kind, t.kind) for kind in KINDS for t in THINGS),
        start="loc_bar_0",
        goal=goal,
        task="do as you are told",
    )
    path = tmp_path / "game.tw-pddl"
    write(scene, path, *find_domain())
    ours, reference = NativeGame(path), ReferenceGame(path)
    shown = reference.reset()
    assert ours.reset() == shown
    for action in script.split(", "):
        assert action in shown.admissible
        shown = reference.step(action)
        assert ours.step(action) == shown
    reference.close()
    assert shown.won == won
