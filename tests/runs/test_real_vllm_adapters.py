"""Whole runs that hand their low-rank adapters alone to the real vLLM, and what may go wrong.

`make vllm` runs them; without the environment variable VLLM they are skipped.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.test_real_vllm import Restarts, RestartsWhilePlaying
from support import hand_overs
from support.hand_overs import LONG, gap, handed_over_often, play, requests_of, without_cache_resets
from support.real_vllm import (
    ADAPTERS,
    EXACT,
    RUNTIME,
    SOURCE,
    VllmServer,
    apart,
    config,
    distilled,
    lines,
    needs_vllm,
    tokens,
    two_models,
    vllm_servers,
)
from support.tiny_runs import Quiet

from tutelage.config import toml_file
from tutelage.errors import PolicyError
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server import adapter_transfer
from tutelage.policies.server.adapter_transfer import AdapterEngine, AdapterSampler
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.runs import train

pytest.importorskip("peft")
pytestmark = [needs_vllm, pytest.mark.timeout(3000)]
RANK = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(tmp_path_factory.mktemp("adapters"), start=3, teacher=6)


@pytest.fixture(scope="module")
def servers(home: Path) -> Iterator[list[VllmServer]]:
    with vllm_servers(home / "start", home, count=2, flags=ADAPTERS, variables=RUNTIME) as both:
        yield both


@pytest.fixture(scope="module")
def calm(home: Path, servers: list[VllmServer]) -> str:
    """An undisturbed run: its name."""
    train.train(adapting(home, "calm", [servers[0].url], run={"steps": 4}), watch=Quiet())
    return "calm"


@pytest.fixture
def of(home: Path, servers: list[VllmServer], tmp_path: Path) -> HFPolicy:
    """The student with its adapters on the first server."""
    return sampled(home / "start", servers[0], tmp_path)


def adapting(home: Path, name: str, urls: list[str], **sections: Any) -> Any:
    more = toml_file.merged(
        distilled(home), {"policy": {"lora": RANK, "sampler": {"transfer": "adapters"}}}
    )
    return config(home, name, urls, **toml_file.merged(more, sections))


def sampled(
    model: Path, server: VllmServer, weights: Path, *, rank: int = RANK, dtype: str = "float32"
) -> Any:
    of = HFPolicy.load(str(model), device="cpu", lora=rank, dtype=dtype)
    client = Client(server.url, name="policy.sampler", setting="policy.sampler.url")
    remote = RemotePolicy(client, of.chat, returns_temperature_scaled=True)
    remote.connect()
    sampler = AdapterSampler(remote)
    sampler.check(rank)
    (weights / "of-the-test").mkdir(exist_ok=True)
    of.engine = AdapterEngine(of, [sampler], folder=weights / "of-the-test")
    of.refresh()
    return of


shaken = partial(hand_overs.shaken, only=".lora_")


# -- whole runs


def test_the_turns_are_the_trainers_at_each_step(home: Path, calm: str) -> None:
    found = lines(home, calm)
    assert len(found) == 4
    assert apart(home, calm) < EXACT
    loss = [line["loss"] for line in found]
    assert loss[-1] < loss[0]


def test_two_servers(home: Path, servers: list[VllmServer], calm: str) -> None:
    urls = [server.url for server in servers]
    train.train(adapting(home, "both", urls, run={"steps": 4}), watch=Quiet())
    assert tokens(home, "both") == tokens(home, calm)
    assert apart(home, "both") < EXACT


def test_two_ranks_with_a_server_each(home: Path, servers: list[VllmServer], calm: str) -> None:
    settings = adapting(home, "ranks", [server.url for server in servers], run={"steps": 4})
    (home / "ranks.toml").write_text(toml_file.write(settings))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    ended = subprocess.run(
        [sys.executable, *command, "tutelage", "train", str(home / "ranks.toml")],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert apart(home, "ranks") < EXACT
    assert tokens(home, "ranks") == tokens(home, calm)


def test_a_rate_that_changes_nothing_leaves_no_gap(home: Path, servers: list[VllmServer]) -> None:
    train.train(adapting(home, "still", [servers[0].url], update={"lr": 1e-30}), watch=Quiet())
    for line in lines(home, "still"):
        assert line["mismatch"]["max"] < 1e-5
        assert line["means"]["importance"] == pytest.approx(1.0, abs=1e-5)


def test_a_server_that_is_killed_and_started_again(
    home: Path, servers: list[VllmServer], calm: str
) -> None:
    watch = Restarts(servers[1])
    train.train(adapting(home, "killed", [servers[1].url], run={"steps": 4}), watch=watch)
    assert watch.again.ident is not None
    servers[1].wait()
    assert tokens(home, "killed") == tokens(home, calm)
    assert apart(home, "killed") < EXACT


def test_a_server_that_is_killed_while_it_samples(home: Path, servers: list[VllmServer]) -> None:
    more = {"run": {"steps": 3}, "rollout": {"concurrency": 4}}
    train.train(adapting(home, "calm-2", [servers[0].url], **more), watch=Quiet())
    watch = RestartsWhilePlaying(servers[1])
    train.train(adapting(home, "killed-2", [servers[1].url], **more), watch=watch)
    assert any("had lost its weights" in line for line in watch.printed), watch.printed
    assert tokens(home, "killed-2") == tokens(home, "calm-2")
    assert apart(home, "killed-2") < EXACT


# -- one hand-over after another


def test_nothing_stays_in_the_prefix_cache(of: HFPolicy) -> None:
    """Also where turns of the old adapters still run when new ones are handed over."""
    requests = requests_of(of, length=LONG)
    before = play(of, requests)
    assert gap(of, requests, before) < EXACT
    assert gap(of, requests, play(of, requests)) < EXACT  # now from the cache
    for request in requests_of(of, length=LONG):
        of.submit(request)
    shaken(of, 0.1)
    of.refresh()
    after = play(of, requests)
    assert gap(of, requests, after) < EXACT
    assert after != before


def test_a_cache_that_is_not_reset_is_what_the_mismatch_shows(
    of: HFPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's cache knows adapters by their name and folder, and both stay."""
    requests = requests_of(of, length=LONG)
    play(of, requests)
    without_cache_resets(of, monkeypatch)
    shaken(of, 0.3)
    of.refresh()
    assert gap(of, requests, play(of, requests)) > 0.01


