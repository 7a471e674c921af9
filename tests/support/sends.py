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
from threading import Event
from typing import Any

from torch import Tensor

from support.hand_overs import gap, play, requests_of, shaken
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import VllmEngine
from tutelage.policies.server.weight_folder import weight_folder
from tutelage.policies.server.weight_transfer import TransferSampler, require_vllm

PAUSE = 0.2


def slow(listed: Any, slowly: Event) -> Any:
    """The weights of a policy, one after another."""

    def weights(policy: HFPolicy) -> Iterator[tuple[str, Tensor]]:
        for k, pair in enumerate(listed(policy)):
            if slowly.is_set():
                if k == 1:
                    print("sending", flush=True)
                time.sleep(PAUSE)
            yield pair

    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--slowly", action="store_true")
    options = parser.parse_args()
    require_vllm()
    slowly = Event()
    # before the sampler notes where its weights come from
    HFPolicy.weights = slow(HFPolicy.weights, slowly)  # type: ignore[method-assign]
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
        shaken(policy, 0.1)
        if options.slowly:
            slowly.set()
        policy.refresh()
        requests = requests_of(policy, count=4)
        print(f"{gap(policy, requests, play(policy, requests)):.3g} nats", flush=True)
    finally:
        remove()


if __name__ == "__main__":
    main()
