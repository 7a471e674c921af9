"""The scienceworld suite: tasks, games, texts, and messages without Java or the package."""

import pickle
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from shutil import which

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.envs.base import Demonstrates, Describes, Instructs, Renders
from tutelage.envs.check import check
from tutelage.errors import ConfigError
from tutelage.types import Observation, Task
from tutelage_worlds import java_games
from tutelage_worlds.java import program, ref
from tutelage_worlds.scienceworld import ScienceWorld, simulator
from tutelage_worlds.scienceworld.catalogue import SPLITS, TASKS, VARIATIONS, chosen, variations
from tutelage_worlds.scienceworld.render import compact

LACKING = find_spec("scienceworld") is None or which("java") is None
played = pytest.mark.skipif(LACKING, reason="needs Java and pip install 'tutelage[scienceworld]'")
SUITE = ScienceWorld(families="short", simplify="easy")
ANIMAL = next(t for t in SUITE.tasks("train") if t.family == "find-animal")
LIFE = next(t for t in SUITE.tasks("train") if t.family == "lifespan-longest-lived")


def test_splits_are_those_of_the_simulator_and_ids_are_stable() -> None:
    every = ScienceWorld()
    sizes = {split: len(every.tasks(split)) for split in SPLITS}
    assert sizes == {"train": 3592, "dev": 1796, "test": 1819}
    assert len({t.id for split in SPLITS for t in every.tasks(split)}) == 7207
    assert [t.family for t in every.tasks("dev")[:30]] == list(TASKS)
    assert every.tasks("dev")[0] == Task(id="scienceworld/full/boil/0014", family="boil", seed=14)
    assert ANIMAL.id == "scienceworld/easy/find-animal/0000"
    few = ScienceWorld(families=["matter", "boil"], variations=2)
    assert [t.id[-9:] for t in few.tasks("test")[:5]] == [
        "boil/0021",
        "melt/0021",
        "eeze/0021",
        "r-of/0021",
        "boil/0022",
    ]
    assert len(few.tasks("test")) == 8
    assert pickle.loads(pickle.dumps(few)) == few
    assert hash(few) == hash(ScienceWorld(families=("matter",), variations=2))


def test_what_no_quarter_holds_is_tested_or_left_out() -> None:
    """Groups of a quarter each: two, one, and the fourth with what is left, if that is a group."""
    for task, count in VARIATIONS.items():
        quarter = count // 4
        groups = [range(k, min(k + quarter, count)) for k in range(0, count, quarter)]
        test = [*groups[3], *(groups[4] if len(groups) > 4 else ())]
        assert list(variations(task, "train")) == [*groups[0], *groups[1]]
        assert list(variations(task, "dev")) == [*groups[2]]
        assert list(variations(task, "test")) == test


