"""vLLM in this process, over a fake of it whose distributions are known: what it samples, how it is
scored, and when it is given weights."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.fake_vllm import LLM, module
from support.tiny_models import policy, run, small_chat
from torch.testing import assert_close

from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf.policy import Dtype, HFPolicy
from tutelage.policies.server.vllm import MAX_PROBE_DIFFERENCE, LocalSampler, VllmEngine, write
from tutelage.prompts.prompter import Sample

END = small_chat().end
REQUESTS = [
    Request(key=str(k), prompt=tuple(range(3, 6 + k)), seed=2**63 + k, max_new=9) for k in range(12)
]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", module())


def sampled(
    of: HFPolicy,
    folder: Path,
    *,
    dtype: Dtype = "float32",
    options: Mapping[str, object] = {},
) -> LocalSampler:
    of.save(folder)
    sampler = LocalSampler(
        folder,
        ends=[END],
        context=of.context_length,
        dtype=dtype,
        unused=of.unused,
        options=options,
    )
    of.engine = VllmEngine(of, [sampler], folder=folder)
    of.engine.refresh()
    return sampler


def shaken(of: HFPolicy, by: float = 0.3) -> None:
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in of.model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=chance))


@torch.no_grad()
def scored(of: HFPolicy, request: Request, tokens: tuple[int, ...], heat: float) -> torch.Tensor:
    return of.score([Sample(prompt=request.prompt, tokens=tokens)], heat).logp


@pytest.mark.parametrize("heat", [1.0, 0.5, 0.0])
def test_turns_have_the_probabilities_they_were_drawn_with(heat: float, tmp_path: Path) -> None:
    of = policy()
    engine = sampled(of, tmp_path)
    requests = [replace(request, temperature=heat) for request in REQUESTS]
    often = Counter(token for got in run(of, requests).values() for token in got.tokens)
    end = often.most_common(1)[0][0]
    engine.ends = (end,)
    completions = run(of, requests)
    assert {completion.ended for completion in completions.values()} == {False, True}
    for request in requests:
        got = completions[request.key]
        assert got.ended == (got.tokens[-1] == end)
        assert got.ended or len(got.tokens) == request.max_new
        assert end not in got.tokens[:-1]
        assert_close(
            torch.tensor(got.logps),
            scored(of, request, got.tokens, heat or 1.0),
            atol=1e-4,
            rtol=1e-4,
        )
    again = run(of, requests)
    assert again == completions
    other = run(of, [replace(request, seed=request.seed + 99) for request in requests])
    assert (other == completions) == (heat == 0)


@pytest.mark.parametrize("heat", [1.0, 0.0])
def test_entries_that_the_tokenizer_does_not_know_are_never_sampled(
    heat: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAX_PROBE_DIFFERENCE, "float32", 1.0)  # prompts are scored with them
    of = policy()
    known, requests = of.chat.size, [replace(request, temperature=heat) for request in REQUESTS]
    of.model.resize_token_embeddings(known + 40, mean_resizing=False)
    with torch.no_grad():  # as likely as the likeliest
        of.model.get_input_embeddings().weight[known:] = of.head[:40]
    sampled(of, tmp_path)
    completions = run(of, requests)
    for request in requests:
        got = completions[request.key]
        assert max(got.tokens) < known
        assert_close(
            torch.tensor(got.logps),
            scored(of, request, got.tokens, heat or 1.0),
            atol=1e-4,
            rtol=1e-4,
        )


def test_scores_are_those_of_the_policy(tmp_path: Path) -> None:
    of = policy()
    ids = (3, 9, 30, 8, 41, END, 4)
    logps = sampled(of, tmp_path).logps(ids)
    mine = scored(of, Request(key="", prompt=ids[:1], seed=0, max_new=1), ids[1:], 1.0)
    assert_close(logps, mine, atol=1e-4, rtol=1e-4)


def test_new_weights_arrive_and_nothing_of_the_old_ones_stays(tmp_path: Path) -> None:
    of = policy()
    sampled(of, tmp_path)
    before = run(of, REQUESTS)
    shaken(of)
    of.refresh()
    after = run(of, REQUESTS)
    for request in REQUESTS:
        got = after[request.key]
        assert_close(
            torch.tensor(got.logps), scored(of, request, got.tokens, 1.0), atol=1e-4, rtol=1e-4
        )
    assert after != before


def test_weights_go_over_only_where_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = policy()
    sampler, folders = sampled(of, tmp_path), list[Path]()
    load = sampler.load
    monkeypatch.setattr(sampler, "load", lambda folder: (folders.append(folder), load(folder)))
    of.refresh()
    assert folders == []
    shaken(of)
    of.refresh()
    of.refresh()
    assert folders == [tmp_path]


def test_weights_that_arrive_in_part_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = policy()
    sampler = sampled(of, tmp_path)
    shaken(of)
    monkeypatch.setattr(sampler, "load", lambda folder: None)
    with pytest.raises(PolicyError, match=r"policy\.sampler and the trainer differ by"):
        of.refresh()


def test_turns_that_nobody_waits_for_are_given_up(tmp_path: Path) -> None:
    of = policy()
    sampler = sampled(of, tmp_path)
    of.submit(replace(REQUESTS[0], max_new=200))
    assert of.poll() == []
    assert sampler.llm.running
    of.refresh()
    assert not sampler.llm.running
    assert of.poll() == []


def test_it_leaves_the_trainer_room_on_the_card(tmp_path: Path) -> None:
    sampled(policy(), tmp_path)
    assert LLM.given["gpu_memory_utilization"] == 0.35
    plain = {"generation_config": "vllm", "logprobs_mode": "processed_logprobs"}
    assert plain.items() <= LLM.given.items()
    sampled(policy(), tmp_path, options={"gpu_memory_utilization": 0.6, "enforce_eager": True})
    assert LLM.given["gpu_memory_utilization"] == 0.6
    assert LLM.given["enforce_eager"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_travel_in_the_dtype_of_both(dtype: Dtype, tmp_path: Path) -> None:
    of = policy(dtype=dtype)
    write(of, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    own = of.model.state_dict()
    assert found.keys() == own.keys()
    for name, value in found.items():
        assert value.dtype == getattr(torch, dtype)
        assert torch.equal(value, own[name].to(value.dtype))
    assert all(value.dtype == torch.float32 for value in own.values())
    size = sum(value.numel() for value in own.values()) * (2 if dtype == "bfloat16" else 4)
    assert size <= (tmp_path / "model.safetensors").stat().st_size < size + 8000


def test_bfloat16_on_both_sides(tmp_path: Path) -> None:
    of = policy(dtype="bfloat16")
    sampler = sampled(of, tmp_path, dtype="bfloat16")
    shaken(of, 0.05)
    of.refresh()
    assert next(sampler.llm.model.parameters()).dtype == torch.bfloat16
    for key, got in run(of, REQUESTS).items():
        apart = torch.tensor(got.logps) - scored(of, REQUESTS[int(key)], got.tokens, 1.0).float()
        assert float(apart.abs().mean()) < 0.2


def test_no_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(PolicyError, match=r"pip install 'tutelage\[vllm\]', or set policy"):
        sampled(policy(), tmp_path)
