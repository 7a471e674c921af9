"""The household suite: tasks, environment, and the compact rendering."""

import pickle
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.report import ALONE
from support.household_scenes import kitchen

from tutelage.config.schema import EnvSection
from tutelage.envs.base import Demonstrates, Instructs, Renders
from tutelage.envs.registry import suite_of
from tutelage.errors import EnvError
from tutelage.types import Observation, Task
from tutelage_worlds.household import Game, Household, generate, needs, textworld
from tutelage_worlds.household.gamefile import FOLDERS
from tutelage_worlds.household.generate import FAMILIES, SIZES
from tutelage_worlds.household.render import compact, marked

NAME = re.compile(r"[a-z]+ \d+")


@pytest.fixture
def suite() -> Household:
    return Household(train=24, seen=6, unseen=6, size="small")


def test_it_does_all_that_a_suite_can_do(suite: Household) -> None:
    assert isinstance(suite, Demonstrates)
    assert isinstance(suite, Renders)
    assert isinstance(suite, Instructs)
    assert "move O to R" in suite.instructions()


def test_tasks_have_stable_ids_and_are_generated_on_access(suite: Household) -> None:
    tasks = suite.tasks("train")
    assert len(tasks) == 24
    assert tasks[5] == Task(
        id="household/small/train/0000005",
        family="pick_two_obj_and_place",
        seed=5,
        data={"split": "train", "size": "small"},
    )
    assert tasks[-1] == tasks[23]
    assert list(tasks) == [tasks[i] for i in range(24)] == list(tasks[:])
    assert [task.seed for task in tasks[20:2:-6]] == [20, 14, 8]
    assert (
        len({task.id for split in ("train", "seen", "unseen") for task in suite.tasks(split)}) == 36
    )
    for index in (24, -25):
        with pytest.raises(IndexError, match="has 24"):
            tasks[index]
    endless = Household(train=10**12).tasks("train")
    assert endless[10**11].id == "household/full/train/100000000000"
    assert pickle.loads(pickle.dumps((suite, tasks))) == (suite, tasks)


def test_splits_are_as_long_as_alfworlds_and_the_page_says_so() -> None:
    suite = Household()
    counts = {split: len(suite.tasks(split)) for split in FOLDERS}
    assert counts == {"train": 3553, "seen": 140, "unseen": 134}
    page = (Path(__file__).parents[2] / "docs" / "environments" / "household.md").read_text()
    for split, folder in FOLDERS.items():
        assert f"| `{split}` | `{folder}` | {counts[split]:,} |" in page


def test_the_page_of_parity_names_the_files_that_we_alone_refuse() -> None:
    assert ALONE in (Path(__file__).parents[2] / "docs" / "parity.md").read_text()


def test_textworld_is_asked_for_by_name_and_never_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="no engine 'inform'; the engines are native, textworld"):
        Household(engine="inform")  # type: ignore[arg-type]
    suite = Household(engine="textworld")
    assert set(suite.renders()) == {"compact"}
    monkeypatch.setattr(textworld, "find_spec", lambda _: None)
    with pytest.raises(
        EnvError, match=r"textworld is not installed: pip install .textworld\[pddl\]==1\.7\.0"
    ):
        suite.make()
    wanted = {need.name: need.required for need in needs({"engine": "textworld"})}
    assert wanted == {"games": False, "textworld": True, "alfworld": True}
    assert not any(need.required for need in needs({}))
    assert "alfworld" not in {n.name for n in needs({"engine": "textworld", "games": "here"})}


def test_what_cannot_be_is_refused_in_a_sentence(suite: Household) -> None:
    with pytest.raises(ValueError, match="the sizes are full, small"):
        Household(size="huge")
    with pytest.raises(ValueError, match="seen = -1"):
        Household(seen=-1)
    with pytest.raises(ValueError, match="the splits are train, seen, unseen"):
        suite.tasks("test")
    env = suite.make()
    with pytest.raises(RuntimeError, match="reset"):
        env.step("look")
    with pytest.raises(ValueError, match="not a household task"):
        env.reset(Task(id="doors/1"))


@pytest.mark.parametrize("size", SIZES)
def test_demonstrations_and_plans_are_played_to_the_end(size: str) -> None:
    suite = Household(train=18, size=size)
    env = suite.make()
    for task in suite.tasks("train"):
        for way in (suite.demonstrate(task), suite.plan(task)):
            shown = env.reset(task)
            assert (shown.done, shown.won, shown.reward, shown.valid) == (False, None, 0.0, True)
            for i, action in enumerate(way):
                assert action in shown.actions
                shown = env.step(action)
                last = i == len(way) - 1
                assert (shown.done, shown.reward) == (last, float(last))
                assert shown.won is (True if last else None)
                assert shown.valid
    env.close()


def test_families_are_those_of_the_games(suite: Household) -> None:
    for task in suite.tasks("unseen"):
        assert generate("unseen", task.seed, "small").goal.family == task.family
    assert {task.family for task in suite.tasks("seen")} == set(FAMILIES)


def test_a_suite_with_a_list_of_families_is_a_key() -> None:
    """TextWorld's processes are kept by suite, and a file's families are a list."""
    two = [family.value for family in FAMILIES[:2]]
    suite = suite_of(EnvSection(suite="household", options={"families": two}), calls=False)
    assert {suite: 1}[Household(families=two)] == 1  # type: ignore[index]


def test_invalid_actions_change_nothing_and_are_marked(suite: Household) -> None:
    env = suite.make()
    before = env.reset(suite.tasks("seen")[1])
    after = env.step("dance")
    assert (after.text, after.valid, after.done, after.reward) == (
        "Nothing happens.",
        False,
        False,
        0,
    )
    assert (after.state, after.actions) == (before.state, before.actions)


