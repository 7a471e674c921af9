"""Files that are not quite like ALFWorld's: each is either refused with a sentence or played
exactly as TextWorld plays it.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parity.reference import cached, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from parity.compare import play
from parity.games import dress, find_domain, old_grammar, wear
from tutelage_worlds.household import GameFileError, generate, read, write

Data = dict[str, str]
Edit = Callable[[Data], None]

KITCHEN = 4  # the seed of a small scene with a fridge, and with things to put in it


def fact(text: str) -> Edit:
    """Add facts, with the words of `filled`."""

    def edit(data: Data) -> None:
        new = "(:init\n" + filled(text, data)
        data["pddl_problem"] = data["pddl_problem"].replace("(:init", new, 1)

    return edit


def declared(text: str, facts: str = "") -> Edit:
    """Add objects, and facts about them."""

    def edit(data: Data) -> None:
        new = "(:objects\n" + filled(text, data)
        fact(facts)(data)
        data["pddl_problem"] = data["pddl_problem"].replace("(:objects", new, 1)

    return edit


def filled(text: str, data: Data) -> str:
    """FIRST is a closed receptacle, OTHER one that cannot be, THING an object in a receptacle, LOC1
    and LOC2 are locations in use; THINGS_bar and FIRSTS_bar begin ids of the same kind."""
    problem = data["pddl_problem"]
    openable = re.findall(r"\(openable ([^\s()]+)\)", problem)
    closed = [r for r in openable if f"(opened {r})" not in problem]
    located = dict(re.findall(r"\(receptacleAtLocation ([^\s()]+) ([^\s()?]+)\)", problem))
    places = list(dict.fromkeys(located.values()))
    thing = re.findall(r"\(inReceptacle ([^\s()?]+) ", problem)[0]
    words = {
        "FIRSTS_bar": closed[0].split("_bar_")[0] + "_bar",
        "THINGS_bar": thing.split("_bar_")[0] + "_bar",
        "FIRST": closed[0],
        "OTHER": next(r for r in located if r not in openable),
        "THING": thing,
        "LOC1": places[0],
        "LOC2": places[1],
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def swap(key: str, old: str, new: str) -> Edit:
    def edit(data: Data) -> None:
        assert old in data[key], f"{old} is not in {key}"
        data[key] = data[key].replace(old, new)

    return edit


def change(key: str, how: Callable[[str], str]) -> Edit:
    def edit(data: Data) -> None:
        changed = how(data[key])
        assert changed != data[key]
        data[key] = changed

    return edit


def renamed(pattern: str, new: str) -> Edit:
    """Give the first id that matches another name, everywhere."""

    def edit(data: Data) -> None:
        found = re.search(pattern, data["pddl_problem"])
        assert found is not None
        data["pddl_problem"] = data["pddl_problem"].replace(found[0], new)

    return edit


def both(*edits: Edit) -> Edit:
    def edit(data: Data) -> None:
        for each in edits:
            each(data)

    return edit


ID = r"[A-Z]\w*?_bar_\w+"
SAME: dict[str, Edit] = {
    "as it is": lambda data: None,
    "a fact twice": fact("(openable FIRST) (openable FIRST)"),
    "windows line ends": change("pddl_problem", lambda text: text.replace("\n", "\r\n")),
    "all on one line": change("pddl_problem", lambda text: " ".join(text.split())),
    "capitals": change(
        "pddl_problem", lambda text: re.sub(r"\((\w+) ", lambda m: f"({m[1].upper()} ", text)
    ),
    "predicates of no rule": fact(
        "(full FIRST) (moveable THING) (isOn THING) (checked FIRST) (examined LOC1)"
    ),
    "a sink with a lid": change(
        "pddl_problem",
        lambda text: re.sub(
            r"\(receptacleType (\w+) SinkBasinType\)", r"\g<0> (openable \1)", text
        ),
    ),
    "open without a door": fact("(opened OTHER)"),
    "negated facts": fact("(not (opened FIRST)) (not (isHot THING)) (not (toggleable THING))"),
    "declarations in groups": declared(
        "THINGS_bar_za THINGS_bar_zb - object",
        "(objectType THINGS_bar_za KnifeType) (inReceptacle THINGS_bar_za OTHER)"
        " (pickupable THINGS_bar_za)",
    ),
    "a thing declared only": declared("THINGS_bar_z - object"),
    "a thing with a trait only": declared("THINGS_bar_z - object", "(cleanable THINGS_bar_z)"),
    "a thing with an idle fact only": declared("THINGS_bar_z - object", "(moveable THINGS_bar_z)"),
    "a thing that was somewhere": declared(
        "THINGS_bar_z - object", "(wasInReceptacle THINGS_bar_z OTHER)"
    ),
    "a thing at a place only": declared(
        "THINGS_bar_z - object", "(objectAtLocation THINGS_bar_z LOC1)"
    ),
    "a thing in a thing only": declared(
        "THINGS_bar_z - object", "(inReceptacleObject THINGS_bar_z THING)"
    ),
    "a thing without a kind": declared(
        "THINGS_bar_z - object", "(inReceptacle THINGS_bar_z OTHER) (pickupable THINGS_bar_z)"
    ),
    "a thing called like furniture": declared(
        "FIRSTS_bar_z - object FIRSTS_bar_a - object",
        "(inReceptacle FIRSTS_bar_z OTHER) (pickupable FIRSTS_bar_z)"
        " (inReceptacle FIRSTS_bar_a FIRST) (pickupable FIRSTS_bar_a)",
    ),
    "furniture declared only": declared("FIRSTS_bar_z - receptacle"),
    "furniture with a door only": declared("FIRSTS_bar_z - receptacle", "(openable FIRSTS_bar_z)"),
    "furniture with an idle fact only": declared(
        "FIRSTS_bar_z - receptacle", "(wasInReceptacle THING FIRSTS_bar_z)"
    ),
    "furniture without a kind": declared(
        "FIRSTS_bar_z - receptacle", "(receptacleAtLocation FIRSTS_bar_z LOC1)"
    ),
    "furniture without a place": declared(
        "FIRSTS_bar_z - receptacle THINGS_bar_z - object",
        "(receptacleType FIRSTS_bar_z FridgeType) (inReceptacle THINGS_bar_z FIRSTS_bar_z)",
    ),
    "furniture declared as an object": declared(
        "FIRSTS_bar_z - object", "(receptacleAtLocation FIRSTS_bar_z LOC1)"
    ),
    "a place called like furniture": declared(
        "FIRSTS_bar_z - location", "(objectAtLocation THING FIRSTS_bar_z)"
    ),
    "a thing without a number": declared(
        "Gem - object", "(inReceptacle Gem OTHER) (pickupable Gem) (objectAtLocation Gem LOC1)"
    ),
    "furniture without a number": declared("Nook - receptacle", "(receptacleAtLocation Nook LOC2)"),
    "a location without a number": declared(
        "Corner - location Nook_bar_1 - receptacle", "(receptacleAtLocation Nook_bar_1 Corner)"
    ),
    "a basin in the middle": renamed(ID, "Cup_bar_basin_bar__plus_00_dot_10"),
    "every sign in an id": renamed(ID, "Cup_bar__minus_01_dot_20_comma_5_bar__plus_0"),
    "in two places": fact(
        "(inReceptacle THING FIRST) (inReceptacle THING OTHER) (objectAtLocation THING LOC2)"
    ),
    "in itself": fact("(isReceptacleObject THING) (inReceptacleObject THING THING)"),
    "flags of no use": fact("(holdsAnyReceptacleObject agent1) (isReceptacleObjectFull THING)"),
    "ids in capitals": change(
        "pddl_problem", lambda text: re.sub(r"[A-Z]\w+_bar_\w+", lambda m: m[0].upper(), text)
    ),
    "comments everywhere": change("pddl_problem", lambda text: text.replace("\n", " ; (so\n")),
    "toggled, not toggleable": fact(
        "(isToggled THING) (isHot THING) (isCool THING) (isClean THING)"
    ),
    "a lamp to carry": fact("(toggleable THING) (isToggled THING)"),
    "a lamp to carry, off": fact("(toggleable THING)"),
    "another agent": change("pddl_problem", lambda text: text.replace("agent1", "robot_bar_7")),
    "hardly any container": change(
        "pddl_problem", lambda text: re.sub(r"\(canContain (?!CounterTop|Shelf)\w+ \w+\)", "", text)
    ),
    "a sentence with signs": swap(
        "grammar", "Your task is to: ", "Your task is to: Ärger & (it's) 100% / 2, then "
    ),
    "a sentence with blanks": swap("grammar", "Your task is to: ", "Your task is to:    "),
    "old wording": change("grammar", lambda text: old_grammar(text) + HELP),
    "other commands": change(
        "grammar",
        lambda text: text.replace('"use {o}"', '"switch on {o}"').replace(
            '"take {o} from', '"grab {o} off'
        ),
    ),
    "an opened door shows nothing": change(
        "grammar",
        lambda text: text.replace(
            "You open the {r.name}. #examineReceptacle.feedback#", "You open the {r.name}."
        ),
    ),
    "old wording, a place nowhere": both(
        declared("loc_bar_zz - location", "(examined loc_bar_zz)"),
        declared("loc_bar_zy - location", "(= (distance loc_bar_zy LOC1) 3)"),
        change("grammar", lambda text: old_grammar(text) + HELP),
    ),
    "extra facts and scenery": lambda data: data.update(dress(data, random.Random(3))),  # type: ignore[arg-type]
}

HELP = """
action help {
    template :: "help";
    feedback :: "#help.feedback#";
    grammar :: \"\"\"
        {"help.feedback": [{"rhs": "Go, take, put."}]}
    \"\"\";
}
"""

REFUSED: dict[str, Edit] = {
    "something in the hand": fact("(holds agent1 THING) (holdsAny agent1)"),
    "a hand that is full of nothing": fact("(holdsAny agent1)"),
    "furniture in two places": fact(
        "(receptacleAtLocation OTHER LOC1) (receptacleAtLocation OTHER LOC2)"
    ),
    "two agents": declared("agent2 - agent", "(atLocation agent2 LOC1)"),
    "furniture of two kinds": fact(
        "(receptacleType OTHER FridgeType) (receptacleType OTHER MicrowaveType)"
    ),
    "a thing of two kinds": fact("(objectType THING KnifeType) (objectType THING ButterKnifeType)"),
    "one open door at a time": swap(
        "pddl_domain",
        "            (not (opened ?r))\n            )",
        "            (forall (?x - receptacle) (not (opened ?x))))",
    ),
    "lamps by location": swap(
        "pddl_domain", "(toggleable ?o)\n", "(toggleable ?o)\n (objectAtLocation ?o ?l)\n"
    ),
    "a fridge that heats": swap(
        "pddl_domain", "(receptacleType ?r MicrowaveType)", "(receptacleType ?r FridgeType)"
    ),
    "taking cleans": swap(
        "pddl_domain",
        "(holdsAny ?a)\n            (not (obj",
        "(holdsAny ?a) (isClean ?o)\n (not (obj",
    ),
    "an extra wish": swap(
        "pddl_problem", "(:goal (and ", "(:goal (and (exists (?z - receptacle) (opened ?z)) "
    ),
    "a wish for not": change(
        "pddl_problem", lambda text: re.sub(r"(?i)(\(inReceptacle \?o \?r\))", r"(not \1)", text)
    ),
    "a look that counts": swap("grammar", "You are facing the [", "You face [{r.indefinite} "),
    "a condition turned round": swap(
        "grammar", '"condition": "openable(r:receptacle)"', '"condition": "opened(r:receptacle)"'
    ),
    **{
        f"a sentence with {sign}": swap("grammar", "task is to: ", f"task is to: wait{sign} then ")
        for sign in (";", "|", "<", ">", "[", "]", "#", "{", "}", "{x}", "#task#", '\\"')
    },
}


@pytest.fixture(scope="module", autouse=True)
def _fast() -> Iterator[None]:
    with cached():
        yield


def file(edit: Edit, folder: Path) -> Path:
    path = folder / "game.tw-pddl"
    scene = wear(generate("train", KITCHEN, "small"), random.Random("odd"))
    write(scene, path, *find_domain())
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SAME)
def test_odd_but_the_same(name: str, tmp_path: Path) -> None:
    path = file(SAME[name], tmp_path)
    for walk in play(path, [("tour", 90), ("garbage", 15)], 1):
        assert walk.mismatch is None, str(walk.mismatch)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    path = file(REFUSED[name], tmp_path)
    with pytest.raises(GameFileError, match=re.escape(str(path))) as error:
        read(path)
    assert str(error.value).endswith(".")
