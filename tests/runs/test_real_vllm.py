"""Whole runs that the real vLLM samples, and what may go wrong between it and the trainer.

`make vllm` runs them; without the environment variable VLLM they
are skipped. Each server takes 3 GB and up to a minute to start.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.hand_overs import (
    LONG,
    gap,
    handed_over_often,
    play,
    requests_of,
    shaken,
    without_cache_resets,
)
from support.real_vllm import (
    EXACT,
    SOURCE,
    TRANSFER,
    VllmServer,
    apart,
    config,
    distilled,
    lines,
    needs_vllm,
    tokens,
    trained_there,
    two_models,
    vllm_servers,
)
from support.tiny_runs import Quiet

from tutelage.config import toml_file
from tutelage.errors import PolicyError
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import VllmEngine
from tutelage.policies.server.vllm_server import ServerSampler
from tutelage.runs import train

pytestmark = [needs_vllm, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the folders of two models of one tokenizer: `start`, which has seen 25 steps of
    demonstrations, and `teacher`, which has seen 120."""
    return two_models(tmp_path_factory.mktemp("real"), start=25, teacher=120)


@pytest.fixture(scope="module")
def servers(home: Path) -> Iterator[list[VllmServer]]:
    with vllm_servers(home / "start", home, count=2) as both:
        yield both


@pytest.fixture
def of(home: Path, servers: list[VllmServer], tmp_path: Path) -> HFPolicy:
    """The student with its weights on the first server."""
    return sampled(home / "start", [servers[0]], tmp_path)


def sampled(folder: Path, servers: list[VllmServer], weights: Path, dtype: str = "float32") -> Any:
    policy = HFPolicy.load(str(folder), device="cpu", dtype=dtype)  # type: ignore[arg-type]
    samplers = []
    for server in servers:
        client = Client(server.url, name="policy.sampler", setting="policy.sampler.url")
        remote = RemotePolicy(client, policy.chat, returns_temperature_scaled=True)
        remote.connect()
        samplers.append(ServerSampler(remote))
    policy.engine = VllmEngine(policy, samplers, folder=weights / "weights")
    policy.refresh()
    return policy


# -- whole runs


@pytest.mark.parametrize("method", ["grpo", "opd", "sdar"])
def test_a_run_of_each_method(method: str, home: Path, servers: list[VllmServer]) -> None:
    teacher = {"policies": {"teacher": {"model": str(home / "teacher")}}}
    more: dict[str, Any] = {"algorithm": {"name": method}, "run": {"steps": 3}}
    more |= teacher if method == "opd" else {}
    if method == "sdar":
        more["algorithm"]["hint"] = "plan"
    more["eval"] = {"every": 3, "temperature": 0.0, "tasks": 9, "split": "train"}
    train.train(config(home, f"{method}-here", None, **more), watch=Quiet())
    train.train(config(home, f"{method}-one", [servers[0].url], **more), watch=Quiet())
    assert apart(home, f"{method}-one") < EXACT
    # at temperature 0, and before anything is learnt, both engines say the same
    first = [lines(home, f"{method}-{where}", "evals.jsonl")[0] for where in ("here", "one")]
    assert first[0]["step"] == 0
    assert first[0] == first[1]


def test_two_servers_sample_what_one_does(home: Path, servers: list[VllmServer]) -> None:
    train.train(config(home, "alone", [servers[0].url]), watch=Quiet())
    train.train(config(home, "both", [server.url for server in servers]), watch=Quiet())
    assert apart(home, "both") < EXACT
    assert tokens(home, "both") == tokens(home, "alone")


def test_distillation_teaches(home: Path, servers: list[VllmServer]) -> None:
    """The sampled log-probability gap to the teacher shrinks, as with the built-in engine."""
    more = distilled(home, lr=3e-3)
    settings = config(home, "learns", [servers[0].url], run={"steps": 30}, **more)
    train.train(settings, watch=Quiet())
    loss = [line["loss"] for line in lines(home, "learns")]
    assert sum(loss[-5:]) < 0.6 * sum(loss[:5])
    assert apart(home, "learns") < EXACT


