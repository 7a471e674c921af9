"""A run with hints that depend on what happened before - skills by what they earned, and hints that
the student wrote - is killed anywhere and continued: the same bytes."""

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from runs.test_resume import in_child, kill_at, whole
from support.tiny_runs import Quiet, contents, tiny_run

from tutelage.config.schema import Config
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.errors import ConfigError, RunError
from tutelage.evaluation.evaluate import named
from tutelage.evaluation.plots import points
from tutelage.hints.bandit import Bandit
from tutelage.rollout.record import read
from tutelage.runs import assemble, checkpoint, train
from tutelage.runs import folder as run_folder
from tutelage.types import Observation, Task

STEPS = 4
CALLED = "test_hints_resume:HintedDoors"


class Paying(DoorsEnv):
    """Pays something for every action, so that skills earn different sums."""

    def step(self, action: str) -> Observation:
        seen = super().step(action)
        return replace(seen, reward=seen.reward + len(action) / 64)


@dataclass(frozen=True)
class HintedDoors(Doors):
    """Doors in two families, of one of whose tasks nothing is known."""

    def tasks(self, split: str) -> list[Task]:
        return [
            Task(id=t.id, family="first" if "a" in t.id[6:] else "second", data=t.data)
            for t in super().tasks(split)
        ]

    def make(self) -> DoorsEnv:
        return Paying()

    def plan(self, task: Task) -> Sequence[str]:
        return [] if task.data["path"] == "bc" else super().plan(task)


@pytest.fixture(scope="module", autouse=True)
def sampled_hints() -> Iterator[None]:
    """What an untrained model writes greedily is empty: its hints are sampled, and short."""
    hints_of = assemble.hints_of

    def sampled(*parts: Any) -> Any:
        return replace(hints_of(*parts), written_tokens=6, written_temperature=1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "hints_of", sampled)
        yield


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skills")
    for name in ("a", "b", "c"):
        (folder / f"{name}.txt").write_text(name)
    return folder


def config(bank: Path, **run_settings: object) -> Config:
    return tiny_run(
        run={"steps": STEPS, "checkpoint_every": 1, **run_settings},
        env={"suite": CALLED, "workers": 0},
        rollout={"tasks_per_step": 3, "group_size": 2},
        algorithm={"name": "skill_grpo", "hint": "written+skills:ucb"},
        warm_start={"name": "sft", "steps": 1, "lr": 3e-3},
        hints={"bank": str(bank)},
        policy={"build": {"context": 1024}},
        eval={"every": 2, "tasks": 2, "split": "seen", "hint": "written+skills:ucb"},
    )


@pytest.fixture(scope="module")
def uninterrupted(
    bank: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], int, Path]:
    folder = tmp_path_factory.mktemp("whole")
    first = str(tmp_path_factory.mktemp("first") / "run")
    train.train(config(bank, folder=first, steps=1), watch=Quiet())
    job = kill_at(-1, lambda: train.train(config(bank), watch=Quiet()))
    assert in_child(folder, job) == 0
    return contents(folder / "run"), int((folder / "operations").read_text()), folder / "run"


def test_the_run_depends_on_what_is_kept(
    uninterrupted: tuple[dict[str, bytes], int, Path],
) -> None:
    folder = uninterrupted[2]
    state = checkpoint.read_state(checkpoint.latest(folder))
    bandit = Bandit()
    bandit.restore(state.skills)
    assert set(bandit.arms) == {"first", "second"}
    arms = [arm for family in bandit.arms.values() for arm in family.values()]
    assert sum(arm.chosen for arm in arms) == sum(arm.rewarded for arm in arms) == 3 * STEPS
    assert sum(arm.total for arm in arms) > 0
    lines = list(read(folder / run_folder.HINTS))
    tasks = [line["task"] for line in lines]
    assert len(set(tasks)) == len(tasks) > 3
    assert any(line["text"] for line in lines)
    assert all(not line["text"] for line in lines if line["task"] == "doors/bc")
    steps = [line for line in read(folder / "metrics.jsonl") if line["phase"] == "train"]
    for line in steps:
        assert sum(line["skills"].values()) == 3  # type: ignore[attr-defined]
        assert set(line["hints"]) == {"skilled"}  # type: ignore[call-overload]
    # those of evaluations are in the file only
    counted = sum(line["written"]["hints"] for line in steps)  # type: ignore[index,call-overload]
    assert 0 < counted < len(lines)
    warm = next(iter(read(folder / "metrics.jsonl")))
    assert (warm["hints"], warm["skills"]) == ({}, {})


def test_both_evaluations_are_told_apart(
    uninterrupted: tuple[dict[str, bytes], int, Path],
) -> None:
    folder = uninterrupted[2]
    lines = list(read(folder / "evals.jsonl"))
    hint = "written+skills:ucb"
    assert [(line["step"], line["name"], line["hint"]) for line in lines] == [
        (step, named("student", shown), shown) for step in (0, 2, 4) for shown in ("", hint)
    ]
    assert [point.step for point in points(folder)] == [0, 2, 4]


def test_a_killed_run_resumes_to_the_same_bytes(
    uninterrupted: tuple[dict[str, bytes], int, Path], bank: Path, tmp_path: Path
) -> None:
    expected, operations, _ = uninterrupted
    draw, count = random.Random(3), 4
    for k in range(count):
        point = draw.randrange(1 + k * operations // count, 1 + (k + 1) * operations // count)
        folder = tmp_path / str(point)
        folder.mkdir()
        job = kill_at(point, lambda: train.train(config(bank), watch=Quiet()))
        assert os.WIFSIGNALED(in_child(folder, job)), f"operation {point} was never reached"
        begun = (folder / "run" / run_folder.CONFIG).exists()
        whole(folder, config(bank), resume=begun)
        assert contents(folder / "run") == expected, f"killed at operation {point}"


def test_a_stopped_run_goes_on_to_the_same_bytes(
    uninterrupted: tuple[dict[str, bytes], int, Path], bank: Path, tmp_path: Path
) -> None:
    """Stopped after three steps by an error, and made longer by going on: no schedule minds."""
    expected, _, _ = uninterrupted
    whole(tmp_path, config(bank, steps=2))
    whole(tmp_path, config(bank), resume=True)
    assert contents(tmp_path / "run") == expected


def test_a_checkpoint_without_its_skills_is_refused(
    uninterrupted: tuple[dict[str, bytes], int, Path], bank: Path, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted[2], tmp_path / "run")
    path = checkpoint.latest(tmp_path / "run") / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in state.items() if k not in ("skills", "sha256")}))
    with pytest.raises(RunError, match="skills"):
        train.train(config(bank, folder=str(tmp_path / "run")), resume=True, watch=Quiet())


def test_what_does_not_fit_leaves_no_run_behind(bank: Path, tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "a.txt").write_text("word " * 3000)
    settings = config(tmp_path / "long", folder=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"skilled's first prompt of task doors/.. has"):
        train.train(settings, watch=Quiet())
    assert not (tmp_path / "run" / run_folder.CONFIG).exists()
    with pytest.raises(ConfigError, match=r"there is no bank of skills"):
        train.train(config(tmp_path / "none", folder=str(tmp_path / "run")), watch=Quiet())
