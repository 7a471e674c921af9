"""Episodes that are played one step ahead: with weights that are one update old, exactly; corrected
where they are learnt from; none thrown away; the same bytes after any kill."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.test_remote_runs import policies_of
from runs.test_resume import in_child
from safetensors.torch import load_file
from support.fake_policy import DIGITS, Table
from support.fake_servers import serving
from support.table_engine import WEIGHTS
from support.tiny_runs import Quiet, contents, tiny_run, tiny_table

from tutelage.config.schema import Config
from tutelage.config.toml_file import parse
from tutelage.envs.doors import RULE, Doors, DoorsEnv
from tutelage.errors import ConfigError, RunError
from tutelage.policies.hf.policy import HFPolicy
from tutelage.rollout.ranks import Ranks
from tutelage.runs import ahead, assemble, checkpoint, train
from tutelage.types import Observation, Task

STEPS = 4
SUITE = "test_ahead:SlowWhereHard"
AHEAD = {"episodes": 64, "ahead": 1}


class Slow(DoorsEnv):
    """Takes its time in a task with the letter c."""

    def step(self, action: str) -> Observation:
        time.sleep(0.05 * ("c" in self.path))
        return super().step(action)


@dataclass(frozen=True)
class SlowWhereHard(Doors):
    """Doors whose hard tasks are slow: of those with the letter c one door more must be opened."""

    def tasks(self, split: str) -> list[Task]:
        return [
            Task(
                id=t.id,
                family="hard" if "c" in t.data["path"] else "easy",
                data={"path": t.data["path"] + "c" * ("c" in t.data["path"])},
            )
            for t in super().tasks(split)
        ]

    def make(self) -> DoorsEnv:
        return Slow()


def config(**sections: Any) -> Config:
    changes = {"rollout": {"concurrency": AHEAD}, **sections}
    return tiny_run(
        run={"steps": STEPS, "checkpoint_every": 1, "columns": True, **changes.pop("run", {})},
        env={"suite": SUITE, "workers": 0, **changes.pop("env", {})},
        rollout={"tasks_per_step": 3, "group_size": 4, **changes.pop("rollout")},
        algorithm=changes.pop("algorithm", {"name": "grpo", "entropy": 0.1}),
        update={"lr": 3e-2},
        eval={"every": 2, "tasks": 2},
        **changes,
    )


def student(settings: Config) -> HFPolicy:
    found = policies_of(settings)["self"]
    assert isinstance(found, HFPolicy)
    return found


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


class Copying(Quiet):
    """Copies the checkpoint that each step began with."""

    def stepped(self, line: Any, seconds: object) -> None:
        newest = checkpoint.latest(Path("run"))
        shutil.copytree(newest, Path("weights") / newest.name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an undisturbed run is, and the weights of each of its steps beside it."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_child(folder, lambda: train.train(config(), watch=Copying())) == 0
    return folder


def scored_apart(folder: Path, at: str, line: dict[str, Any]) -> float:
    """Largest difference between the recorded log-probabilities of an episode and those of a
    model's folder."""
    policy = HFPolicy.load(str(folder / "weights" / at), device="cpu")
    ids: list[int] = []
    worst = 0.0
    for turn in line["turns"]:
        ids += turn["prompt"]
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids + turn["tokens"]])).logits[0]
        logps = logits[:, : policy.chat.size].log_softmax(-1)
        for k, (token, logp) in enumerate(zip(turn["tokens"], turn["logps"], strict=True)):
            worst = max(worst, abs(float(logps[len(ids) + k - 1, token]) - logp))
        ids += turn["tokens"]
    return worst


def test_the_weights_that_play_are_one_update_old(run: Path) -> None:
    episodes = lines(run / "run", "episodes.jsonl")
    for step in range(STEPS):
        versions = {t["version"] for e in episodes if e["step"] == step for t in e["turns"]}
        assert versions == {max(0, step - 1)}
    one = next(e for e in episodes if e["step"] == 3)
    assert scored_apart(run, "step-000002", one) < 1e-4
    assert scored_apart(run, "step-000003", one) > 1e-3


