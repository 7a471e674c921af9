"""Models of the plain path on a pretended GPU: they load, act, are scored and learn as on the CPU."""

from collections.abc import Iterator

import pytest
import torch
from policies.test_plain_path import model
from support.pretend_cuda import Device, pretend_cuda
from support.tiny_models import run, small_chat
from torch.testing import assert_close

from tutelage.policies.base import Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

KINDS = ("gemma2", "gpt_oss", "mamba2", "deepseek_v3", "qwen3_next", "bert")
"""Soft caps, windows with sinks, recurrent state, latent attention, linear attention, a head's bias."""
LONG = ("qwen3_next", "bert")
REQUESTS = [
    Request(key=str(k), prompt=tuple(range(20, 26 + 5 * k)), seed=k, max_new=4, temperature=0.8)
    for k in range(3)
]


@pytest.fixture
def cuda() -> Iterator[Device]:
    with pretend_cuda() as device:
        yield device


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.nightly) if k in LONG else k for k in KINDS],
)
def test_the_plain_path_computes_as_on_the_cpu(kind: str, cuda: Device) -> None:
    here = HFPolicy(model(kind), small_chat())
    there = HFPolicy(model(kind).to("cuda"), small_chat())
    assert there.path.startswith("plain path: ")
    assert there.device.startswith("cuda")
    turns = {on.device: run(on, REQUESTS) for on in (here, there)}
    for key, turn in turns["cpu"].items():
        other = turns[there.device][key]
        assert other.tokens == turn.tokens
        assert other.logps == pytest.approx(turn.logps, abs=1e-4)
    read = [Sample(prompt=r.prompt, tokens=turns["cpu"][r.key].tokens) for r in REQUESTS]
    found = {}
    for on in (here, there):
        logp = on.score(read, 0.8).logp
        assert logp.device.type == on.model.device.type
        (logp * torch.linspace(-1, 2, len(logp), device=logp.device)).sum().backward()
        grads = [p.grad.cpu() for p in on.parameters() if p.grad is not None]
        found[on.device] = logp.detach().cpu(), torch.cat([g.flatten() for g in grads])
    assert_close(found[there.device][0], found["cpu"][0], atol=1e-4, rtol=1e-4)
    one, other = found["cpu"][1], found[there.device][1]
    assert float((one - other).norm() / one.norm()) < 1e-4
