"""Whole runs on several ranks: what they write, how they end together, and how they go on."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.agreement import agree
from support.gangs import Ended, Gang, run
from support.tiny_runs import Quiet, tiny_table

from tutelage.config.schema import Config
from tutelage.config.toml_file import parse
from tutelage.policies.base import Sharding
from tutelage.rollout.ranks import Ranks
from tutelage.runs import checkpoint, train
from tutelage.runs.interrupt import TOGETHER

STEPS, WARM = 3, 2
TABLE = tiny_table(
    run={"steps": STEPS, "checkpoint_every": 1, "columns": True},
    rollout={"tasks_per_step": 4, "group_size": 2},
    algorithm={"name": "grpo", "kl": 0.1, "entropy": 0.01},
    warm_start={"name": "sft", "steps": WARM, "lr": 3e-3},
    update={"lr": 3e-4, "minibatches": 2},
    policy={"build": {"context": 128}},
    eval={"every": 2, "tasks": 3},
)
TELLS = 60.0
"""Seconds after which a killed rank must have ended the others."""


def config(**changes: object) -> Config:
    table = json.loads(json.dumps(TABLE))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        table[section][name] = value
    return parse(table)


def job(
    resume: bool = False, sharded: Sharding = "no", **changes: object
) -> Callable[[Ranks], None]:
    def of(ranks: Ranks) -> None:
        watch = Quiet()
        train.train(config(**changes), resume=resume, watch=watch, ranks=ranks, sharded=sharded)

    return of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    run(1, job(), folder)
    return folder


@pytest.mark.parametrize("size", [2, 3])
def test_runs_of_any_number_of_ranks_agree(size: int, whole: Path, tmp_path: Path) -> None:
    run(size, job(), tmp_path)
    agree(whole, tmp_path)
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["ranks"] == size


def spoken(ends: list[Ended]) -> list[str]:
    """The sentences of all ranks. Each rank ended in a sentence or with another's."""
    return [x for end in ends for x in end.message.splitlines() if x.startswith("tutelage: ")]


def reaches(folder: Path, steps: int) -> None:
    until = time.monotonic() + 600
    while len(lines_so_far(folder)) < steps:
        assert time.monotonic() < until, "the run did not come so far"
        time.sleep(0.01)


def lines_so_far(folder: Path) -> list[str]:
    path = folder / "run" / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_run_goes_on_with_more_or_fewer(
    killed: int, whole: Path, tmp_path: Path
) -> None:
    gang = Gang(2, job(), tmp_path)
    reaches(tmp_path, 2 + killed)
    gang.kill(killed)
    at = time.monotonic()
    ends = gang.wait(TELLS + 60)
    assert time.monotonic() - at < TELLS
    assert ends[killed].code == -signal.SIGKILL
    assert ends[1 - killed].code == 2
    assert len(spoken(ends)) == 1, spoken(ends)
    (sentence,) = spoken(ends)
    assert f"rank {killed} ended without a word" in sentence or "is gone" in sentence
    assert "--resume" in sentence
    assert "Traceback" not in ends[1 - killed].message
    run(3 - 2 * killed, job(resume=True), tmp_path)
    agree(whole, tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (2, 1),
        *(pytest.param(*sizes, marks=pytest.mark.nightly) for sizes in ((1, 2), (2, 4), (4, 2))),
    ],
)
def test_a_run_goes_on_with_weights_whole_or_divided(
    before: int, after: int, whole: Path, tmp_path: Path
) -> None:
    """A checkpoint of ranks that divide weights and moments is one of a single process."""
    gang = Gang(before, job(sharded="update" if before > 1 else "no"), tmp_path)
    reaches(tmp_path, 4)
    gang.kill(before - 1)
    assert {end.code for end in gang.wait(TELLS + 60)} <= {2, -signal.SIGKILL}
    assert checkpoint.latest(tmp_path / "run").name > checkpoint.START
    run(after, job(resume=True, sharded="update" if after > 1 else "no"), tmp_path)
    agree(whole, tmp_path)


def test_one_process_divides_nothing(tmp_path: Path) -> None:
    (end,) = Gang(1, job(sharded="update"), tmp_path).wait()
    assert end.code == 2
    assert "start with `torchrun" in end.message
    assert not (tmp_path / "run").exists()