def test_adapters_that_are_loaded_in_place_are_read_before_every_token(
    of: HFPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why they are not: vLLM 0.32 then samples from whatever lies in the folder."""
    tell = adapter_transfer._tell

    def in_place(client: Client, path: str, body: dict[str, Any]) -> None:
        if path == adapter_transfer.LOAD:
            tell(client, path, {**body, "load_inplace": True})

    requests = requests_of(of)
    shaken(of, 0.3)
    of.refresh()
    assert gap(of, requests, play(of, requests)) < EXACT
    (folder,) = {of.engine.folder}  # type: ignore[attr-defined]
    shaken(of, 0.3, seed=2)
    adapter_transfer.write(of, folder)
    assert gap(of, requests, play(of, requests)) > 0.01  # not handed over, so not sampled from
    monkeypatch.setattr(adapter_transfer, "_tell", in_place)
    of.refresh()
    assert gap(of, requests, play(of, requests)) < EXACT
    shaken(of, 0.3, seed=3)
    adapter_transfer.write(of, folder)
    assert gap(of, requests_of(of, length=21), play(of, requests_of(of, length=21))) < EXACT
    monkeypatch.undo()
    shaken(of, 0.0)
    of.refresh()


def test_many_hand_overs_take_no_memory(of: HFPolicy, servers: list[VllmServer]) -> None:
    change = partial(shaken, of, 0.001)
    handed_over_often(of, change, servers[0].memory, exact=EXACT)


# -- what may go wrong


def test_a_rank_above_the_servers(home: Path, servers: list[VllmServer], tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"rank 8 at most, and policy\.lora is 9; .*-rank 16"):
        sampled(home / "start", servers[0], tmp_path, rank=9)


def test_a_folder_that_the_server_does_not_see(
    of: HFPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shaken(of, 0.1)
    of.engine.folder = tmp_path / "elsewhere"  # type: ignore[attr-defined]
    monkeypatch.setattr(adapter_transfer, "write", lambda policy, folder: None)
    with pytest.raises(PolicyError, match=r"finds no adapters in .*elsewhere; name a folder"):
        of.refresh()


def test_another_base_is_refused_and_leaves_the_server_whole(
    home: Path, servers: list[VllmServer], tmp_path: Path
) -> None:
    """Of the same tokenizer: one whose adapters have other sizes, and one with other weights."""
    with pytest.raises(PolicyError, match=r"could not load the weights: .*size of tensor"):
        sampled(SOURCE / "tutelage/assets/household-teacher", servers[1], tmp_path)
    with pytest.raises(PolicyError, match=r"start the server from policy\.model as it is"):
        sampled(home / "teacher", servers[1], tmp_path)
    of = sampled(home / "start", servers[1], tmp_path)
    requests = requests_of(of)
    assert gap(of, requests, play(of, requests)) < EXACT


@pytest.mark.parametrize(
    ("flags", "variables", "reason"),
    [
        ((), {}, r"has no /v1/load_lora_adapter.*start it with VLLM_ALLOW"),
        ((), RUNTIME, r"was started without --enable-lora"),
        ((*ADAPTERS, "--lora-target-modules=q_proj"), RUNTIME, r"adapters for all its layers"),
    ],
)
def test_a_server_that_takes_none_or_not_all(
    flags: Any, variables: Any, reason: str, home: Path, tmp_path: Path
) -> None:
    """In one sentence, before an episode is played; new adapters alone would not show the last."""
    with vllm_servers(home / "start", tmp_path, flags=flags, variables=variables) as (server,):
        settings = adapting(home, f"refused-{tmp_path.name}", [server.url])
        with pytest.raises(PolicyError, match=reason):
            train.train(settings, watch=Quiet())
        assert json.loads((home / "start" / "config.json").read_text())["tie_word_embeddings"]


def test_layers_that_hold_several_matrices(home: Path, tmp_path: Path) -> None:
    """Adapters of a student whose projections are fused, as vLLM's are."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Phi3Config

    tokenizer = AutoTokenizer.from_pretrained(home / "start")
    torch.manual_seed(0)
    shape = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "fused")
    tokenizer.save_pretrained(tmp_path / "fused")
    with vllm_servers(tmp_path / "fused", tmp_path, flags=ADAPTERS, variables=RUNTIME) as (one,):
        of = sampled(tmp_path / "fused", one, tmp_path)
        requests = requests_of(of)
        shaken(of, 0.1)
        of.refresh()
        assert gap(of, requests, play(of, requests)) < EXACT


