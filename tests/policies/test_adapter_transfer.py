"""Low-rank adapters alone for a server that applies them to its own weights as vLLM does: what is
sampled after each hand-over, and the sentences where a server cannot take them."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import hand_overs
from support.adapter_server import Adapted, adapted
from support.fake_servers import listed, serving
from support.tiny_models import policy, run
from support.tiny_runs import Quiet
from torch.testing import assert_close

from tutelage.cli import dry_run
from tutelage.config.schema import Config
from tutelage.errors import PolicyError
from tutelage.policies.base import Dtype, Request
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server import adapter_transfer
from tutelage.policies.server.adapter_transfer import AdapterEngine, AdapterSampler, write
from tutelage.policies.server.http import Client, RequestOptions
from tutelage.policies.server.policy import RemotePolicy
from tutelage.prompts.prompter import Sample
from tutelage.runs import train

pytest.importorskip("peft")
REQUESTS = [Request(key=str(k), prompt=tuple(range(3, 6 + k)), seed=k, max_new=6) for k in range(8)]


def student(rank: int = 2, dtype: Dtype = "float32") -> HFPolicy:
    """The small model, with adapters."""
    plain = policy(0)
    trained = Adapters(plain.model, rank=rank, base="base", seed=0)
    return HFPolicy(plain.model, plain.chat, dtype=dtype, adapters=trained)


def sampler_at(url: str, of: HFPolicy) -> AdapterSampler:
    options = RequestOptions(retries=1, pause=0.01)
    client = Client(url, name="policy.sampler", setting="policy.sampler.url", options=options)
    remote = RemotePolicy(client, of.chat, returns_temperature_scaled=True)
    remote.connect()
    return AdapterSampler(remote)


def sampled(url: str, folder: Path, rank: int = 2, dtype: Dtype = "float32") -> HFPolicy:
    """A student that is sampled there."""
    of = student(rank, dtype)
    sampler = sampler_at(url, of)
    sampler.check(rank)
    folder.mkdir(exist_ok=True)
    of.engine = AdapterEngine(of, [sampler], folder=folder)
    return of


shaken = partial(hand_overs.shaken, only=".lora_")


@torch.no_grad()
def gap(of: HFPolicy) -> float:
    """The largest difference in nats of what both sides say of tokens that the server samples."""
    found = run(of, REQUESTS)
    samples = [Sample(prompt=r.prompt, tokens=found[r.key].tokens) for r in REQUESTS]
    theirs = torch.tensor([x for r in REQUESTS for x in found[r.key].logps])
    return float((of.score(samples, 1.0).logp.float() - theirs).abs().max())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Adapted]:
    with adapted(policy(0), tmp_path / "room") as found:
        yield found


# -- hand-overs


def test_each_hand_over_replaces_the_adapters_before(server: Adapted, tmp_path: Path) -> None:
    of = sampled(server.url, tmp_path / "weights")
    for k in range(4):
        shaken(of, 0.3, seed=k)
        of.refresh()
        assert gap(of) < 1e-4
    assert len(server.loaded) == 1
    assert {path.name for path in (tmp_path / "weights").iterdir()} <= {
        "adapter_config.json",
        "adapter_model.safetensors",
        ".adapters",
    }
    base = sum(x.nbytes for x in server.state.values())
    assert (tmp_path / "weights" / "adapter_model.safetensors").stat().st_size < base / 2


def test_the_cache_is_cleared_after_the_adapters_are_loaded(
    server: Adapted, tmp_path: Path
) -> None:
    of = sampled(server.url, tmp_path / "weights")
    of.refresh()
    run(of, REQUESTS)
    server.asked.clear()
    shaken(of, 0.3)
    of.refresh()
    assert server.asked == ["unload", "load", "reset"]
    assert gap(of) < 1e-4


def test_adapters_go_over_only_where_they_changed(server: Adapted, tmp_path: Path) -> None:
    of = sampled(server.url, tmp_path / "weights")
    of.refresh()
    count = server.asked.count("load")
    of.refresh()
    assert server.asked.count("load") == count
    shaken(of, 0.1)
    of.refresh()
    assert server.asked.count("load") == count + 1


def test_the_first_comparison_leaves_the_adapters_as_they_were(
    server: Adapted, tmp_path: Path
) -> None:
    of = sampled(server.url, tmp_path / "weights")
    shaken(of, 0.1)
    before = {name: x.clone() for name, x in of.model.state_dict().items()}
    of.refresh()
    after = of.model.state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())
    assert gap(of) < 1e-4


@pytest.mark.parametrize("layer", ["", "down_proj", "q_proj", "v_proj"])
def test_adapters_that_a_server_ignores_are_noticed_before_they_learn(
    layer: str, server: Adapted, tmp_path: Path
) -> None:
    of = sampled(server.url, tmp_path / "weights")
    server.ignore(layer)
    with pytest.raises(PolicyError, match="adapters for all its layers"):
        of.refresh()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_travel_in_the_dtype_of_both(dtype: Dtype, tmp_path: Path) -> None:
    of = student(dtype=dtype)
    shaken(of, 0.1)
    write(of, tmp_path)
    found, own = load_file(tmp_path / "adapter_model.safetensors"), of.adapters
    assert own is not None
    assert found.keys() == own.tensors().keys()
    for name, x in own.tensors().items():
        assert x.dtype == torch.float32
        assert_close(found[name], x.to(getattr(torch, dtype)), atol=0, rtol=0)


def test_a_server_in_bfloat16(tmp_path: Path) -> None:
    with adapted(policy(0, dtype="bfloat16"), tmp_path / "room") as server:
        of = sampled(server.url, tmp_path / "weights", dtype="bfloat16")
        shaken(of, 0.05)
        of.refresh()
        assert gap(of) < 0.2


def test_a_server_that_is_lost_while_it_loads(
    server: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And started again: the adapters are loaded there."""
    monkeypatch.setattr(adapter_transfer, "PAUSE", 0.01)
    of = sampled(server.url, tmp_path / "weights")
    of.refresh()
    load, answers = server.own.post["/v1/load_lora_adapter"], ["lost"]

    def lost(body: Any) -> Any:
        if answers:
            answers.pop()
            server.forget()
            raise ValueError("the engine has ended")  # 500
        return load(body)

    server.own.post["/v1/load_lora_adapter"] = lost
    shaken(of, 0.3)
    of.refresh()
    assert answers == []
    assert gap(of) < 1e-4