def press(gang: Gang) -> None:
    """A terminal sends SIGINT to torchrun and to the ranks, and torchrun passes it on to them."""
    for _ in range(2):
        gang.kill(0, signal.SIGINT)
        gang.kill(1, signal.SIGINT)
        time.sleep(0.02)


@pytest.mark.parametrize("sharded", ["no", "update"])
def test_ctrl_c_writes_a_checkpoint_of_the_last_step(
    sharded: Sharding, whole: Path, tmp_path: Path
) -> None:
    gang = Gang(2, job(run__checkpoint_every=100, sharded=sharded), tmp_path)
    reaches(tmp_path, 3)
    press(gang)
    ends = gang.wait()
    assert [end.code for end in ends] == [130, 2], [end.message for end in ends]
    assert not any("Traceback" in end.message for end in ends)
    newest = checkpoint.latest(tmp_path / "run")
    assert newest.name > checkpoint.START
    # a step that was finished after Ctrl-C is in it
    assert checkpoint.read_state(newest).step == len(lines_so_far(tmp_path)) - WARM
    run(1, job(resume=True), tmp_path)
    agree(whole, tmp_path)


class Playing(Quiet):
    """Says in a file that episodes are played, and keeps what was said."""

    def playing(self, done: int, total: int) -> None:
        if len(lines_so_far(Path())) == 3:
            Path("playing").touch()
            time.sleep(120)  # until the second Ctrl-C comes

    def warned(self, sentence: object) -> None:
        Path("warned").write_text(str(sentence))


@pytest.mark.nightly
def test_ctrl_c_once_more_ends_a_run_with_divided_weights_at_once(
    whole: Path, tmp_path: Path
) -> None:
    def of(ranks: Ranks) -> None:
        watch = Playing()
        watched = watch if ranks.rank == 0 else Quiet()
        settings = config(run__checkpoint_every=100)
        train.train(settings, watch=watched, ranks=ranks, sharded="update")

    gang = Gang(2, of, tmp_path)
    appears(tmp_path / "playing")
    press(gang)
    appears(tmp_path / "warned")
    time.sleep(1.5 * TOGETHER)
    press(gang)
    ends = gang.wait()
    assert [end.code for end in ends] == [130, 2], [end.message for end in ends]
    assert not any("Traceback" in end.message for end in ends)
    sentence = (tmp_path / "warned").read_text()
    assert "with a checkpoint" in sentence
    assert f"--resume` continues from checkpoint {checkpoint.START}" in sentence
    assert checkpoint.latest(tmp_path / "run").name == checkpoint.START
    run(1, job(resume=True), tmp_path)
    agree(whole, tmp_path)


def test_sigterm_while_ranks_play_writes_a_checkpoint_of_the_last_step(
    whole: Path, tmp_path: Path
) -> None:
    """A scheduler whose time is over sends it to every process, and torchrun to the ranks again."""

    def of(ranks: Ranks) -> None:
        watch = Playing() if ranks.rank == 0 else Quiet()
        train.train(config(run__checkpoint_every=100), watch=watch, ranks=ranks)

    gang = Gang(2, of, tmp_path)
    appears(tmp_path / "playing")
    for _ in range(2):
        for rank in range(2):
            gang.kill(rank, signal.SIGTERM)
    ends = gang.wait()
    assert [end.code for end in ends] == [2, 2], [end.message for end in ends]
    assert not any("Traceback" in end.message for end in ends)
    assert "--resume" in "".join(spoken(ends))
    newest = checkpoint.latest(tmp_path / "run")
    assert checkpoint.read_state(newest).step == len(lines_so_far(tmp_path)) - WARM == 1
    run(1, job(resume=True, run__checkpoint_every=100), tmp_path)
    assert checkpoint.read_state(checkpoint.latest(tmp_path / "run")).step == STEPS


def appears(path: Path) -> None:
    until = time.monotonic() + 600
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} is not there"
        time.sleep(0.01)