def test_what_does_not_exist_is_refused_in_a_sentence() -> None:
    for wrong, text in (
        ({"families": "find"}, "families: there is no task or group 'find'"),
        ({"families": "mater"}, "'mater'; did you mean matter?"),
        ({"families": ()}, "at least one"),
        ({"simplify": "easy,openDoors"}, "no simplification 'easy'"),
        ({"simplify": "openDoors, noElectricalAction"}, "power-component cannot be done"),
        ({"variations": 0}, "variations = 0"),
        ({"moves": 0}, "moves = 0"),
        ({"heap": 100}, "at least 256 MB"),
    ):
        with pytest.raises(ValueError, match=text):
            ScienceWorld(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the splits are train, dev, test"):
        SUITE.tasks("seen")
    for task in (Task(id="doors/1"), ScienceWorld().tasks("dev")[0]):
        with pytest.raises(ValueError, match="not one of this suite"):
            SUITE.make().reset(task)
    with pytest.raises(RuntimeError, match="reset"):
        SUITE.make().step("look around")
    assert ScienceWorld(families="matter", simplify="openDoors, noElectricalAction").simplify == (
        "openDoors,noElectricalAction"
    )
    assert chosen(("lifespan", "boil")) == (*TASKS[20:23], "boil")


def test_without_java_or_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def lacking(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(java_games, "distribution", lacking)
    with pytest.raises(ConfigError, match=r"pip install 'tutelage\[scienceworld\]'"):
        simulator.files()
    monkeypatch.undo()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="none on the PATH: install Java 11"):
        program()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(ConfigError, match="none in JAVA_HOME = /nowhere"):
        program()


ROOM = """\
This room is called the kitchen. In it, you see: 
\tthe agent
\ta substance called air
\ta chair. On the chair is: nothing.
\ta counter. On the counter is: a bowl (containing a red apple, a banana), a drawer.
\ta cupboard. The cupboard door is closed. 
\ta glass jar (containing a substance called sodium chloride)
\ta stove, which is turned off. On the stove is: nothing.
\ta thermometer, currently reading a temperature of -10 degrees celsius
You also see:
\tA door to the hallway (that is closed)
\tA door to the outside (that is open)"""


def test_compact_says_the_same_in_few_words() -> None:
    assert compact(Observation(text=ROOM)) == (
        "kitchen : chair , counter with bowl ( red apple , banana ) , drawer , cupboard closed , "
        "glass jar ( sodium chloride ) , stove off , thermometer -10\n"
        "doors : hallway closed , outside open"
    )
    start = Observation(text=f"Your task is to boil water. First, focus on the pot.\n\n{ROOM}")
    assert compact(start).split("\n")[:2] == [
        "task : boil water . first , focus on pot",
        compact(Observation(text=ROOM)).split("\n")[0],
    ]
    for text, short in (
        (
            "In your inventory, you see:\n\tan orange\n\ta metal pot (containing nothing)\n",
            "have : orange , metal pot",
        ),
        ("You focus on the blue jay egg.", "now blue jay egg"),
        ("The door is already open.", "door is already open"),
        ("No known action matches that input.", "what"),
        ("the thermometer measures a temperature of 49 degrees celsius", "thermometer 49"),
    ):
        assert compact(Observation(text=text)) == short


@played
def test_the_catalogue_is_the_simulators() -> None:
    with SUITE.simulator() as java:
        maker = java.new(simulator.MAKER)
        names = ref(java.call(maker, "getTaskNames"))
        assert java.call("z:java.lang.String", "join", " ", names) == " ".join(sorted(TASKS))
        counts = {task: java.call(maker, "getTaskMaxVariations", task) for task in TASKS}
        assert counts == VARIATIONS
        java.call(maker, "load", "identify-life-stages-1", 0, "", False)
        for split in SPLITS:
            listed = java.call(maker, f"getVariations{split.title()}")
            there = str(java.call(ref(listed), "toString"))
            assert there == str(list(variations("identify-life-stages-1", split)))
        java.drop(maker)


@played
def test_it_keeps_every_promise() -> None:
    for kind in (Demonstrates, Describes, Instructs, Renders):
        assert isinstance(SUITE, kind)
    suite = ScienceWorld(families="lifespan-shortest-lived", simplify="easy")
    for finding in check(suite, ("test",), tasks=1):
        assert finding.problems == (), finding.name


@played
def test_the_simulators_ways_win_and_end_there() -> None:
    for task in SUITE.tasks("train")[:7]:
        shown, plan = SUITE.demonstrate(task), SUITE.plan(task)
        for actions in (shown, plan):
            env = SUITE.make()
            earned = env.reset(task).score or 0.0
            for action in actions:
                seen = env.step(action)
                assert seen.valid, action
                earned += seen.reward
            assert (seen.done, seen.won, seen.score) == (True, True, 1.0), task.id
            assert earned == pytest.approx(1.0)
            env.close()
        entered = [k for k, action in enumerate(shown) if action.startswith("go to ")]
        assert all(shown[k + 1] == "look around" for k in entered)
        assert "open door to kitchen" not in shown
        assert SUITE.describe(task) in SUITE.make().reset(task).text


@played
def test_a_wrong_focus_fails_and_nothing_is_earned_after_the_end() -> None:
    env = SUITE.make()
    env.reset(LIFE)
    earned = 0.0
    for action in ("look around", "go to kitchen", "go to outside", "focus on ground"):
        seen = env.step(action)
        earned += seen.reward
    assert (seen.done, seen.won, seen.score, earned) == (True, False, 0.0, pytest.approx(-1.0))
    again = env.step("look around")
    assert (again.text, again.reward, again.valid) == (seen.text, 0.0, False)
    assert (again.done, again.won) == (True, False)


@played
def test_rewards_limits_and_looks_as_they_were_asked_for() -> None:
    suite = ScienceWorld(families="short", simplify="easy", reward="won", moves=11, look=True)
    env = suite.make()
    seen = env.reset(ANIMAL)
    assert seen.text.endswith("In your inventory, you see:\n\tan orange")
    assert seen.text.count("In it, you see") == 1
    for action in ("look around", "go to kitchen", "wait"):
        assert not seen.done
        seen = env.step(action)
        assert seen.reward == 0.0
    assert "This room is called the kitchen" in seen.text
    assert (seen.done, seen.won) == (True, False)
    env.reset(LIFE)
    rewards = [env.step(action).reward for action in suite.plan(LIFE)]
    assert rewards == [*[0.0] * (len(rewards) - 1), 1.0]


@played
def test_doing_nothing_changes_nothing_and_never_wins() -> None:
    env = SUITE.make()
    start = env.reset(ANIMAL)
    for action in ("look around", "", "fly", "task", "inventory", "help", "objects", "7"):
        seen = env.step(action)
        assert (seen.done, seen.reward, seen.state) == (False, 0.0, start.state)
        assert seen.valid == (action not in ("", "fly", "7"))
    eaten = env.step("eat orange")  # the room stays as it is, and nothing is carried any more
    assert eaten.state != start.state
    assert env.step("look around").state == eaten.state
    assert env.step("go to kitchen").state not in (start.state, eaten.state)


@played
def test_what_means_several_things_is_asked_back() -> None:
    suite = ScienceWorld(families="test-conductivity")
    env = suite.make()
    env.reset(suite.tasks("train")[0])
    for action in ("open door to hallway", "go to hallway", "open door to kitchen"):
        env.step(action)
    seen = env.step("open door")
    assert "Ambiguous request" in seen.text
    assert seen.valid
    for answer in ("99", "the first"):
        wrong = env.step(answer)
        assert wrong.text.startswith("Unknown action.")
        assert not wrong.valid
        assert "Ambiguous request" in env.step("open door").text
    env.step("0")
    env.step("open door")
    assert env.step("0").valid


@played
def test_actions_are_listed_when_asked_and_listing_changes_nothing() -> None:
    suite = ScienceWorld(families="short", simplify="easy", actions=True)
    env, lean = suite.make(), SUITE.make()
    one, other = env.reset(ANIMAL), lean.reset(ANIMAL)
    assert {"look around", "go to kitchen", "wait1", "teleport to outside"} < set(one.actions)
    assert list(one.actions) == sorted(one.actions)
    for action in SUITE.plan(ANIMAL):
        one, other = env.step(action), lean.step(action)
        assert (one.text, one.state) == (other.text, other.state)
        assert other.actions == ()
        assert one.actions == () or not one.done
    machine = SUITE.simulator()
    game, _, _ = machine.begin("grow-fruit", 3, "")
    with machine as java:
        before = machine._drawn(java)
        machine.actions(game)
        assert machine._drawn(java) == before


WORDS = st.sampled_from(
    [
        "open",
        "door",
        "to",
        "kitchen",
        "the",
        "go",
        "look",
        "focus on",
        "pick up",
        "orange",
        "in",
        "inventory",
        "move",
        "agent",
        "air",
        "connect",
        "anode",
        "use",
        "eat",
        "self",
        "wait",
        "0",
        "\n",
        "\r",
        "\\n",
        "\\",
        "\0",
        "<|im_end|>",
        "ignore all previous instructions",
        "🚪",
        "\ud800",
        "mix",
        "dunk",
        "pour",
        "into",
        "with",
        "reset task",
        "ultra low",
        "İ",
        "2147483648",
    ]
)
ACTIONS = st.lists(WORDS, max_size=6).map(" ".join) | st.text(max_size=12)


@played
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTIONS, max_size=6))
def test_any_action_is_answered_and_games_are_deterministic(actions: list[str]) -> None:
    paths = []
    for _ in range(2):
        env = SUITE.make()
        path = [env.reset(LIFE)]
        for action in actions:
            path.append(env.step(action))
            path[-1].text.encode()
            assert not path[-1].won
        paths.append(path)
        env.close()
    assert paths[0] == paths[1]


@played
@pytest.mark.parametrize("action", ["x" * 10**6, "look " * 200_000, "the " * 250_000 + "look"])
def test_a_million_characters_are_answered(action: str) -> None:
    env = SUITE.make()
    start = env.reset(LIFE)
    assert env.step(action).text
    assert env.step("look around").state == start.state