def test_staleness_is_measured_and_corrected(run: Path) -> None:
    folder = run / "run"
    first, *later = lines(folder, "metrics.jsonl")
    assert first["staleness"] == {"mean": 0, "max": 0}
    assert first["mismatch"]["max"] < 1e-4
    for line in later:
        assert line["staleness"] == {"mean": 1, "max": 1}
        assert line["mismatch"]["mean"] > 1e-3
    for line in lines(folder, "columns.jsonl"):
        weights = torch.tensor(line["columns"]["importance"])
        assert weights.max() <= 2
        assert (bool(((weights - 1).abs() < 1e-4).all())) == (line["step"] == 0)


def test_slow_tasks_are_played_as_often_as_in_turn(run: Path, tmp_path: Path) -> None:
    in_turn = config(rollout={"concurrency": 64}, run={"folder": str(tmp_path / "run")})
    train.train(in_turn, watch=Quiet())

    def played(folder: Path) -> Counter[tuple[int, str, int]]:
        found = lines(folder, "episodes.jsonl")
        return Counter((e["step"], e["task"]["id"], e["copy"]) for e in found)

    assert played(run / "run") == played(tmp_path / "run")
    families = [e["task"]["family"] for e in lines(run / "run", "episodes.jsonl")]
    assert {"easy", "hard"} == set(families)
    # played in turn, nothing is recorded of weights that are the step's own
    assert '"version"' not in (tmp_path / "run" / "episodes.jsonl").read_text()
    assert '"staleness"' not in (tmp_path / "run" / "metrics.jsonl").read_text()


def children(of: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(of)],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [line.split(None, 1) for line in found.stdout.splitlines()]
    return [int(pid) for pid, arguments in rows if "spawn_main" in arguments]


class Killing(Quiet):
    """Kills the process that plays, or the one that learns, after a step."""

    def __init__(self, step: int, *, player: bool) -> None:
        self.step, self.player = step, player

    def stepped(self, line: Any, seconds: object) -> None:
        if line["step"] == self.step:
            (player,) = children(os.getpid())
            Path("player").write_text(str(player))
            os.kill(player if self.player else os.getpid(), signal.SIGKILL)


def goes_on(folder: Path, whole: Path) -> None:
    assert in_child(folder, lambda: train.train(config(), resume=True, watch=Quiet())) == 0
    assert contents(folder / "run") == contents(whole / "run")


def test_a_killed_run_goes_on_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    watch = Killing(1, player=False)
    assert os.WIFSIGNALED(in_child(tmp_path, lambda: train.train(config(), watch=watch)))
    until = time.monotonic() + 20
    while Path(f"/proc/{(tmp_path / 'player').read_text()}/cmdline").exists():
        assert time.monotonic() < until, "the process that plays outlives its trainer"
        time.sleep(0.05)
    # a step is under way, with weights that its checkpoint holds beside the student's
    assert (checkpoint.latest(tmp_path / "run") / checkpoint.ACTING).is_file()
    goes_on(tmp_path, run)


@pytest.mark.nightly
def test_a_run_that_is_stopped_by_ctrl_c_goes_on(run: Path, tmp_path: Path) -> None:
    class Stopping(Quiet):
        def stepped(self, line: Any, seconds: object) -> None:
            if line["step"] == 1:
                raise KeyboardInterrupt

    status = in_child(tmp_path, lambda: train.train(config(), watch=Stopping()))
    assert os.waitstatus_to_exitcode(status) == 130
    # a checkpoint of the step that was finished, which no regular one is due after
    assert checkpoint.was_interrupted(tmp_path / "run")
    goes_on(tmp_path, run)


@pytest.mark.nightly
def test_a_run_whose_player_is_killed_says_so_and_goes_on(run: Path, tmp_path: Path) -> None:
    def loses_its_player() -> None:
        with pytest.raises(RunError, match=r"plays one step ahead has ended by signal 9.*--resume"):
            train.train(config(), watch=Killing(1, player=True))

    assert in_child(tmp_path, loses_its_player) == 0
    goes_on(tmp_path, run)


# -- what does not go together


