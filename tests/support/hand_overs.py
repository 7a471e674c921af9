"""What tests of hand-overs to a sampler do: change weights, play, and compare both sides."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

if TYPE_CHECKING:
    import pytest  # which the Python that has vLLM need not have

LONG = 150
"""Tokens of a prompt of which vLLM caches a block: on a CPU one has 128."""
HELD = 32e6
"""Bytes that 180 hand-overs may add."""


@torch.no_grad()
def shaken(policy: HFPolicy, by: float, seed: int = 1, *, only: str = "") -> None:
    """Move every weight with `only` in its name."""
    chance = torch.Generator().manual_seed(seed)
    for name, x in policy.model.named_parameters():
        if only in name:
            x.add_(by * torch.randn(x.shape, generator=chance))


def play(policy: HFPolicy, requests: Sequence[Request]) -> dict[str, Completion]:
    for request in requests:
        policy.submit(request)
    found: dict[str, Completion] = {}
    until = time.monotonic() + 120
    while len(found) < len(requests):
        assert time.monotonic() < until
        found |= {completion.key: completion for completion in policy.poll()}
    return found


def requests_of(policy: HFPolicy, *, count: int = 16, length: int = 20) -> list[Request]:
    size = policy.chat.size
    return [
        Request(
            key=str(k),
            prompt=tuple((31 * k + 7 * t) % (size - 8) + 8 for t in range(length + k)),
            seed=k,
            max_new=8,
        )
        for k in range(count)
    ]


@torch.no_grad()
def gap(policy: HFPolicy, requests: Sequence[Request], found: dict[str, Completion]) -> float:
    """The largest difference in nats between what the sampler and the trainer say of a token."""
    samples = [Sample(prompt=r.prompt, tokens=found[r.key].tokens) for r in requests]
    ours = policy.score(samples, 1.0).logp.float()
    theirs = torch.tensor([x for r in requests for x in found[r.key].logps])
    return float((ours - theirs).abs().max())


def without_cache_resets(policy: HFPolicy, monkeypatch: "pytest.MonkeyPatch") -> None:
    """Let the policy's sampler believe that its prefix cache was cleared."""
    (sampler,) = policy.engine.samplers  # type: ignore[attr-defined]
    ask = sampler.remote.client.ask

    def asked(path: str, *more: Any, **options: Any) -> Future[Any]:
        if path != "/reset_prefix_cache":
            return ask(path, *more, **options)  # type: ignore[no-any-return]
        answer: Future[Any] = Future()
        answer.set_result({"success": True})
        return answer

    monkeypatch.setattr(sampler.remote.client, "ask", asked)


def handed_over_often(
    policy: HFPolicy, change: Callable[[int], None], memory: Callable[[], int], *, exact: float
) -> None:
    """200 hand-overs, after which neither side holds more memory than after 20."""
    requests, seconds = requests_of(policy, count=4), list[float]()
    ours, theirs = list[int](), list[int]()
    for k in range(200):
        change(k)
        begun = time.perf_counter()
        policy.refresh()
        seconds.append(time.perf_counter() - begun)
        if k % 20 == 0:
            assert gap(policy, requests, play(policy, requests)) < exact
        ours.append(resident())
        theirs.append(memory())
    middle = sorted(seconds)[100]
    print(f"\n{middle:.3f} s a hand-over ({min(seconds):.3f} to {max(seconds):.3f})")
    for name, held in {"trainer": ours, "server": theirs}.items():
        print(f"{name}: {held[20] / 1e6:.1f} MB after 20, {held[-1] / 1e6:.1f} MB after 200")
        assert held[-1] - held[20] < HELD


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
