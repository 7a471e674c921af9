"""The household's option `engine = "textworld"`: the suite's own interface says the same in both
engines."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from parity.reference import find_domain, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from tutelage.envs.base import Env
from tutelage.envs.pool import Failure, ProcessPool
from tutelage.errors import EnvError
from tutelage.types import Observation, Task
from tutelage_worlds.household import GameFileError, Household, generate, write
from tutelage_worlds.household.suite import HouseholdEnv
from tutelage_worlds.household.textworld import ApartEnv, TextWorldEnv

NATIVE = Household(size="small", train=6)
TEXTWORLD = replace(NATIVE, engine="textworld")


def without_task(seen: Observation) -> Observation:
    """All but what each engine says in its own way: a key of the situation, and what to mark."""
    return replace(seen, state=None, focus=())


def same_walk(theirs: Env, ours: Env, task: Task, script: Sequence[str], seed: int) -> bool:
    """A few random moves, then the script from the start; whether it is won at its end."""
    rng = random.Random(seed)
    seen = ours.reset(task)
    assert without_task(theirs.reset(task)) == without_task(seen)
    for _ in range(6):
        action = rng.choice((*seen.actions, "dance"))
        seen = ours.step(action)
        assert without_task(theirs.step(action)) == without_task(seen)
    assert without_task(theirs.reset(task)) == without_task(ours.reset(task))
    for action in script:
        seen = ours.step(action)
        assert without_task(theirs.step(action)) == without_task(seen)
    return bool(seen.won)


def test_generated_games_are_the_same_in_both_engines() -> None:
    reference, ours = TEXTWORLD.make(), NATIVE.make()
    assert isinstance(reference, ApartEnv)
    assert isinstance(ours, HouseholdEnv)
    for task in TEXTWORLD.tasks("train"):
        assert same_walk(reference, ours, task, TEXTWORLD.demonstrate(task), task.seed)
    reference.close()
    with pytest.raises(RuntimeError, match="call reset"):
        reference.step("look")


def folder_of(tmp_path: Path) -> Path:
    for k in range(2):
        folder = tmp_path / "valid_unseen" / f"pick_and_place_simple-A-None-B-1/trial_{k}"
        folder.mkdir(parents=True)
        write(generate("unseen", k, "small"), folder / "game.tw-pddl", *find_domain())
    return tmp_path


def test_a_folder_of_files_is_the_same_in_both_engines(tmp_path: Path) -> None:
    ours = Household(games=folder_of(tmp_path))
    reference = replace(ours, engine="textworld")
    assert reference.tasks("unseen") == ours.tasks("unseen")
    for task in reference.tasks("unseen"):
        assert same_walk(reference.make(), ours.make(), task, reference.plan(task), 3)


def test_games_side_by_side_play_in_one_process_apart() -> None:
    envs = [TEXTWORLD.make() for _ in range(3)]
    tasks = TEXTWORLD.tasks("train")[:3]
    begun = [env.reset(task) for env, task in zip(envs, tasks, strict=True)]
    assert len({seen.text for seen in begun}) == 3
    for env, task in zip(envs, tasks, strict=True):
        ours = NATIVE.make()
        ours.reset(task)
        assert without_task(env.step("inventory")) == without_task(ours.step("inventory"))
        env.close()


def test_states_are_equal_in_equal_situations() -> None:
    env, task = TextWorldEnv(), TEXTWORLD.tasks("train")[0]
    begun = env.reset(task)
    moved = env.step(next(action for action in begun.actions if action.startswith("go to ")))
    assert moved.state != begun.state
    assert env.step("dance").state == moved.state
    assert env.reset(task).state == begun.state
    env.close()


def test_workers_of_a_run_play_it_themselves() -> None:
    task = TEXTWORLD.tasks("train")[0]
    pool = ProcessPool(TEXTWORLD, workers=1, reset_seconds=300.0, step_seconds=300.0)
    try:
        for key in ("a", "b", "c"):  # each unloads the planner of the one before
            pool.open(key, task)
            [(_, seen)] = pool.poll(block=True)
            assert not isinstance(seen, Failure), seen
            assert without_task(seen) == without_task(NATIVE.make().reset(task))
            pool.close(key)
    finally:
        pool.shutdown()


def test_a_file_that_textworld_cannot_load_is_refused_by_name(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    suite = Household(games=root, engine="textworld")
    task = suite.tasks("unseen")[0]
    path = Path(task.data["game"])
    path.write_text(path.read_text().replace("(inreceptacle ?o ?r)", "(nosuchthing ?o ?r)"))
    with pytest.raises(GameFileError, match="cannot be loaded by TextWorld"):
        TextWorldEnv().reset(task)
    env = suite.make()
    with pytest.raises(EnvError, match=r"process failed: GameFileError.*cannot be loaded"):
        env.reset(task)
    assert env.reset(suite.tasks("unseen")[1]).text


def test_the_process_apart_is_not_this_one(tmp_path: Path) -> None:
    maps = Path(f"/proc/{os.getpid()}/maps")
    if not maps.exists():
        pytest.skip("there is no /proc here")
    env = TEXTWORLD.make()
    before = maps.read_text().count("libdownward")
    env.reset(TEXTWORLD.tasks("train")[4])
    assert maps.read_text().count("libdownward") == before
    env.close()
