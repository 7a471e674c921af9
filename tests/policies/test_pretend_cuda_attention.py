"""Attention on a pretended GPU: what a recorded step reads, and which kernel computes it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from policies.test_plain_path import model
from support.pretend_cuda import Device, pretend_cuda
from support.tiny_models import run, small_chat, words
from torch import Tensor
from torch.testing import assert_close

from tutelage.policies.base import Request
from tutelage.policies.hf import attention, compat, recorded_prompts
from tutelage.policies.hf.cuda_graphs import Recordings, Shape
from tutelage.policies.hf.policy import Dtype, HFPolicy
from tutelage.prompts.prompter import Sample

REQUESTS = [
    Request(key=str(k), prompt=tuple(range(20, 26 + 15 * k)), seed=k, max_new=8) for k in range(3)
]


@pytest.fixture
def cuda() -> Iterator[Device]:
    with pretend_cuda() as device:
        yield device


def policy(device: str, dtype: Dtype = "bfloat16", **settings: Any) -> HFPolicy:
    of = model("qwen3").to(device)
    return HFPolicy(of, small_chat(), dtype=dtype, budget=100_000_000, **settings)


def gap(of: HFPolicy) -> float:
    """Mean difference of log-probabilities as sampled and as scored."""
    turns = run(of, REQUESTS)
    read = [Sample(prompt=r.prompt, tokens=turns[r.key].tokens) for r in REQUESTS]
    drawn = torch.tensor([x for r in REQUESTS for x in turns[r.key].logps])
    with torch.no_grad():
        return float((of.score(read, 1.0).logp.cpu() - drawn).abs().mean())


def test_a_graph_repeats_the_kernel_over_what_memory_then_holds(cuda: Device) -> None:
    heads = [torch.randn(6, 2, 8).to("cuda").bfloat16() for _ in range(3)]
    ends = torch.tensor([0, 2, 6], dtype=torch.int32, device="cuda")
    graph, out = torch.cuda.CUDAGraph(), torch.zeros(6, 2, 8, device="cuda").bfloat16()
    with torch.cuda.graph(graph):
        out.copy_(compat.varlen_causal(*heads, ends, 6, 0.3))
    heads[2].mul_(-2)
    ends.copy_(torch.tensor([0, 3, 6], dtype=torch.int32))
    graph.replay()
    assert_close(out.cpu(), compat.varlen_causal(*heads, ends, 6, 0.3).cpu())


def test_recorded_steps_read_every_token_of_their_slots(cuda: Device) -> None:
    """A step that read others would be as near to the scores as chance."""
    of = policy("cuda")
    assert gap(of) < 0.02
    assert cuda.replays > 5


def test_recorded_prompts_read_every_token_of_their_slots(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_prompts, "MIN_SEEN", 1)
    recorded, get = set[str](), Recordings.get

    def watched(self: Recordings, shape: Shape, step: Callable[[], None]) -> Callable[[], None]:
        recorded.add(shape[0])
        return get(self, shape, step)

    monkeypatch.setattr(Recordings, "get", watched)
    assert gap(policy("cuda")) < 0.02
    assert recorded == {"prompts", "decode"}


def test_a_kernel_that_takes_lengths_of_keys_and_no_argument_for_shared_heads(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's had between two releases."""
    usual = compat.varlen_attn

    def between(*args: Any, **options: Any) -> Any:
        assert "enable_gqa" not in options, "TypeError: unexpected keyword argument 'enable_gqa'"
        return usual(*args, **options, enable_gqa=True)

    monkeypatch.setattr(compat, "varlen_attn", between)
    monkeypatch.setattr(compat, "varlen_takes", lambda argument: argument == "seqused_k")
    assert gap(policy("cuda")) < 0.02


def test_values_that_autocast_did_not_round_go_through_the_kernel_for_16_bits(
    cuda: Device,
) -> None:
    """Linear layers in 4 bits write the dtype of their input."""
    heads = [torch.randn(1, n, 9, 8).to("cuda") for n in (4, 2, 2)]
    cuda.watch = True
    with torch.autocast("cuda", torch.bfloat16):
        packed = attention.PackedPass([4, 5], "cuda")
        low, _ = attention.attend(None, *heads, None, 0.3, packed=packed)
    assert cuda.names.count("varlen_attn") == 1
    whole, _ = attention.attend(
        None, *heads, None, 0.3, packed=attention.PackedPass([4, 5], "cuda")
    )
    assert cuda.names.count("varlen_attn") == 1
    assert (low.dtype, whole.dtype) == (torch.bfloat16, torch.float32)
    assert_close(low.float().cpu(), whole.cpu(), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("padded", [False, True])
def test_key_heads_are_copied_for_the_kernel_that_keeps_no_scores(
    padded: bool, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, where torch's kernel for shared key heads keeps all scores [H, T, T]."""
    shapes, usual = set[tuple[int, int, bool]](), F.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        shapes.add((query.shape[1], key.shape[1], options["enable_gqa"]))
        return usual(query, key, value, **options)

    read, found = [Sample(prompt=r.prompt, tokens=(5, 6)) for r in REQUESTS], {}
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", watched)
    for device, wanted in (("cpu", {(4, 2, True)}), ("cuda", {(4, 4, False)})):
        of = policy(device, "float32", padded=padded)
        shapes.clear()
        logp = of.score(read, 1.0).logp
        logp.sum().backward()
        assert shapes == wanted
        grads = torch.cat([p.grad.flatten().cpu() for p in of.parameters() if p.grad is not None])
        found[device] = logp.detach().cpu(), grads
    assert_close(found["cuda"][0], found["cpu"][0], atol=1e-4, rtol=1e-4)
    assert float((found["cuda"][1] - found["cpu"][1]).norm() / found["cpu"][1].norm()) < 1e-4


def test_a_gpu_is_taken_where_there_is_one(cuda: Device, tmp_path: Path) -> None:
    model("qwen3").save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    assert HFPolicy.load(str(tmp_path), budget=1 << 20).device == "cuda:0"
