"""A run of every method, killed by SIGKILL at random moments and continued, writes the bytes of one
that never stopped.

Every shipped household example is run with its student in a folder, made small, and so are LoRA,
environments in a worker, written hints, replayed episodes and a teacher on a server. FAULT_CHAINS
sets how many chains each gets: 1 for every change, 3 at night, which makes a hundred.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kill_chains import chain, differing, logged, undisturbed
from support.tiny_runs import contents

from tutelage.config.schema import Config
from tutelage.config.toml_file import load, merged, parse, resolved

EXAMPLES = Path(__file__).parents[2] / "examples"
CHAINS = int(os.environ.get("FAULT_CHAINS", "1"))
SMALL = (
    "run.folder=run",
    "run.steps=3",
    "run.checkpoint_every=2",
    "rollout.tasks_per_step=2",
    "rollout.max_turns=9",
    "rollout.max_new_tokens=4",
    "rollout.concurrency=8",
    "eval.every=3",
    "eval.tasks=1",
    "update.minibatches=2",
    "policy.layers=1",
    'env.options={size="small", search="methodical", train=64, unseen=16}',
)
LEFT_OUT = {"household_opd_remote": "below, with a server"}
METHODS = sorted(p.stem for p in EXAMPLES.glob("household_*.toml") if p.stem not in LEFT_OUT)
ALWAYS = ("household_grpo", "household_opd", "household_guided_opd", "household_atod")
"""What differs most in what it keeps from step to step: for every change."""
EXTRAS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("household_grpo", {"policy": {"lora": 2}}),
    "a worker": ("household_grpo", {"env": {"workers": 1}}),
    "written hints": (
        "household_skill_grpo",
        {"algorithm": {"name": "skill_grpo", "hint": "written+skills:ucb"}},
    ),
    "dynamic sampling": ("household_dapo", {"algorithm": {"name": "dapo", "max_batches": 3}}),
    "the optimiser in main memory": ("household_grpo", {"update": {"offload": True}}),
}


SAMPLED: dict[str, dict[str, Any]] = {
    "household_opd": {"vocabulary": "sampled"},
    "household_guided_opd": {"student_turns": "sampled", "teacher_turns": "sampled"},
}
"""A server scores sampled tokens alone."""


def small(name: str, changes: dict[str, Any] | None = None) -> Config:
    """An example of three steps, and one of a warm start where it has one."""
    path = EXAMPLES / f"{name}.toml"
    more = list(SMALL)
    config = load(path, SMALL)
    if config.rollout.group_size > 2:
        more.append("rollout.group_size=2")
    if config.warm_start is not None:
        more.append("warm_start.steps=1")
    return parse(merged(resolved(load(path, more)), changes or {}))


def check(config: Config, folder: Path, chains: int = CHAINS) -> None:
    """Every chain ends with the bytes of an undisturbed run, and is killed at least once."""
    (folder / "whole").mkdir()
    whole = undisturbed(config, folder / "whole")
    for seed in range(chains):
        place = folder / f"chain-{seed}"
        place.mkdir()
        kills = chain(config, place, whole=whole, seed=seed)
        found = differing(whole.files, contents(place / "run"))
        assert not found, f"killed {kills} times, with seed {seed}: {found} differ"
        assert kills, f"seed {seed} killed nothing"
        steps = [(x["phase"], x["step"]) for x in logged(place / "run", "timings.jsonl")]
        assert steps == [(x["phase"], x["step"]) for x in logged(place / "run", "metrics.jsonl")]


@pytest.mark.parametrize("name", ALWAYS)
def test_a_run_of_a_method_that_is_killed(name: str, tmp_path: Path) -> None:
    check(small(name), tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ALWAYS])
def test_a_run_of_any_method_that_is_killed(name: str, tmp_path: Path) -> None:
    check(small(name), tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("case", EXTRAS)
def test_a_run_that_keeps_more_and_is_killed(case: str, tmp_path: Path) -> None:
    name, changes = EXTRAS[case]
    check(small(name, changes), tmp_path)


@pytest.mark.nightly
def test_a_run_that_imitates_a_file_and_is_killed(tmp_path: Path) -> None:
    config = small("household_sft")
    command = [
        sys.executable,
        "-m",
        "tutelage",
        "collect",
        str(EXAMPLES / "household_sft.toml"),
        SMALL[-1],
        "--episodes",
        "6",
        "--thoughts",
        "--out",
        str(tmp_path / "episodes.jsonl"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    replayed = {"rollout": {"replay": str(tmp_path / "episodes.jsonl")}}
    check(parse(merged(resolved(config), replayed)), tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The demo's teacher behind `tutelage serve`, in a process of its own."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "tutelage",
        "serve",
        "builtin:household-teacher",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with urllib.request.urlopen(url + "/health") as answer:
                if answer.status == 200:
                    break
        yield url
        process.terminate()


@pytest.mark.parametrize(
    "name", ["household_opd", pytest.param("household_guided_opd", marks=pytest.mark.nightly)]
)
def test_a_run_whose_teacher_is_on_a_server_and_that_is_killed(
    name: str, server: str, tmp_path: Path
) -> None:
    """Many requests are under way at a time, and their answers come in any order."""
    table = resolved(small(name))
    table["policies"] = {"teacher": {"model": server}}
    table["algorithm"] = {"name": name.removeprefix("household_"), **SAMPLED[name]}
    check(parse(table), tmp_path)
