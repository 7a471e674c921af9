"""A trainer that hands a model's weights to a vLLM server by weight transfer, to be run by the Python
that has vLLM:

    python -m support.sends URL MODEL [--slowly]

prints "sending" when the first tensor is sent and "N nats" when both sides have been compared: by how
much they differ at most in what the server samples from weights that were changed here. `--slowly`
waits 0.2 s before every tensor.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server import weight_transfer
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import VllmEngine
from tutelage.policies.server.weight_folder import weight_folder
from tutelage.policies.server.weight_transfer import TransferSampler, require_vllm
from tutelage.prompts.prompter import Sample

PAUSE = 0.2


def slow(listed: Any) -> Any:
    """The weights of a model, one after another."""

    def weights(model: Any) -> Iterator[tuple[str, Tensor]]:
        for k, pair in enumerate(listed(model)):
            if k == 1:
                print("sending", flush=True)
            time.sleep(PAUSE)
            yield pair

    return weights


def changed(policy: HFPolicy) -> None:
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=chance))


def played(policy: HFPolicy) -> float:
    """The largest difference in nats of what both sides say of tokens that the server samples."""
    requests = [
        Request(key=str(k), prompt=tuple(range(8 + k, 40 + k)), seed=k, max_new=8) for k in range(4)
    ]
    for request in requests:
        policy.submit(request)
    found: dict[str, Completion] = {}
    until = time.monotonic() + 120
    while len(found) < len(requests):
        assert time.monotonic() < until
        found |= {completion.key: completion for completion in policy.poll()}
    samples = [Sample(prompt=r.prompt, tokens=found[r.key].tokens) for r in requests]
    with torch.no_grad():
        ours = policy.score(samples, 1.0).logp.float()
    theirs = torch.tensor([x for r in requests for x in found[r.key].logps])
    return float((ours - theirs).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--slowly", action="store_true")
    options = parser.parse_args()
    require_vllm()
    policy = HFPolicy.load(options.model, device="cpu")
    client = Client(options.url, name="policy.sampler", setting="policy.sampler.url")
    remote = RemotePolicy(client, policy.chat, returns_temperature_scaled=True)
    remote.connect()
    folder, remove = weight_folder("")
    policy.engine = VllmEngine(
        policy, [TransferSampler(remote, policy)], folder=folder, written=False
    )
    try:
        policy.refresh()
        changed(policy)
        if options.slowly:
            weight_transfer.weights = slow(weight_transfer.weights)
        policy.refresh()
        print(f"{played(policy):.3g} nats", flush=True)
    finally:
        remove()


if __name__ == "__main__":
    main()