def test_bfloat16(home: Path, tmp_path: Path) -> None:
    """A sampler in bfloat16 under float32 adapters."""
    with vllm_servers(
        home / "start", tmp_path, dtype="bfloat16", flags=ADAPTERS, variables=RUNTIME
    ) as (server,):
        more: dict[str, Any] = {"policy": {"dtype": "bfloat16"}, "run": {"steps": 5}}
        train.train(adapting(home, "rounded", [server.url], **more), watch=Quiet())
        found = [line["mismatch"] for line in lines(home, "rounded")]
        print("\n", [{k: round(v, 4) for k, v in numbers.items()} for numbers in found])
        assert all(numbers["mean"] < 0.03 for numbers in found if numbers)
        with pytest.raises(PolicyError, match="--dtype float32"):
            train.train(adapting(home, "exact", [server.url]), watch=Quiet())


def test_the_run_of_merged_weights_and_a_base_that_they_changed(
    home: Path, servers: list[VllmServer], calm: str
) -> None:
    """The last one here: the weights of the second server are others from now on."""
    merged = {"policy": {"sampler": {"transfer": "folder"}}, "run": {"steps": 4}}
    train.train(adapting(home, "merged", [servers[1].url], **merged), watch=Quiet())
    assert tokens(home, "merged") == tokens(home, calm)
    for line, other in zip(lines(home, "merged"), lines(home, calm), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
    with pytest.raises(PolicyError, match=r"weights that another run loaded into it stay"):
        train.train(adapting(home, "after", [servers[1].url]), watch=Quiet())