def test_a_rate_that_changes_nothing_leaves_no_gap(home: Path, servers: list[VllmServer]) -> None:
    more = {"update": {"lr": 1e-30}, "run": {"steps": 5}}
    train.train(config(home, "still", [servers[0].url], **more), watch=Quiet())
    for line in lines(home, "still"):
        assert line["mismatch"]["max"] < 1e-5
        assert line["means"]["importance"] == pytest.approx(1.0, abs=1e-5)


def test_adapters_arrive_merged(home: Path, servers: list[VllmServer]) -> None:
    pytest.importorskip("peft")
    more = {"policy": {"lora": 4}, "update": {"lr": 1e-2}}
    train.train(config(home, "lora", [servers[0].url], **more), watch=Quiet())
    assert apart(home, "lora") < EXACT


def test_two_ranks_with_a_server_each(home: Path, servers: list[VllmServer]) -> None:
    urls = [server.url for server in servers]
    more: dict[str, Any] = {"run": {"steps": 2}}
    train.train(config(home, "rank", urls, **more), watch=Quiet())
    settings = config(home, "ranks", urls, **more)
    (home / "ranks.toml").write_text(toml_file.write(settings))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *command, "tutelage", "train", str(home / "ranks.toml")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert apart(home, "ranks") < EXACT
    assert tokens(home, "ranks") == tokens(home, "rank")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_the_process_of_the_trainer(dtype: str, home: Path, servers: list[VllmServer]) -> None:
    """By the Python that has vLLM, which needs what tutelage needs."""
    name = f"inside-{dtype}"
    settings = config(home, name, None, policy={"dtype": dtype, "sampler": {}})
    trained_there(settings, home)
    if dtype == "float32":
        train.train(config(home, "outside", [servers[0].url]), watch=Quiet())
        assert apart(home, name) < EXACT
        assert tokens(home, name) == tokens(home, "outside")
    else:
        assert all(line["mismatch"]["mean"] < 0.03 for line in lines(home, name))


# -- what may go wrong


def test_greedy_turns_are_those_of_the_built_in_engine(of: HFPolicy, home: Path) -> None:
    requests = [dataclasses.replace(r, temperature=0.0) for r in requests_of(of, count=24)]
    theirs = play(of, requests)
    ours = play(HFPolicy.load(str(home / "start"), device="cpu"), requests)
    assert {k: v.tokens for k, v in theirs.items()} == {k: v.tokens for k, v in ours.items()}


def test_nothing_stays_in_the_prefix_cache(of: HFPolicy) -> None:
    """Also where turns of the old weights still run when new ones are handed over."""
    requests = requests_of(of, length=LONG)
    before = play(of, requests)
    assert gap(of, requests, before) < EXACT
    assert gap(of, requests, play(of, requests)) < EXACT  # now from the cache
    for request in requests:
        of.submit(dataclasses.replace(request, key=f"lost {request.key}", max_new=60))
    time.sleep(0.1)
    shaken(of, 0.1)
    of.refresh()
    after = play(of, requests)
    assert gap(of, requests, after) < EXACT
    assert after != before