def test_a_rank_that_hangs_ends_the_others(tmp_path: Path) -> None:
    gang = Gang(
        2, job(), tmp_path, prepare=lambda rank: os.environ.update(TUTELAGE_RANK_DEADLINE="3")
    )
    reaches(tmp_path, 1)
    gang.kill(1, signal.SIGSTOP)
    until = time.monotonic() + 600
    while (found := os.waitpid(gang.children[0], os.WNOHANG))[0] == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    gang.kill(1)
    os.waitpid(gang.children[1], 0)
    assert os.waitstatus_to_exitcode(found[1]) == 2
    assert "rank 1 has not answered for 3 seconds" in (tmp_path / "stderr-0").read_text()


def refused(size: int, what: Callable[[Ranks], None], folder: Path, **more: Any) -> str:
    """The one sentence with which all ranks end; it comes from rank 0."""
    ends = Gang(size, what, folder, **more).wait()
    assert [end.code for end in ends] == [2] * size, [end.message for end in ends]
    assert len(spoken(ends)) == 1, spoken(ends)
    (sentence,) = spoken(ends)
    assert sentence in ends[0].message
    assert not any("Traceback" in end.message for end in ends)
    return sentence


def test_more_ranks_than_groups(tmp_path: Path) -> None:
    assert "3 ranks but 2 groups" in refused(3, job(rollout__tasks_per_step=2), tmp_path)
    assert not (tmp_path / "run").exists()


def test_ranks_with_other_settings(tmp_path: Path) -> None:
    def other(ranks: Ranks) -> None:
        job(update__grad_clip=1.0 + ranks.rank)(ranks)

    assert "rank 1 was started with other settings" in refused(2, other, tmp_path)


def test_ranks_with_another_torch(tmp_path: Path) -> None:
    def old(rank: int) -> None:
        here = metadata.version
        if rank:
            metadata.version = lambda name: "1.0" if name == "torch" else here(name)

    sentence = refused(2, job(), tmp_path, prepare=old)
    assert f"rank 1 has torch 1.0 and rank 0 has torch {metadata.version('torch')}" in sentence


def test_a_rank_without_the_checkpoint(tmp_path: Path) -> None:
    run(1, job(), tmp_path)

    def elsewhere(rank: int) -> None:
        if rank:
            (tmp_path / "elsewhere").mkdir()
            os.chdir(tmp_path / "elsewhere")

    more = job(resume=True, run__steps=STEPS + 1)
    sentence = refused(2, more, tmp_path, prepare=elsewhere)
    assert "rank 1: there is no run/checkpoints" in sentence


def test_a_rank_with_other_weights(tmp_path: Path) -> None:
    from tutelage.runs import models

    build = models.build_model

    def other(rank: int) -> None:
        if rank:
            models.build_model = lambda *a, **named: build(*a, **{**named, "seed": 1})

    sentence = refused(2, job(), tmp_path, prepare=other)
    assert "rank 1 loaded another student than rank 0" in sentence


def test_an_error_of_one_rank_is_said_by_rank_0(tmp_path: Path) -> None:
    """An environment that fails on rank 1 alone, while episodes are played."""

    def fails(rank: int) -> None:
        from tutelage.errors import EnvError
        from tutelage.rollout import play

        def acted(self: Any, completion: Any) -> None:
            raise EnvError("the environment's server is gone; start it again")

        if rank:
            play._Rollout._acted = acted  # type: ignore[method-assign]

    sentence = refused(2, job(), tmp_path, prepare=fails)
    assert sentence == "tutelage: rank 1: the environment's server is gone; start it again"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        gang = Gang(
            2,
            job(),
            tmp_path,
            port=port,
            prepare=lambda rank: os.environ.update(TUTELAGE_RANK_DEADLINE="2"),
        )
        ends = gang.wait()
    assert [end.code for end in ends] == [2, 2]
    assert f"rank 0 cannot listen on 127.0.0.1:{port}" in ends[0].message
    assert "rank 1 did not reach the other ranks" in ends[1].message


def test_without_torchrun_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    def alone(ranks: Ranks) -> bool:
        for name in ("RANK", "WORLD_SIZE"):
            os.environ.pop(name)
        sys.modules.pop("tutelage.runs.distributed", None)
        job(warm_start__steps=1, run__steps=1)(ranks)
        import torch.distributed as dist

        return "tutelage.runs.distributed" in sys.modules or dist.is_initialized()

    assert run(1, alone, tmp_path) == [False]