def test_a_server_that_is_started_again_before_it_is_compared(
    server: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = sampled(server.url, tmp_path / "weights")
    of.refresh()
    name, times = server.own.post["/update_weight_version"], ["lost"]

    def named(body: Any) -> Any:
        answer = name(body)
        if times:
            times.pop()
            server.forget()
        return answer

    server.own.post["/update_weight_version"] = named
    shaken(of, 0.3)
    of.refresh()
    assert gap(of) < 1e-4


# -- what is refused, each in a sentence


def test_a_server_without_runtime_updates(server: Adapted, tmp_path: Path) -> None:
    del server.own.post["/v1/load_lora_adapter"]
    with pytest.raises(PolicyError, match=r"ALLOW_RUNTIME_LORA_UPDATING=1 and .*--max-lora-rank 8"):
        sampled(server.url, tmp_path / "weights")


def test_tutelage_serve_takes_whole_weights(tmp_path: Path) -> None:
    with (
        serving(policy(0), reload=True) as plain,
        pytest.raises(PolicyError, match="`tutelage serve` takes whole weights"),
    ):
        sampled(f"http://127.0.0.1:{plain.port}", tmp_path / "weights")


def test_a_server_without_lora(server: Adapted, tmp_path: Path) -> None:
    server.rank = 0
    with pytest.raises(PolicyError, match="was started without --enable-lora; start it with VLLM"):
        sampled(server.url, tmp_path / "weights")


def test_a_server_without_the_dev_mode(server: Adapted, tmp_path: Path) -> None:
    del server.own.get["/server_info"]
    with pytest.raises(PolicyError, match="without VLLM_SERVER_DEV_MODE=1; start it with that"):
        sampled(server.url, tmp_path / "weights")


def test_a_rank_above_the_servers(server: Adapted, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"rank 8 at most, and policy\.lora is 9; .*-rank 16"):
        sampled(server.url, tmp_path / "weights", rank=9)
    server.own.get["/server_info"] = lambda body: {"vllm_config": "a text, of an older release"}
    of = sampled(server.url, tmp_path / "weights", rank=9)
    with pytest.raises(PolicyError, match=r"could not load the weights: .*LoRA rank 9 is greater"):
        of.refresh()


def test_a_server_of_another_base(tmp_path: Path) -> None:
    other = policy(0)
    with torch.no_grad():
        for x in other.model.parameters():
            x.mul_(1.1)
    with adapted(other, tmp_path / "room") as server:
        of = sampled(server.url, tmp_path / "weights")
        with pytest.raises(PolicyError, match=r"start the server from policy\.model as it is"):
            of.refresh()


def test_a_server_that_does_not_see_the_folder(
    server: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = sampled(server.url, tmp_path / "weights")
    monkeypatch.setattr(adapter_transfer, "write", lambda policy, folder: None)
    with pytest.raises(PolicyError, match=r"finds no adapters in .*policy\.sampler\.folder"):
        of.refresh()


def test_a_failure_of_the_first_load_is_said_at_once(server: Adapted, tmp_path: Path) -> None:
    of = sampled(server.url, tmp_path / "weights")
    count = server.asked.count("load")

    def broken(body: Any) -> Any:
        server.asked.append("load")
        raise ValueError("The size of tensor a (64) must match the size of tensor b (128)")

    server.own.post["/v1/load_lora_adapter"] = broken
    with pytest.raises(PolicyError, match=r"must match the size.* \(vLLM takes adapters if it"):
        of.refresh()
    assert server.asked.count("load") == count + 1


def test_a_server_that_answers_neither() -> None:
    with listed({"data": [{"id": "m", "max_model_len": 64}]}) as other:
        client = Client(f"http://127.0.0.1:{other.port}", name="policy.sampler")
        assert adapter_transfer.lora_settings(client) == {}


# -- settings


def settings(where: Path, *, lora: int = 2, **sampler: Any) -> Config:
    return Config.model_validate(
        {
            "run": {"folder": str(where), "steps": 1},
            "env": {"suite": "doors"},
            "algorithm": {"name": "grpo"},
            "policy": {"model": "builtin:household-teacher", "lora": lora, "sampler": sampler},
        }
    )


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "set its url"),
        ({"servers": 2}, "set its url"),
        ({"url": "http://127.0.0.1:1", "lora": 0}, "since lora = 0: set lora to their rank"),
    ],
)
def test_settings_that_contradict_it(more: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        settings(tmp_path, transfer="adapters", **more)


def test_it_takes_a_folder_and_a_dry_run(tmp_path: Path) -> None:
    more = {"url": "http://127.0.0.1:1", "folder": str(tmp_path)}
    dry_run.make(settings(tmp_path / "run", transfer="adapters", **more))


def test_a_run_says_so_before_it_trains(tmp_path: Path) -> None:
    """Also where imitation comes first, which samples nothing."""
    teacher = HFPolicy.load(
        str(Path(adapter_transfer.__file__).parents[2] / "assets/household-teacher"), device="cpu"
    )
    with adapted(teacher, tmp_path / "room", rank=1) as server:
        table = json.loads(
            settings(tmp_path / "run", transfer="adapters", url=server.url).model_dump_json()
        )
        table["rollout"] |= {"group_size": 2, "tasks_per_step": 2}
        table["eval"] = {"every": 0}
        table["warm_start"] = {"name": "sft", "steps": 1, "lr": 1e-3}
        with pytest.raises(PolicyError, match="rank 1 at most"):
            train.train(Config.model_validate(table), watch=Quiet())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
