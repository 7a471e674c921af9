"""Weights in 4 bits on a pretended GPU: bitsandbytes packs and multiplies by its own code, whose
kernels are those of the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from policies.test_mixtures import saved, wide_mixture
from policies.test_plain_path import model
from support.pretend_cuda import Device, in_4_bits, pretend_cuda
from support.tiny_models import run
from torch import Tensor
from torch.testing import assert_close

from tutelage.policies.base import Request
from tutelage.policies.hf import loading, memory
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

pytest.importorskip("bitsandbytes")
REQUESTS = [
    Request(key=str(k), prompt=tuple(range(20, 26 + 5 * k)), seed=k, max_new=6) for k in range(3)
]
READ = [Sample(prompt=(7, 8, 9), tokens=(5, 6)), Sample(prompt=(7, 30), tokens=(5, 6, 8))]
LAYERS = 4
LORA = {"lora": 2}
"""Settings of a student with adapters; a teacher has none."""


@contextmanager
def a_gpu() -> Iterator[Device]:
    with pretend_cuda() as device, in_4_bits():
        yield device


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    of = model("qwen3", hidden_size=64, intermediate_size=128, head_dim=64)
    return saved(of, tmp_path_factory.mktemp("dense"))


def packed(folder: str, device: str, **settings: Any) -> HFPolicy:
    if settings.get("lora"):
        pytest.importorskip("peft")
    more = {"budget": 100_000_000, "frozen": "lora" not in settings, **settings}
    of = loading.load(folder, device=device, quantize="nf4", **more)
    if not settings.get("lora"):
        of.freeze()
    return of


def numbers(of: HFPolicy) -> tuple[list[Tensor], float]:
    """Scores and gradients, and how far scores are from what was sampled."""
    turns = run(of, REQUESTS)
    read = [Sample(prompt=r.prompt, tokens=turns[r.key].tokens) for r in REQUESTS]
    logp = of.score(read, 1.0).logp
    if logp.requires_grad:
        logp.sum().backward()
    grads = [p.grad.cpu() for p in of.parameters() if p.grad is not None]
    drawn = torch.tensor([x for r in REQUESTS for x in turns[r.key].logps])
    found = logp.detach().cpu()
    return [found, *grads], float((found - drawn).abs().mean())


@pytest.mark.parametrize("settings", [{}, LORA], ids=str)
def test_packed_weights_compute_as_on_the_cpu(settings: dict[str, Any], dense: str) -> None:
    here, apart = numbers(packed(dense, "cpu", **settings))
    with a_gpu() as cuda:
        there, apart_there = numbers(packed(dense, "cuda", **settings))
    assert max(apart, apart_there) < 1e-4
    assert cuda.replays
    assert len(here) == len(there) == 1 + (2 * 7 * LAYERS if settings else 0)  # A and B
    for one, other in zip(there, here, strict=True):
        assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("settings", [{}, LORA], ids=str)
def test_in_bfloat16_attention_is_one_kernel_and_weights_unpack_into_16_bits(
    settings: dict[str, Any], dense: str
) -> None:
    """In short passes too, whose norms are not fused: layers in 4 bits then write float32. And in the
    backward pass, which unpacks them again."""
    unpacked, dequantize = set[torch.dtype](), torch.ops.bitsandbytes.dequantize_4bit.default

    def watched(*args: Any) -> Tensor:
        unpacked.add(args[-1])
        return dequantize(*args)  # type: ignore[no-any-return]

    exact, _ = numbers(packed(dense, "cpu", **settings))
    with a_gpu() as cuda, pytest.MonkeyPatch.context() as patch:
        of = packed(dense, "cuda", dtype="bfloat16", **settings)
        patch.setattr(torch.ops.bitsandbytes.dequantize_4bit, "default", watched)
        cuda.watch = True
        logp = of.score(READ, 1.0).logp
        assert cuda.names.count("varlen_attn") == LAYERS
        if settings:
            logp.sum().backward()
        patch.undo()
        found, apart = numbers(of)
    assert unpacked == {torch.bfloat16}
    assert apart < 0.05
    assert len(found) == len(exact)


def test_a_mixture_in_4_bits_computes_as_on_the_cpu(tmp_path: Path) -> None:
    folder = saved(wide_mixture(), tmp_path)
    here, _ = numbers(packed(folder, "cpu"))
    with a_gpu() as cuda:
        of = packed(folder, "cuda")
        there, apart = numbers(of)
        assert memory.is_mixture(of.base)
        experts = [p for n, p in of.model.named_parameters() if "experts" in n]
        assert {(p.dtype, p.is_cuda) for p in experts} == {(torch.uint8, True)}
    assert not cuda.replays
    assert apart < 1e-4
    assert_close(there[0], here[0], atol=1e-3, rtol=1e-3)


def test_a_copy_shares_what_is_packed(dense: str) -> None:
    """The reference of a student with adapters takes the memory of the adapters."""
    with a_gpu():
        of = packed(dense, "cuda", dtype="bfloat16", **LORA)
        other, own = of.copied(), {id(p) for p in of.model.parameters()}
        alone = [p for p in other.model.parameters() if id(p) not in own]
        assert sum(p.numel() for p in alone) == sum(p.numel() for p in of.parameters())
        with torch.no_grad():
            assert_close(other.score(READ, 1.0).logp.cpu(), of.score(READ, 1.0).logp.cpu())
