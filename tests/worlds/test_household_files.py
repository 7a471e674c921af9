"""ALFWorld's game files: reading, writing, and error messages for broken ones."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.household_scenes import (
    APPLE_1,
    COUNTER,
    EGG,
    FRIDGE,
    KNIFE,
    MUG,
    TABLE,
    kitchen,
    with_thing,
)

from tutelage_worlds.household import (
    Game,
    GameFileError,
    Household,
    Scene,
    explore,
    generate,
    read,
    write,
)
from tutelage_worlds.household.gamefile import first_game
from tutelage_worlds.household.generate import SIZES, SPLITS
from tutelage_worlds.household.problem import ProblemError, dump, load
from tutelage_worlds.household.scene import Family, Goal, Thing


def _alfworld() -> Path | None:
    """The folder of alfred.pddl and alfred.twl2: ALFWORLD_FILES or the installed alfworld."""
    if "ALFWORLD_FILES" in os.environ:
        return Path(os.environ["ALFWORLD_FILES"])
    try:
        return Path(str(distribution("alfworld").locate_file("alfworld/data")))
    except PackageNotFoundError:
        return None


FILES = _alfworld()
needs_alfworld = pytest.mark.skipif(
    FILES is None,
    reason="alfworld is not installed and ALFWORLD_FILES does not say where alfred.pddl is",
)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_test_knows_where_the_rules_are() -> None:
    """Without, every test of ALFWorld's files is skipped where they are installed."""
    root = Path(__file__).parents[2]
    text = subprocess.run(
        ["make", "-n", "test"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "ALFWORLD_FILES"},
    ).stdout
    assert re.search(r"ALFWORLD_FILES=\S*realpath \S*-parity/lib/\S+/alfworld/data", text)


def rules() -> tuple[str, str]:
    assert FILES is not None
    return (FILES / "alfred.pddl").read_text(), (FILES / "alfred.twl2").read_text()


def same(one: Scene, other: Scene) -> bool:
    return replace(one, task="") == replace(other, task="")


VESSEL = frozenset({"pickupable", "isreceptacleobject"})
GOALS = [
    Goal(family=family, thing="Apple", receptacle="Fridge", sliced=sliced)
    for family in Family
    if family is not Family.LIGHT
    for sliced in (False, True)
] + [
    Goal(family=Family.LIGHT, thing="Mug", toggle="DeskLamp", sliced=sliced)
    for sliced in (False, True)
]


@pytest.mark.parametrize(("split", "size"), [(p, z) for p in SPLITS for z in SIZES])
def test_a_generated_scene_survives_the_problem_format(split: str, size: str) -> None:
    for seed in range(60):
        scene = generate(split, seed, size)
        assert same(load(dump(scene)), scene)


@pytest.mark.parametrize("goal", GOALS, ids=lambda g: f"{g.family.name}-{g.sliced}")
def test_every_goal_survives_the_problem_format(goal: Goal) -> None:
    assert load(dump(kitchen(goal))).goal == goal


def test_every_detail_of_a_scene_survives_the_problem_format() -> None:
    scene = with_thing(
        kitchen(),
        Thing(
            id=MUG,
            kind="Mug",
            inside=(COUNTER, TABLE),
            at=("loc_bar_3_bar_0_bar_0_bar_30", "loc_bar_5_bar_0_bar_0_bar_30"),
            holds=(EGG, KNIFE),
            traits=frozenset({"pickupable", "isreceptacleobject", "ishot", "isclean"}),
        ),
    )
    furniture = tuple(
        replace(r, open=r.openable, location="" if r.kind == "Shelf" else r.location)
        for r in scene.receptacles
    )
    loaded = load(dump(replace(scene, receptacles=furniture)))
    assert set(loaded.receptacles) == set(furniture)
    assert set(loaded.things) == set(scene.things)