def test_a_cache_that_is_not_reset_is_what_the_mismatch_shows(
    of: HFPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe's scores never come from the cache, so it alone would not notice."""
    requests = requests_of(of, length=LONG)
    play(of, requests)
    without_cache_resets(of, monkeypatch)
    shaken(of, 0.1)
    of.refresh()
    assert gap(of, requests, play(of, requests)) > 0.01


def test_a_tied_head_that_is_listed_once(of: HFPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM 0.32 keeps the old head on a CPU, without a word; the probe notices."""
    listed = HFPolicy.weights

    def once(policy: HFPolicy) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, x) for name, x in listed(policy) if name != "lm_head.weight")

    monkeypatch.setattr(HFPolicy, "weights", once)
    shaken(of, 0.1)
    with pytest.raises(
        PolicyError, match=r"after a weight update, policy\.sampler and the trainer"
    ):
        of.refresh()
    monkeypatch.undo()
    of.refresh()
    requests = requests_of(of)
    assert gap(of, requests, play(of, requests)) < EXACT


def test_many_hand_overs_take_no_memory(of: HFPolicy, servers: list[VllmServer]) -> None:
    change = partial(shaken, of, 0.001)
    handed_over_often(of, change, servers[0].memory, exact=EXACT)


class Restarts(Quiet):
    """Kills a server when step 1 is learnt, and starts it again a little later."""

    def __init__(self, server: VllmServer) -> None:
        self.server, self.printed = server, list[str]()
        self.again = threading.Thread(target=self._again)

    def stepped(self, line: Any, seconds: object) -> None:
        if line["step"] == 1:
            self.server.kill()
            self.again.start()

    def _again(self) -> None:
        time.sleep(2.0)
        self.server.start()

    def warned(self, sentence: object) -> None:
        self.printed.append(str(sentence))


def test_a_server_that_is_killed_and_started_again(home: Path, servers: list[VllmServer]) -> None:
    more = {"run": {"steps": 4}}
    train.train(config(home, "calm", [servers[0].url], **more), watch=Quiet())
    watch = Restarts(servers[1])
    train.train(config(home, "killed", [servers[1].url], **more), watch=watch)
    assert watch.again.ident is not None
    servers[1].wait()
    assert tokens(home, "killed") == tokens(home, "calm")
    assert apart(home, "killed") < EXACT


class RestartsWhilePlaying(Restarts):
    """When some of step 1's turns are under way."""

    def stepped(self, line: Any, seconds: object) -> None:
        self.learnt = line["step"]

    learnt = -1

    def playing(self, done: int, total: int) -> None:
        if self.learnt == 0 and self.again.ident is None and 0 < done < total:
            self.server.kill()
            self.again.start()


def test_a_server_that_is_killed_while_it_samples(home: Path, servers: list[VllmServer]) -> None:
    more = {"run": {"steps": 3}, "rollout": {"concurrency": 4}}
    train.train(config(home, "calm-2", [servers[0].url], **more), watch=Quiet())
    watch = RestartsWhilePlaying(servers[1])
    train.train(config(home, "killed-2", [servers[1].url], **more), watch=watch)
    assert any("had lost its weights" in line for line in watch.printed), watch.printed
    assert tokens(home, "killed-2") == tokens(home, "calm-2")
    assert apart(home, "killed-2") < EXACT


def test_another_model_is_refused(home: Path, servers: list[VllmServer], tmp_path: Path) -> None:
    """Of the same tokenizer, with other sizes: vLLM cannot load the student's weights."""
    with pytest.raises(PolicyError, match=r"policy\.sampler could not load the weights"):
        sampled(SOURCE / "tutelage/assets/household-teacher", [servers[1]], tmp_path)


# -- bfloat16, on a server of its own


def test_bfloat16(home: Path, tmp_path: Path) -> None:
    """A sampler in bfloat16 under float32 masters: told so by policy.dtype, it is within rounding;
    under a trainer that computes in float32 the probe refuses it."""
    with vllm_servers(home / "start", tmp_path, dtype="bfloat16", flags=TRANSFER) as (server,):
        more: dict[str, Any] = {"policy": {"dtype": "bfloat16"}, "run": {"steps": 5}}
        train.train(config(home, "rounded", [server.url], **more), watch=Quiet())
        found = [line["mismatch"] for line in lines(home, "rounded")]
        print("\n", [{k: round(v, 4) for k, v in numbers.items()} for numbers in found])
        assert all(numbers["mean"] < 0.03 for numbers in found if numbers)
        shutil.rmtree(home / "rounded")
        more["update"] = {"lr": 1e-30}
        train.train(config(home, "rounded", [server.url], **more), watch=Quiet())
        means = [line["mismatch"]["mean"] for line in lines(home, "rounded")]
        print(means)
        assert max(means) < 0.03
        with pytest.raises(PolicyError, match=r"differ by .* --dtype float32"):
            train.train(config(home, "coarse", [server.url]), watch=Quiet())
        sent: dict[str, Any] = {"policy": {"sampler": {"transfer": "gloo"}}}
        printed = trained_there(config(home, "coarse-sent", [server.url], **sent), home, code=2)
        assert "--dtype float32" in printed
        sent["policy"]["dtype"] = "bfloat16"
        trained_there(config(home, "rounded-sent", [server.url], **sent), home)
        assert all(line["mismatch"]["mean"] < 0.03 for line in lines(home, "rounded-sent"))
