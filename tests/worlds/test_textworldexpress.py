"""The textworldexpress suite: tasks, games in one JVM, gold paths, and messages without Java."""

import os
import pickle
import random
import re
import signal
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from shutil import which
from typing import Any

import pytest

from tutelage.config.schema import EnvSection
from tutelage.envs.check import check
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Observation, Task
from tutelage_worlds import java_games
from tutelage_worlds.textworldexpress import TextWorldExpress, needs
from tutelage_worlds.textworldexpress import simulator as host
from tutelage_worlds.textworldexpress.render import compact
from tutelage_worlds.textworldexpress.simulator import Simulator, Which, simulator
from tutelage_worlds.textworldexpress.suite import GAMES, SPLITS, TextWorldExpressEnv

LACKING = find_spec("textworld_express") is None or which("java") is None
played = pytest.mark.skipif(
    LACKING, reason="needs Java and pip install 'tutelage[textworldexpress]'"
)
SUITE = TextWorldExpress()


def test_splits_are_those_of_the_simulator_and_ids_are_stable() -> None:
    assert {split: len(SUITE.tasks(split)) for split in SPLITS} == dict.fromkeys(SPLITS, 8000)
    assert len({task.id for split in SPLITS for task in SUITE.tasks(split)}) == 24_000
    assert [task.family for task in SUITE.tasks("dev")[:8]] == list(GAMES)
    first = Task(id="textworldexpress/cookingworld/20000", family="cookingworld", seed=20_000)
    assert SUITE.tasks("test")[0] == first
    few = TextWorldExpress(families=["twc", "coin"], seeds=2, params={"coin": "numLocations=4"})
    assert [task.id.removeprefix("textworldexpress/") for task in few.tasks("train")] == [
        "twc/00000",
        "coin[numLocations=4]/00000",
        "twc/00001",
        "coin[numLocations=4]/00001",
    ]
    assert pickle.loads(pickle.dumps(few)) == few


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": "coins"}, "there is no game 'coins'; did you mean coin"),
        ({"families": []}, "name at least one game"),
        ({"families": "coin", "params": {"twc": ""}}, "params: 'twc' is not among the games"),
        ({"params": {"chess": ""}}, "params: 'chess' is not among"),
        ({"seeds": 1001}, "there are 1 to 1000"),
        ({"heap": 1}, "at least 64 MB"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        suite_of(EnvSection(suite="textworldexpress", options=options))


def test_splits_and_tasks_that_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no split 'seen'"):
        SUITE.tasks("seen")
    for task in (
        Task(id="textworldexpress/coin/00003", family="coin", seed=4),
        Task(id="textworldexpress/coin/05000", family="coin", seed=5000),
        Task(id="other", family="chess"),
    ):
        with pytest.raises(ValueError, match="is not one of this suite"):
            SUITE.make().reset(task)
    with pytest.raises(RuntimeError, match="call reset"):
        SUITE.make().step("look around")


def test_without_the_package_or_java_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> Any:
        raise PackageNotFoundError(name)

    assert {need.name for need in needs({})} == {"Java 11 or newer", "textworld-express"}
    monkeypatch.setattr(java_games, "distribution", lacking)
    with pytest.raises(ConfigError, match=re.escape("pip install 'tutelage[textworldexpress]'")):
        Simulator(256).begin(Which("coin", "", 0, "train"))
    monkeypatch.undo()
    if not LACKING:
        monkeypatch.setenv("JAVA_HOME", "/none")
        with pytest.raises(
            ConfigError, match="textworldexpress runs in Java, and there is none in"
        ):
            Simulator(256).begin(Which("coin", "", 0, "train"))


def won(task: Task) -> None:
    env, total = SUITE.make(), 0.0
    seen = env.reset(task)
    for action in SUITE.demonstrate(task):
        assert not seen.done
        seen = env.step(action)
        assert seen.valid, (task.id, action, seen.text)
        total += seen.reward
    assert (seen.done, seen.won, seen.score) == (True, True, 1.0), task.id
    assert total == pytest.approx(1.0)
    env.close()


@played
@pytest.mark.parametrize("game", GAMES)
def test_gold_paths_win(game: str) -> None:
    for split, first in SPLITS.items():
        if split != "dev":
            won(TextWorldExpress(families=game).tasks(split)[first % 7])


@played
@pytest.mark.nightly
@pytest.mark.parametrize("game", GAMES)
def test_gold_paths_of_many_seeds_win(game: str) -> None:
    for split in SPLITS:
        for task in TextWorldExpress(families=game).tasks(split)[:20]:
            won(task)


def walk(env: TextWorldExpressEnv, task: Task, steps: int) -> Any:
    """Random actions, most of them possible ones; each observation is yielded."""
    draw, seen = random.Random(task.id), env.reset(task)
    yield seen
    for _ in range(steps):
        if seen.done:
            return
        seen = env.step(draw.choice([*seen.actions, "xyzzy"]))
        yield seen


@played
def test_games_beside_each_other_are_the_games_alone() -> None:
    """Two copies of one task too: in the package they take each other's things."""
    tasks = [task for task in SUITE.tasks("dev")[:16] for _ in range(2)]
    tasks = tasks if os.environ.get("NIGHTLY") else tasks[:16]
    walks = [walk(SUITE.make(), task, 12) for task in tasks]
    together: list[list[Observation]] = [[] for _ in tasks]
    for _ in range(13):
        for game, seen in zip(walks, together, strict=True):
            seen += [each for _, each in zip(range(1), game, strict=False)]
    env = SUITE.make()
    alone = [list(walk(env, task, 12)) for task in tasks]
    assert together == alone
    assert sum(map(len, alone)) > 150
    assert any(not seen.valid for game in alone for seen in game)


@played
def test_a_dead_machine_is_replaced_in_the_middle_of_a_game() -> None:
    task = TextWorldExpress(families="mapreader").tasks("train")[1]
    machine, env = simulator(SUITE.heap), SUITE.make()
    env.reset(task)
    script = list(SUITE.demonstrate(task))
    for action in script[:4]:
        env.step(action)
    starts, process = machine.starts, machine.process
    assert process is not None
    os.kill(process, signal.SIGKILL)
    for action in script[4:]:
        seen = env.step(action)
    assert seen.won
    assert machine.starts == starts + 1


@played
def test_parameters_are_the_simulators() -> None:
    suite = TextWorldExpress(families="coin", params={"coin": "numLocations=2,includeDoors=0"})
    seen = suite.make().reset(suite.tasks("train")[0])
    assert "door" not in seen.text.split("\n\n")[1]
    wrong = TextWorldExpress(families="coin", params={"coin": "numRooms=2"})
    with pytest.raises(ConfigError, match=re.escape("env.options.params")):
        wrong.make().reset(wrong.tasks("train")[0])


@played
def test_the_checks_of_an_environment_pass() -> None:
    suite = suite_of(
        EnvSection(suite="textworldexpress", options={"families": ["simonsays", "mapreader"]})
    )
    found = check(suite, ["train"], tasks=2)
    assert [problem for finding in found for problem in finding.problems] == []


@played
def test_rewards_looks_and_ends() -> None:
    task = TextWorldExpress(families="simonsays").tasks("train")[0]
    suite = TextWorldExpress(reward="won", look=True)
    env = suite.make()
    first = env.reset(task)
    wrong = next(a for a in first.actions if a not in suite.demonstrate(task))
    seen = env.step(wrong)
    assert (seen.done, seen.won, seen.reward) == (True, False, 0.0)
    assert not env.step("look around").valid
    assert env.step(wrong).done
    kitchen = TextWorldExpress(look=True, families="coin")
    assert "inventory" in kitchen.make().reset(kitchen.tasks("train")[0]).text.lower()
    assert suite.describe(task) in first.text


def test_an_answer_that_is_none_is_an_error_of_the_environment() -> None:
    with pytest.raises(EnvError, match="install textworld-express"):
        host._shown('{"observation": "a"}')


def test_compact_words() -> None:
    text = (
        "Your task is to find the coin.\n\nYou are in the kitchen. In one part of the room you see "
        "a stove. There is also an oven. You also see a fridge that is closed. \n"
        "To the North you see the backyard. Through an open plain door, to the East you see the "
        "attic. \nInventory (maximum capacity is 2 items): \n  Your inventory is currently empty."
    )
    assert compact(Observation(text=text)).split("\n") == [
        "task : find coin .",
        "in kitchen : stove , oven , fridge closed .",
        "north backyard . east attic .",
        "have :",
        "nothing",
    ]
