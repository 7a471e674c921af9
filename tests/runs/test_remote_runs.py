"""Whole runs with a model on a server: the same gradients as with it here, scores that are begun
while others play, a server that dies, and a student that is sampled elsewhere."""

import json
import math
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_servers import client, remote, serving
from support.fake_vllm import LLM, module
from support.tiny_models import policy, small_chat
from support.tiny_runs import Quiet, tiny_table
from torch import Tensor
from torch.testing import assert_close
from training.test_train_step import Recorder, step

from tutelage.algorithms import ALGORITHMS
from tutelage.config.schema import Config
from tutelage.config.toml_file import parse, write
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError, PolicyError, RunError
from tutelage.objective import Algorithm, View
from tutelage.policies.base import OpenedPolicy
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.serve import Server
from tutelage.policies.server.vllm import LocalSampler
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.runs import assemble, models, train
from tutelage.training.train_step import Update

SAMPLED = {"student_turns": "sampled", "teacher_turns": "sampled"}
OPD: dict[str, dict[str, Any]] = {"opd": {}, "guided_opd": {"total_steps": 30, **SAMPLED}}
GRPO = {"name": "grpo", "entropy": 0.01}  # which learns something where nothing is won
SHAPE = {"layers": 1, "build": {"hidden": 16, "context": 128}}
TABLE = tiny_table(
    run={"steps": 4, "checkpoint_every": 1},
    rollout={"group_size": 2},
    algorithm={"name": "opd"},
    update={"lr": 1e-2},
    policy=SHAPE,
    policies={"teacher": {**SHAPE, "build": {"hidden": 32, "context": 128}}},
    eval={"every": 0},
)


def config(folder: Path, **sections: Any) -> Config:
    table = json.loads(json.dumps(TABLE))
    table["run"]["folder"] = str(folder)
    for name, changes in sections.items():
        table[name] = {**table.get(name, {}), **changes}
    return parse(table)


def at(port: int, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}"
    return {"teacher": {"model": url, **more}}


def policies_of(settings: Config) -> Mapping[str, OpenedPolicy]:
    suite = suite_of(settings.env)
    context = assemble.context_of(settings.context, suite)
    return models.policies_of(settings, list(settings.policies), suite, context)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    name = (folder / "latest").read_text().strip()
    return load_file(folder / "checkpoints" / name / "model.safetensors")


def alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor], atol: float) -> bool:
    return all(float((one[k] - other[k]).abs().max()) <= atol for k in one)


# -- one step


def world(teacher: HFPolicy | RemotePolicy) -> tuple[Session, dict[str, Any]]:
    suite = Doors(3)
    policies = {"self": policy(0), "teacher": teacher}
    on = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies=dict(policies),
        context=Context(),
        limits=Limits(max_turns=3, max_new_tokens=5),
    )
    return on, policies


def gradient(algorithm: Algorithm, teacher: HFPolicy | RemotePolicy) -> tuple[Tensor, float]:
    on, policies = world(teacher)
    episodes = play(on, on.suite.tasks("train")[:3], algorithm, seed=0, step=9, group_size=2)
    asked = teacher.client.count if isinstance(teacher, RemotePolicy) else 0
    recorder = Recorder(list(policies["self"].parameters()))
    report = step(on, policies, algorithm, episodes, recorder, at=9)
    if isinstance(teacher, RemotePolicy):
        # every score was begun as soon as its episode was over; nobody reads it where the student
        # took no turn
        assert teacher.client.count == asked
        unread = [e for e in episodes if all(turn.actor != "student" for turn in e.turns)]
        assert len(teacher.prefetched) <= len(unread) < len(episodes)
    return recorder.seen[0], sum(report.losses.values())