def refused(words: str, **sections: Any) -> None:
    table = config(**sections)
    with pytest.raises(ConfigError, match=words):
        assemble.assemble(table)


def test_what_cannot_be_played_ahead_is_refused() -> None:
    refused("the expert plays all episodes", algorithm={"name": "sft"})
    refused(
        "depends on what the step before wrote or earned",
        algorithm={"name": "opsd", "hint": "written"},
    )
    shape = config().policy.model_dump()
    refused("set policy.sampler.url", policy={**shape, "sampler": {}})
    with pytest.raises(ConfigError, match="there are 2 ranks"):
        ahead.refuse_ranks(config(), Ranks(size=2))
    ahead.refuse_ranks(config(rollout={"concurrency": 64}), Ranks(size=2))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"ahead": 2}, "at most 1 step ahead"),
        ({"episodes": 0}, "not from 1"),
        ({}, "an integer or a table"),
    ],
)
def test_more_than_one_step_ahead_is_refused(value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(rollout={"concurrency": value})


def test_the_table_of_concurrency_reads_as_the_number() -> None:
    assert config(rollout={"concurrency": {"ahead": 1}}).rollout.slots == 64
    assert config(rollout={"concurrency": {"episodes": 3}}).rollout.slots == 3
    assert config(rollout={"concurrency": {"episodes": 3}}).rollout.ahead == 0
    assert config(rollout={"concurrency": 5}).rollout.slots == 5


# -- on a server


@pytest.mark.nightly
def test_a_server_has_the_old_weights_to_play_and_the_new_ones_to_evaluate(tmp_path: Path) -> None:
    settings = config(env={"suite": "doors"}, run={"steps": 3, "folder": str(tmp_path / "run")})
    own = student(settings)
    start = own.model.state_dict()["lm_head.weight"].clone()
    with serving(own, reload=True) as server:
        table = settings.model_dump()
        table["policy"]["sampler"] = {"url": f"http://127.0.0.1:{server.port}"}
        train.train(Config.model_validate(table), watch=Quiet())
        # the last evaluation came after everything that was played
        newest = checkpoint.latest(tmp_path / "run") / "model.safetensors"
        for name, value in load_file(newest).items():
            assert torch.equal(own.model.state_dict()[name], value), name
        assert not own.model.state_dict()["lm_head.weight"].equal(start)
    first, *later = lines(tmp_path / "run", "metrics.jsonl")
    assert first["mismatch"]["max"] < 1e-3
    for line in later:
        assert line["staleness"] == {"mean": 1, "max": 1}
        assert line["mismatch"]["mean"] > 1e-3


# -- learning


def climbed(folder: Path, method: str, seed: int, *, ahead: int) -> float:
    """The share of right digits of a table that chose evenly, after the ladder's first rung."""
    teacher = {"teacher": {"model": "support.table_engine:Frozen#6"}} if "opd" in method else {}
    table = tiny_table(
        run={"folder": str(folder), "steps": 12, "seed": seed},
        rollout={"tasks_per_step": 9, "group_size": 8, "max_turns": 2, "max_new_tokens": 6},
        algorithm={"name": method},
        update={"lr": 0.5},
        policies=teacher,
        eval={"every": 0},
    )
    table["policy"] = {"model": "support.table_engine:Engine"}
    table["rollout"]["concurrency"] = {"ahead": ahead}
    train.train(parse(table), watch=Quiet())
    learnt = Table()
    learnt.load_state_dict(load_file(checkpoint.latest(folder) / WEIGHTS))
    chances = [learnt.chances(a)[DIGITS.index(digit)] for a, digit in RULE.items()]
    return float(sum(chances)) / len(chances)


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["grpo", "opd", "guided_opd"])
def test_what_is_learnt_ahead_is_what_is_learnt_in_turn(method: str, tmp_path: Path) -> None:
    for seed in range(3):
        ends = [climbed(tmp_path / f"{seed}{k}", method, seed, ahead=k) for k in (0, 1)]
        print(f"{method} seed {seed}: in turn {ends[0]:.4f}, ahead {ends[1]:.4f}")
        assert min(ends) >= 0.95