def test_states_are_equal_in_equal_situations_of_one_task_only(suite: Household) -> None:
    one, two = suite.make(), suite.make()
    tasks = suite.tasks("train")
    start = one.reset(tasks[0])
    assert start.state == two.reset(tasks[0]).state
    assert start.state != two.reset(tasks[1]).state
    assert len({two.reset(task).state for task in tasks}) == len(tasks)
    first, second = [a for a in start.actions if a.startswith("go to")][:2]
    one.step(second)
    two.reset(tasks[0])
    assert one.step(first).state == two.step(first).state
    assert one.reset(tasks[0]) == start
    one.step(second)
    assert one.reset(tasks[0]) == start


def test_closing_forgets_the_game(suite: Household) -> None:
    env = suite.make()
    env.reset(suite.tasks("seen")[0])
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="reset"):
        env.step("look")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Nothing happens.", "nothing"),
        ("You arrive at fridge 1. The fridge 1 is closed.", "fridge 1 : closed"),
        ("You arrive at loc 12. The fridge 1 is closed.", "fridge 1 : closed"),
        (
            "You arrive at countertop 1. On the countertop 1, you see a apple 1, and a mug 2.",
            "countertop 1 : apple 1 , mug 2",
        ),
        ("On the sinkbasin 1, you see nothing.", "sinkbasin 1 : nothing"),
        (
            "You open the fridge 1. The fridge 1 is open. "
            "In it, you see a egg 2, a egg 1, and a cup 1.",
            "fridge 1 : egg 2 , egg 1 , cup 1",
        ),
        ("The fridge 1 is open. In it, you see nothing.", "fridge 1 : nothing"),
        ("You close the fridge 1.", "fridge 1 : closed"),
        ("You pick up the egg 2 from the fridge 1.", "have egg 2"),
        ("You move the egg 2 to the fridge 1.", "egg 2 : fridge 1"),
        ("You put the egg 2 in/on the fridge 1.", "egg 2 : fridge 1"),
        ("You heat the egg 2 using the microwave 1.", "hot egg 2"),
        ("You cool the egg 2 using the fridge 1.", "cool egg 2"),
        ("You clean the egg 2 using the sinkbasin 1.", "clean egg 2"),
        ("You sliced the egg 2 with the knife 1.", "sliced egg 2"),
        ("You turn on the desklamp 1.", "on desklamp 1"),
        ("You are carrying: a egg 2.", "have egg 2"),
        ("You are not carrying anything.", "have nothing"),
        (
            "You are facing the desk 1, and shelf 2. Next to it, you see nothing.",
            "at desk 1 , shelf 2 : nothing",
        ),
        (
            "You are in the middle of a room. Looking quickly around you, you see nothing.",
            "see nothing",
        ),
        ("This is a normal mug 1. In it, you see a pen 1.", "mug 1 : pen 1"),
        ("This is a hot and clean apple 1.", "apple 1 : hot and clean"),
        ("This is a cold apple 1.", "apple 1 : cold"),
        ("There's nothing special about egg 2.", "egg 2 : plain"),
        ("Somebody knocks at the door 1.", "Somebody knocks at the door 1."),
        ("", ""),
    ],
)
def test_compact_says_the_same_in_fewer_words(text: str, short: str) -> None:
    assert compact(Observation(text=text)) == short


@pytest.mark.parametrize(
    ("task", "short"),
    [
        ("put a apple in fridge", "put apple , fridge"),
        ("put some apple on fridge", "put apple , fridge"),
        ("put a clean apple in fridge", "clean apple , fridge"),
        ("clean some apple and put it in fridge", "clean apple , fridge"),
        ("put a hot apple in fridge", "heat apple , fridge"),
        ("heat some apple and put it in fridge", "heat apple , fridge"),
        ("put a cool apple in fridge", "cool apple , fridge"),
        ("cool some apple and put it in fridge", "cool apple , fridge"),
        ("put two cd in safe", "two cd , safe"),
        ("find two cd and put them in safe", "two cd , safe"),
        ("look at book under the desklamp", "look book , desklamp"),
        ("examine the book with the desklamp", "look book , desklamp"),
        ("Put the book away, please.", "Put the book away, please."),
    ],
)
def test_compact_says_the_task_in_a_few_words(task: str, short: str) -> None:
    scene = kitchen(task=task)
    assert compact(Observation(text=Game(scene).intro())) == (
        f"task : {short}\nsee cabinet 2 , cabinet 1 , countertop 1 , diningtable 1 , "
        "fridge 1 , microwave 1 , shelf 1 , sinkbasin 1"
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(SIZES)), st.randoms(use_true_random=False))
def test_compact_names_nothing_that_the_text_does_not(seed: int, size: str, rng: Random) -> None:
    game = Game(generate("train", seed, size))
    texts = [game.intro(), *(game.step(rng.choice(game.admissible())) for _ in range(40))]
    for text in texts:
        short = compact(Observation(text=text))
        if "Available commands" in text:
            assert short == text
            continue
        assert set(NAME.findall(short)) <= set(NAME.findall(text))
        assert len(short.split()) <= len(text.split())
        assert not re.search(r"[.]|You|  |[^ ],", short)
        seen = text.split("you see ")
        if len(seen) > 1:  # whatever is seen is passed on
            assert set(NAME.findall(seen[-1])) <= set(NAME.findall(short))


def test_compact_is_the_suite_s_own_wording(suite: Household) -> None:
    assert suite.renders() == {"compact": compact, "marked": marked}
