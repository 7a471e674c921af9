"""Dynamic sampling: which tasks a step plays, and which groups it learns from."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs.test_resume import TABLE, config, in_child, kill_at, whole
from support.fake_policy import Table
from support.sessions import session
from support.tiny_runs import Quiet, contents

from tutelage.algorithms.dapo import dapo
from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.sft import sft
from tutelage.cli import dry_run
from tutelage.config.schema import Config
from tutelage.config.toml_file import parse
from tutelage.envs.doors import Doors
from tutelage.errors import ConfigError
from tutelage.objective import Algorithm
from tutelage.rollout.record import read
from tutelage.rollout.task_sampling import differing, gather, learnt
from tutelage.runs import train
from tutelage.runs.phases import phases_of
from tutelage.types import Episode, Observation, Stop, Task, Turn


def episode(group: str, reward: float, stop: Stop = Stop.DONE) -> Episode:
    turn = Turn(
        observation=Observation(text=""),
        prompt=(),
        text="",
        tokens=(1,),
        logps=(0.0,),
        reward=reward,
    )
    return Episode(task=Task(id=group), group=group, turns=(turn,), stop=stop)


def test_groups_whose_returns_differ() -> None:
    episodes = [
        episode("flat", 1.0),
        episode("mixed", 1.0),
        episode("alone", 1.0),
        episode("flat", 1.0),
        episode("mixed", 0.0),
        episode("late", 0.0),
        episode("late", 2.0),
    ]
    assert differing(episodes) == ["mixed", "late"]
    assert differing([]) == []


def test_a_broken_episode_makes_no_difference() -> None:
    episodes = [episode("g", 1.0), episode("g", 0.0, Stop.ERROR), episode("g", 1.0)]
    assert differing(episodes) == []


def test_a_difference_of_rounding_is_none() -> None:
    assert differing([episode("g", 0.1 + 0.2), episode("g", 0.3)]) == []


@given(
    rewards=st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=4), max_size=6),
    count=st.integers(1, 4),
)
def test_what_is_learnt_from(rewards: list[list[float]], count: int) -> None:
    episodes = [episode(f"g{k}", r) for k, row in enumerate(rewards) for r in row]
    assert learnt(grpo(), episodes, count) == episodes
    mixed = [k for k, row in enumerate(rewards) if len(set(row)) > 1][:count]
    used = learnt(dapo(), episodes, count)
    if mixed:
        assert used == [episode(f"g{k}", r) for k in mixed for r in rewards[k]]
    else:
        assert used == episodes  # nothing of which counts


# -- rounds


def played(
    algorithm: Algorithm,
    *,
    knows: float = 0.0,
    count: int = 3,
    group_size: int = 2,
    step: int = 0,
    rooms: int = 3,
) -> list[Episode]:
    suite = Doors(rooms)
    on = session(suite, policies={"self": Table(knows=knows)})
    tasks = suite.tasks("train")
    return gather(on, tasks, algorithm, count=count, group_size=group_size, seed=5, step=step)


def ids(episodes: list[Episode]) -> list[str]:
    return list(dict.fromkeys(e.task.id for e in episodes))


def test_without_dynamic_sampling_one_batch_is_played() -> None:
    result = played(grpo())
    assert len(result) == 6
    assert len(ids(result)) == 3
    assert result == played(dapo())  # and with one round the same


def test_rounds_go_on_until_enough_groups_differ() -> None:
    first = played(dapo())
    everything = played(dapo(max_batches=9), count=8, rooms=2)
    for step in range(6):
        result = played(dapo(max_batches=9), knows=2.0, step=step)
        batches = [result[i : i + 6] for i in range(0, len(result), 6)]
        # enough after the last batch, and not before
        assert len(differing(result)) >= 3
        before = [e for batch in batches[:-1] for e in batch]
        assert len(differing(before)) < 3
        assert len(set(ids(result))) == 3 * len(batches)
    assert len(ids(first)) == 3
    assert len(ids(everything)) <= 9


def test_rounds_are_bounded_and_no_task_is_played_twice() -> None:
    """A policy that never fails makes every group flat."""
    for rounds in (1, 2, 4):
        result = played(dapo(max_batches=rounds), knows=40.0)
        assert differing(result) == []
        assert len(ids(result)) == 3 * rounds
        assert len(result) == 2 * len(ids(result))
    # nine tasks in all: the rest of them, and then it is over
    assert len(ids(played(dapo(max_batches=50), knows=40.0, count=4, rooms=2))) == 9


def test_rounds_draw_other_tasks_at_other_steps_and_the_same_again() -> None:
    one, two = (played(dapo(max_batches=3), knows=40.0, step=s) for s in (0, 1))
    assert ids(one) != ids(two)
    assert played(dapo(max_batches=3), knows=40.0) == one
    # the first round is what is played without
    assert one[:6] == played(grpo(), knows=40.0)


# -- in a run


def dynamic(*, warm: bool = False, **changes: object) -> Config:
    """DAPO on doors, two groups of three a step; without a warm start no episode is ever won."""
    table = json.loads(json.dumps(TABLE))
    table["warm_start"] = {"name": "sft", "steps": 20, "lr": 2e-2}
    if not warm:
        del table["warm_start"]
    table["algorithm"] = {"name": "dapo", "max_batches": 3}
    table["rollout"] |= {"group_size": 3, **changes}
    return parse(table)


def logged(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = read(folder / "run" / f"{name}.jsonl")
    return [line for line in lines if line["phase"] == "train"]


@pytest.mark.parametrize("warm", [False, True])
def test_a_run_says_how_many_groups_differed(tmp_path: Path, warm: bool) -> None:
    whole(tmp_path, dynamic(warm=warm))
    lines, episodes, columns = (logged(tmp_path, n) for n in ("metrics", "episodes", "columns"))
    for line in lines:
        mine = [e for e in episodes if e["step"] == line["step"]]
        returns: dict[object, set[object]] = {}
        for e in mine:
            returns.setdefault(e["group"], set()).add(e["return"])
        mixed = [g for g, found in returns.items() if len(found) > 1]
        assert line["groups"] == len(returns)
        assert line["varied"] == pytest.approx(len(mixed) / len(returns))
        assert line["unfit"] == 0
        # learnt from: the first two that differ, or where none does, nothing of all
        used = {c["task"] for c in columns if c["step"] == line["step"]}
        assert used == (set(mixed[:2]) or set(returns))
        lengths = [len(turn["tokens"]) for e in mine if e["group"] in used for turn in e["turns"]]
        assert line["tokens"] == sum(lengths)
        if not mixed:
            assert line["grad_norm"] == 0
            assert line["loss"] == 0
    # the cases there are: nothing differs; more was played than is learnt from; more differs
    assert {line["varied"] > 0 for line in lines} == {warm}
    assert any(line["groups"] > 2 for line in lines)
    assert any(line["groups"] * line["varied"] > 2 for line in lines) == warm


def test_a_killed_run_draws_the_same_rounds_again(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    job = kill_at(-1, lambda: train.train(dynamic(warm=True), watch=Quiet()))
    assert in_child(first, job) == 0
    operations = int((first / "operations").read_text())
    in_child(
        second, kill_at(operations * 2 // 3, lambda: train.train(dynamic(warm=True), watch=Quiet()))
    )
    whole(second, dynamic(warm=True), resume=True)
    assert contents(second / "run") == contents(first / "run")


def test_the_plan_says_what_may_be_played() -> None:
    facts = dict(dry_run.make(dynamic()).facts)
    assert facts["dynamic sampling"].startswith("up to 3 batches of tasks a step until 2 groups")
    assert facts["sampled tokens"].startswith(f"at most {3 * 6 * 3 * 4} a step")
    assert "dynamic sampling" not in dict(dry_run.make(config()).facts)


@pytest.mark.parametrize("name", ["grpo", "rloo", "dr_grpo", "gigpo", "sod", "reinforce_pp"])
@pytest.mark.parametrize("group_size", [1, 2])
def test_a_reward_that_nothing_is_compared_with_is_refused(name: str, group_size: int) -> None:
    table = json.loads(json.dumps(TABLE))
    del table["warm_start"]
    table["algorithm"] = {"name": name}
    table["rollout"]["group_size"] = group_size
    if group_size == 1 and name != "reinforce_pp":
        with pytest.raises(
            ConfigError, match=r"rollout\.group_size = 1, but .* set rollout\.group_size"
        ):
            phases_of(parse(table))
    else:
        assert phases_of(parse(table))


def test_one_copy_can_never_differ() -> None:
    with pytest.raises(
        ConfigError, match=r"group_size = 1, but the algorithm learns only from groups"
    ):
        phases_of(dynamic(group_size=1))


def test_an_expert_plays_no_task_twice() -> None:
    """Its copies would be the same episode again: a batch holds as many different tasks."""
    episodes = played(sft(), count=3, group_size=2)
    assert len({e.task.id for e in episodes}) == len(episodes) == 6
    everything = played(sft(), count=20, group_size=2)
    assert len({e.task.id for e in everything}) == len(everything) == len(Doors(3).tasks("train"))