@pytest.mark.parametrize("name", OPD)
def test_a_teacher_on_a_server_gives_the_gradient_of_the_same_teacher_here(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ours takes any number for a seed, so that what a teacher says here and there is the same
    monkeypatch.setattr("tutelage.policies.server.vllm_api.SEEDS", 2**64)
    algorithm = ALGORITHMS[name](**OPD[name])
    here, loss = gradient(algorithm, policy(1))
    with serving(policy(1)) as server:
        there, again = gradient(algorithm, remote(server.port, small_chat()))
    assert float(here.abs().max()) > 1e-3
    assert_close(there, here, atol=1e-5 * float(here.abs().max()), rtol=1e-3)
    assert again == pytest.approx(loss, rel=1e-4)


def test_what_needs_a_whole_vocabulary_says_so() -> None:
    with (
        serving(policy(1)) as server,
        pytest.raises(ConfigError, match="choose its sampled-token form, or a local teacher"),
    ):
        gradient(ALGORITHMS["opd"](vocabulary="full"), remote(server.port, small_chat()))


def test_nothing_is_begun_for_those_who_only_play() -> None:
    with serving(policy(1)) as server:
        teacher = remote(server.port, small_chat())
        on, _ = world(teacher)
        asked = teacher.client.count
        seen = {"teacher": View(policy="teacher")}
        play(on, on.suite.tasks("train")[:2], Algorithm(terms=(), views=seen), seed=0)
        assert teacher.client.count == asked


# -- whole runs


@contextmanager
def child(of: HFPolicy, port: int = 0) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its id and port."""
    reader, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        server = Server(of, name="small", port=port)
        os.write(tell, str(server.port).encode().ljust(8))
        server.serve_forever()
    try:
        yield pid, int(os.read(reader, 8))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Killer(Quiet):
    """Kills a process after so many steps."""

    def __init__(self, pid: int, after: int) -> None:
        self.pid, self.left = pid, after

    def stepped(self, line: object, seconds: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(self.pid, signal.SIGKILL)


def test_a_server_that_dies_stops_the_run_which_goes_on_when_it_is_back(tmp_path: Path) -> None:
    local = config(tmp_path / "local")
    train.train(local, watch=Quiet())
    teacher = policies_of(local)["teacher"]
    assert isinstance(teacher, HFPolicy)
    with child(teacher) as (pid, port):
        away = config(tmp_path / "away", policies=at(port))
        with pytest.raises(PolicyError, match=r"policies\.teacher .* --resume it") as error:
            train.train(away, watch=Killer(pid, after=2))
        assert f"http://127.0.0.1:{port}" in str(error.value)
    assert len(metrics(tmp_path / "away")) == 2
    with child(teacher, port):
        train.train(away, resume=True, watch=Quiet())
    with child(teacher) as (_, other):
        train.train(config(tmp_path / "calm", policies=at(other)), watch=Quiet())
    assert metrics(tmp_path / "away") == metrics(tmp_path / "calm")
    calm = weights(tmp_path / "calm")
    assert all(torch.equal(x, calm[k]) for k, x in weights(tmp_path / "away").items())
    assert alike(calm, weights(tmp_path / "local"), 1e-4)


def test_a_run_reads_back_what_it_was(tmp_path: Path) -> None:
    settings = config(tmp_path / "x", policies=at(8000, key="TEACHER_KEY"))
    import tomllib

    assert parse(tomllib.loads(write(settings))) == settings


def test_a_student_is_sampled_elsewhere(tmp_path: Path) -> None:
    local = config(tmp_path / "here", algorithm=GRPO, policies={})
    of = policies_of(local)["self"]
    assert isinstance(of, HFPolicy)
    with serving(of, reload=True) as server:
        url = f"http://127.0.0.1:{server.port}"
        sampler = {**SHAPE, "sampler": {"url": url, "folder": str(tmp_path)}}
        away = config(
            tmp_path / "away",
            algorithm=GRPO,
            policies={},
            policy=sampler,
            run={"steps": 3},
            env={"suite": "doors"},
            rollout={"temperature": 1.0},
        )
        started = {k: v.clone() for k, v in of.model.state_dict().items()}
        train.train(away, watch=Quiet())
        for line in metrics(tmp_path / "away"):
            assert line["mismatch"]["max"] < 1e-4
            assert line["means"]["importance"] == pytest.approx(1.0, abs=1e-4)
        # it had the weights that the last step was played with
        now = of.model.state_dict()
        assert not alike(now, started, 1e-6)
        assert alike(weights(tmp_path / "away"), now, 0.05)
    assert not list(tmp_path.glob("tutelage-*/.model.safetensors"))


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> Config:
    """A run that a fake of vLLM samples, which computes with the weights it was given."""
    monkeypatch.setitem(sys.modules, "vllm", module())
    sampler = {"folder": str(folder), **sections.pop("sampler", {})}
    return config(
        folder / "away",
        algorithm=GRPO,
        policies={},
        run={"steps": 3},
        policy={**SHAPE, "sampler": sampler},
        **sections,
    )


class Drifting(Quiet):
    """From a run's start on, what the sampler tells of its tokens is wrong by so many nats."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drift: float) -> None:
        self.drift, self.monkeypatch = drift, monkeypatch

    def tested(self, names: object) -> None:
        self.monkeypatch.setattr(LLM, "drift", self.drift)


def test_a_student_is_sampled_by_vllm_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    load = LocalSampler.load
    monkeypatch.setattr(LocalSampler, "load", lambda self, f: (loads.append(f), load(self, f)))
    train.train(in_process(tmp_path, monkeypatch), watch=Quiet())
    lines = metrics(tmp_path / "away")
    assert len(lines) == len(loads) == 3  # before every step is played
    for line in lines:
        assert line["mismatch"].keys() == {"mean", "p99", "max"}
        assert line["mismatch"]["max"] < 1e-4
        assert line["means"]["importance"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("sampler", "weight"), [({}, 2.0), ({"truncate": 9.0}, math.e), ({"truncate": 1.25}, 1.25)]
)
def test_a_sampler_that_is_not_the_trainer_is_made_up_for(
    sampler: dict[str, Any], weight: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = in_process(tmp_path, monkeypatch, sampler={"max_mismatch": 1.5, **sampler})
    train.train(settings, watch=Drifting(monkeypatch, -1.0))
    for line in metrics(tmp_path / "away"):
        for number in line["mismatch"].values():
            assert number == pytest.approx(1.0, abs=1e-4)
        assert line["means"]["importance"] == pytest.approx(weight, rel=1e-4)


def test_a_sampler_that_is_too_far_from_the_trainer_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"in step 0 .* policy\.sampler\.max_mismatch = 0\.1\)"):
        train.train(in_process(tmp_path, monkeypatch), watch=Drifting(monkeypatch, -0.11))


def test_weights_that_do_not_arrive_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = config(tmp_path / "here", algorithm=GRPO, policies={})
    of = policies_of(local)["self"]
    assert isinstance(of, HFPolicy)
    with torch.no_grad():
        for parameter in of.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(
        "tutelage.policies.server.serve_worker.Worker._load", lambda self, folder: None
    )
    with serving(of, reload=True) as server:
        url = f"http://127.0.0.1:{server.port}"
        away = config(
            tmp_path / "away",
            algorithm=GRPO,
            policies={},
            policy={**SHAPE, "sampler": {"url": url}},
        )
        with pytest.raises(PolicyError, match=r"policy\.sampler and the trainer differ by"):
            train.train(away, watch=Quiet())


def test_a_server_that_takes_no_weights(tmp_path: Path) -> None:
    local = config(tmp_path / "here", algorithm=GRPO, policies={})
    of = policies_of(local)["self"]
    assert isinstance(of, HFPolicy)
    with serving(of) as server:
        url = f"http://127.0.0.1:{server.port}"
        away = config(
            tmp_path / "away",
            algorithm=GRPO,
            policies={},
            policy={**SHAPE, "sampler": {"url": url}},
        )
        with pytest.raises(PolicyError, match="VLLM_SERVER_DEV_MODE=1"):
            train.train(away, watch=Quiet())


def test_a_mismatch_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without vLLM it is rounding, which is more than the smallest number."""

    def tight(settings: Config, device: str) -> Update:
        return replace(assemble.update_of(settings, device), mismatch=1e-30)

    monkeypatch.setattr(train, "update_of", tight)
    with pytest.raises(RunError, match=r"policy\.sampler\.max_mismatch = 1e-30"):
        train.train(config(tmp_path / "x", algorithm=GRPO), watch=Quiet())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"model": "http://x"}}, "policy.model: the student is trained in this process"),
        ({"policies": {"teacher": {"model": "http://x", "lora": 3}}}, "has lora, which a model on"),
        ({"policies": {"teacher": {"model": "http://x", **SHAPE}}}, "has build, which"),
        ({"policies": {"teacher": {"model": "x", "key": "K"}}}, "has a key, but no server"),
        ({"policies": {"teacher": {"model": "x", "sampler": {}}}}, "only the student has"),
        ({"policies": {"teacher": {"model": "http://x", "key2": 1}}}, "did you mean"),
        ({"policy": {"model": "x", "sampler": {"url": "http://x", "options": {"a": 1}}}}, "optio"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, Any], message: str) -> None:
    table = json.loads(json.dumps(TABLE))
    for name, section in changes.items():
        table[name] = section
    with pytest.raises(ConfigError) as error:
        parse(table)
    assert message in str(error.value)


def test_a_key_that_is_not_set(tmp_path: Path) -> None:
    settings = config(tmp_path / "x", policies=at(1, key="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="key names an environment variable that is not set"):
        policies_of(settings)


def test_the_command_serves_a_folder(tmp_path: Path) -> None:
    policy(1).save(tmp_path / "model")
    command = [
        sys.executable,
        "-m",
        "tutelage",
        "serve",
        str(tmp_path / "model"),
        "--port",
        "0",
        "--name",
        "small",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that started us in the background has switched it off
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        url = line.split()[-1]
        assert line.startswith("serving small at http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
            assert json.loads(answer.read())["data"][0]["id"] == "small"
        other = client(int(url.rpartition(":")[2])).ask("/tokenize", {"prompt": "the apple"})
        assert other.result(60)["tokens"] == list(small_chat().content("the apple"))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