def test_the_problem_may_be_written_otherwise() -> None:
    scene = generate("train", 3, "small")
    text = dump(scene)
    spaced = re.sub(r"\(", " ( ", text).replace(")", " )\n").replace(": ", ":")
    assert same(load(spaced), scene)
    was_in = f"(wasInReceptacle {scene.things[0].id} {scene.receptacles[0].id})"
    extra = f"(= (totalCost) 0)\n(= (distance loc_a loc_b) 7)\n{was_in}\n"
    assert same(load(text.replace("(:init\n", "(:init ; what is so\n" + extra)), scene)
    metric = text.rstrip().removesuffix(")") + "(:metric minimize (total-cost))\n)"
    assert same(load(metric), scene)
    shouted = load(text.upper())
    assert Game(replace(shouted, task=scene.task)).intro() == Game(scene).intro()
    assert Game(shouted).admissible() == Game(scene).admissible()


def test_ids_count_even_without_other_facts() -> None:
    text = dump(kitchen())
    third = "Apple_bar__plus_09_dot_00_bar__plus_00_dot_00_bar__plus_00_dot_00"
    text = text.replace("(:objects\n", f"(:objects\n{third} - object\n")
    assert Game(load(text)).admissible() == Game(kitchen()).admissible()
    named = load(text.replace("(:init\n", f"(:init\n(moveable {third})\n"))
    game = Game(named)
    assert "a apple 3, a apple 2, and a knife 1" in game.step("go to countertop 1")


def test_facts_that_are_denied_are_not_facts() -> None:
    text = dump(kitchen())
    denied = text.replace("(:init", f"(:init (not (opened {FRIDGE})) ( NOT (sliceable {KNIFE} ) )")
    assert load(denied) == load(text)


def test_places_where_nothing_is_count_for_the_numbers() -> None:
    idle = "loc_bar_9_bar_0_bar_0_bar_30"
    scene = replace(kitchen(), places=(idle,), task="")
    scene = replace(scene, wording=replace(scene.wording, arrived="You arrive at {l}. {seen}"))
    assert load(dump(scene)).places == (idle,)
    assert Game(scene).step("go to countertop 1").startswith("You arrive at loc 6. ")


def test_a_thing_is_not_seen_in_itself() -> None:
    mug = Thing(id=MUG, kind="Mug", inside=(TABLE,), holds=(MUG, EGG), traits=VESSEL)
    game = Game(with_thing(kitchen(), mug))
    game.step("go to diningtable 1")
    game.step("take mug 1 from diningtable 1")
    assert game.step("examine mug 1") == "This is a normal mug 1. In it, you see a egg 1."


BROKEN: list[tuple[str, Callable[[str], str]]] = [
    ("cut off", lambda text: text[: len(text) // 2]),
    ("brackets", lambda text: text.rstrip()[:-6]),
    (":objects, :init or :goal", lambda text: text.replace("(:init", "(:start")),
    (":objects, :init or :goal", lambda text: ""),
    ("unknown", lambda text: re.sub(r"\n\S+ - receptacle", "", text, count=1)),
    ("should|not about", lambda text: text.replace("(atLocation agent1 ", "(atLocation ")),
    ("0 locations", lambda text: re.sub(r"\(atLocation agent1 \S+\)", "", text)),
    ("2 locations", lambda t: re.sub(r"(\(atLocation agent1 \S+\))", r"\1 \1", t, count=1)),
    ("holds something", lambda t: t.replace("(:init", f"(:init (holds agent1 {APPLE_1})")),
    ("holds something", lambda t: t.replace("(:init", "(:init (holdsAny agent1)")),
    ("two kinds", lambda t: t.replace("(:init", f"(:init (objectType {APPLE_1} EggType)")),
    ("two kinds", lambda t: t.replace("(:init", f"(:init (receptacleType {TABLE} FridgeType)")),
    (
        "two locations",
        lambda t: t.replace(
            "(:init", f"(:init (receptacleAtLocation {TABLE} loc_bar_1_bar_0_bar_0_bar_30)"
        ),
    ),
    ("not a receptacle", lambda t: t.replace("(:init", f"(:init (inReceptacle {EGG} {MUG})")),
    ("not about an object", lambda t: t.replace("(:init", f"(:init (sliceable {TABLE})")),
    ("six families", lambda text: text.replace("(inreceptacle ?o ?r)", "")),
    ("six families", lambda text: text.replace("(inreceptacle ?o ?r)", "(holds ?a ?o)")),
    ("six families", lambda t: t.replace("(:goal (and", "(:goal (or")),
    ("six families", lambda t: t.replace("(inreceptacle ?o ?r)", "(not (inreceptacle ?o ?r))")),
    (
        "no receptacles",
        lambda t: re.sub(r"\((receptacle|open|inRec)[^)]*\)", "", t[:-400]) + t[-400:],
    ),
]


@pytest.mark.parametrize(("says", "breaks"), BROKEN)
def test_a_broken_problem_is_refused_in_words(says: str, breaks: Callable[[str], str]) -> None:
    text = dump(kitchen())
    broken = breaks(text)
    assert broken != text
    with pytest.raises(ProblemError, match=says):
        load(broken)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_problem_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    text = dump(kitchen())
    cut = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(cut, min(len(text), cut + 60)))
    damaged = text[:cut] + data.draw(st.text(max_size=8)) + text[end:]
    with suppress(ProblemError):
        assert Game(load(damaged)).admissible()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"pddl_domain": "', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "holds no JSON object"),
        (b"{}", "no text under 'pddl_domain'"),
        (b'{"pddl_domain": "", "grammar": 3, "pddl_problem": ""}', "no text under 'grammar'"),
        (b'{"pddl_domain": "(", "grammar": "", "pddl_problem": ""}', "brackets of its domain"),
        (b'{"pddl_domain": "", "grammar": "", "pddl_problem": ""}', "no rule for"),
        (
            b'{"pddl_domain": "(:action look :effect (won))", "grammar": "", "pddl_problem": ""}',
            "another rule for look",
        ),
    ],
)
def test_a_file_that_is_no_game_is_refused_by_name(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(content)
    with pytest.raises(GameFileError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "write" in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tw-pddl", tmp_path):
        with pytest.raises(GameFileError, match="check the path"):
            read(path)


def test_a_grammar_without_a_place_for_the_task_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(GameFileError, match="UNKNOWN GOAL"):
        write(kitchen(), tmp_path / "game.tw-pddl", "(domain)", "no place")
    assert not (tmp_path / "game.tw-pddl").exists()


def test_a_task_that_textworld_cannot_show_is_not_written(tmp_path: Path) -> None:
    scene = replace(kitchen(), task="put; it")
    with pytest.raises(GameFileError, match="say it without"):
        write(scene, tmp_path / "game.tw-pddl", "(domain)", "UNKNOWN GOAL")
    assert not (tmp_path / "game.tw-pddl").exists()


@needs_alfworld
def test_written_games_are_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    for split in SPLITS:
        for seed in range(12):
            scene = generate(split, seed, "small")
            write(scene, path, *rules())
            assert read(path) == scene
            data = json.loads(path.read_text())
            assert data["solvable"] is True
            game = Game(scene)
            for command in data["walkthrough"]:
                game.step(command)
            assert game.won


@needs_alfworld
def test_a_game_that_cannot_be_won_is_marked(tmp_path: Path) -> None:
    scene = kitchen(Goal(family=Family.PICK, thing="Book", receptacle="Fridge"))
    write(scene, tmp_path / "game.tw-pddl", *rules())
    data = json.loads((tmp_path / "game.tw-pddl").read_text())
    assert (data["solvable"], data["walkthrough"]) == (False, None)


def _changed(path: Path, key: str, old: str, new: str) -> None:
    data = json.loads(path.read_text())
    assert old in data[key], old
    data[key] = data[key].replace(old, new)
    path.write_text(json.dumps(data))


@needs_alfworld
def test_the_wording_of_older_files_is_read_from_them(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    write(kitchen(), path, *rules())
    _changed(path, "grammar", '"move {o} to {r}"', '"put {o} in/on {r}"')
    _changed(
        path, "grammar", "move the {o.name} to the {r.name}", "put the {o.name} in/on the {r.name}"
    )
    _changed(path, "grammar", "You arrive at {r.name}", "You arrive at {lend.name}")
    _changed(path, "pddl_domain", ";(receptacleType ?r SinkType)", "(receptacleType ?r SinkType)")
    data = json.loads(path.read_text())
    data["grammar"] = data["grammar"][: data["grammar"].index("action help")]
    data["pddl_domain"] = data["pddl_domain"][: data["pddl_domain"].index("(:action help")] + ")"
    path.write_text(json.dumps(data))
    scene = read(path)
    assert scene.sinks == {"Sink", "SinkBasin"}
    game = Game(scene)
    assert "help" not in game.admissible()
    assert game.step("go to countertop 1").startswith("You arrive at loc 5. On the countertop 1")
    game.step("take apple 1 from countertop 1")
    assert game.step("put apple 1 in/on countertop 1") == (
        "You put the apple 1 in/on the countertop 1."
    )
    assert explore(scene)[-1] == "put apple 2 in/on fridge 1"


@needs_alfworld
def test_the_task_of_a_file_may_be_any_sentence(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    write(replace(kitchen(), task="Place a cold apple, near the door."), path, *rules())
    scene = read(path)
    assert scene.task == "Place a cold apple, near the door."
    assert scene.wording == kitchen().wording
    _changed(path, "grammar", "Your task is to: Place", "Do this! Place")
    assert Game(read(path)).intro().endswith("\n\nDo this! Place a cold apple, near the door..")


@needs_alfworld
@pytest.mark.parametrize(
    ("key", "old", "new", "says"),
    [
        ("pddl_domain", "(not (opened ?r))", "(opened ?r)", "another rule for openobject"),
        ("pddl_domain", "(:action CoolObject", "(:action ChillObject", "for chillobject"),
        ("grammar", "action CoolObject", "action ChillObject", "no words for CoolObject"),
        ("grammar", "This is a cold", "This is a chilly", "rule 'examineObject.feedback'"),
        ("grammar", '", and "', '" and "', "rule 'list_last_separator'"),
        ("grammar", "You are facing", "You face", "rule 'look-variations'"),
        ("grammar", "You close the {r.name}", "You close {a.name}", "for 'closed'"),
        ("grammar", "You close the {r.name}", "You close the {o.name}", "for 'closed'"),
        ("grammar", "You close the {r.name}", "You close #secret#", "for 'closed'"),
        ("grammar", "You close the {r.name}", "You close [it]", "for 'closed'"),
        ("grammar", "You close the {r.name}", "You close; it", "for 'closed'"),
        ("grammar", '"close {r}"', '"close {o}"', "for 'close'"),
        ("grammar", "task is to: put", "task is to: put; ", "TextWorld cannot show"),
        ("grammar", '"You close the {r.name}."', "3", "not what TextWorld reads"),
        ("grammar", '"holdsany(a:agent)"', '"holds(a:agent)"', "rule 'inventory.feedback'"),
        ("grammar", '"task": [', '"tusk": [', "one rule 'task'"),
        ("grammar", '"rhs": "You open', '"lhs": "You open', "not what TextWorld reads"),
        ("grammar", '"task": [', '"task": [[', "not what TextWorld reads"),
    ],
)
def test_rules_and_sentences_that_the_engine_does_not_know_are_refused(
    tmp_path: Path, key: str, old: str, new: str, says: str
) -> None:
    path = tmp_path / "game.tw-pddl"
    write(kitchen(), path, *rules())
    _changed(path, key, old, new)
    with pytest.raises(GameFileError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_families_of_a_folder_take_turns_and_it_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("pick_and_place_simple", "pick_heat_then_place_in_recep", "pick_two_obj_and_place")
    counts = dict(zip(kinds, (4, 1, 2), strict=True))
    for kind, count in counts.items():
        for k in range(count):
            folder = tmp_path / "valid_seen" / f"{kind}-A-None-B-1" / f"trial_{k}"
            folder.mkdir(parents=True)
            (folder / "game.tw-pddl").write_text('{"solvable": true}')
    tasks = Household(games=tmp_path).tasks("seen")
    assert [kinds.index(task.family) for task in tasks] == [0, 1, 2, 0, 2, 0, 0]
    assert [task.seed for task in tasks] == [0, 4, 5, 1, 6, 2, 3]
    assert len({task.id for task in tasks}) == 7
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read again"))
    assert Household(games=tmp_path).tasks("seen") == tasks


def test_the_first_game_is_one_that_is_played(tmp_path: Path) -> None:
    """The sentences of the instructions are read from it, and others cannot be read at all."""
    names = {
        "train/pick_and_place_with_movable_recep-A-B-C-1/trial_1": "true",
        "train/pick_and_place_simple-AppleSliced-None-B-1/trial_1": "true",
        "train/pick_and_place_simple-A-None-B-1/trial_1": "false",
        "valid_seen/pick_and_place_simple-A-None-B-1/trial_2": "true",
        "valid_seen/pick_and_place_simple-A-None-B-1/trial_1": "true",
    }
    for name, solvable in names.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "game.tw-pddl").write_text(f'{{"solvable": {solvable}}}')
    assert first_game(tmp_path).parent == tmp_path / [*names][-1]
    shutil.rmtree(tmp_path / "valid_seen")
    with pytest.raises(GameFileError, match="can be played was found"):
        first_game(tmp_path)


@needs_alfworld
def test_a_folder_of_games_is_a_suite(tmp_path: Path) -> None:
    names = {
        "pick_and_place_simple-A-None-B-1/trial_2": True,
        "pick_and_place_simple-A-None-B-1/trial_1": True,
        "look_at_obj_in_light-A-None-B-1/trial_1": True,
        "pick_and_place_with_movable_recep-A-B-C-1/trial_1": True,
        "pick_and_place_simple-AppleSliced-None-B-1/trial_1": True,
        "pick_cool_then_place_in_recep-A-None-B-1/trial_1": False,
        "mine": True,
    }
    for name, solvable in names.items():
        folder = tmp_path / "valid_seen" / name
        folder.mkdir(parents=True)
        write(kitchen(), folder / "game.tw-pddl", *rules())
        if not solvable:
            path = folder / "game.tw-pddl"
            path.write_text(path.read_text().replace('"solvable": true', '"solvable": false'))
    suite = Household(games=tmp_path)
    tasks = suite.tasks("seen")
    assert [task.id for task in tasks] == [
        "valid_seen/look_at_obj_in_light-A-None-B-1/trial_1",
        "valid_seen/mine",
        "valid_seen/pick_and_place_simple-A-None-B-1/trial_1",
        "valid_seen/pick_and_place_simple-A-None-B-1/trial_2",
    ]
    assert [task.family for task in tasks] == [
        "look_at_obj_in_light",
        *["pick_and_place_simple"] * 3,
    ]
    env = suite.make()
    assert env.reset(tasks[1]).text == Game(kitchen()).intro()
    for command in suite.demonstrate(tasks[1]):
        observation = env.step(command)
    assert observation.won
    assert observation.reward == 1.0
    assert "move O to R" in suite.instructions()
    for split in ("train", "unseen"):
        with pytest.raises(GameFileError, match="valid_seen and valid_unseen"):
            suite.tasks(split)
    with pytest.raises(GameFileError, match="No game"):
        Household(games=tmp_path / "nowhere").instructions()
