"""Low-rank adapters alone for a vLLM server that holds the student's base: a few megabytes for each
hand-over instead of whole weights.

The adapters are written to a folder in peft's format. vLLM loads them from there under a name, and a
request that names them is computed with them. A server that was started again knows no such name, so
none of its turns can be used.

Not by vLLM's `load_inplace`: vLLM 0.32 keeps that flag with the adapters and reads the folder again
before every forward pass, so that it samples from whatever lies there, and the whole engine ends when
the folder is gone. They are unloaded and loaded instead. vLLM keeps as many adapters as it was started
for (--max-cpu-loras, --max-loras), however many were loaded.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import PolicyError
from tutelage.policies.base import Completion
from tutelage.policies.hf.lora import CONFIG, WEIGHTS, Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import RETRY_STATUSES, Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import DTYPES, MAX_PROBE_DIFFERENCE, VllmEngine
from tutelage.policies.server.vllm_server import ServerSampler, WeightsLost
from tutelage.policies.server.weight_transfer import status_of
from tutelage.prompts.prompter import Ids

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM 0.32 takes as --max-lora-rank."""
ATTEMPTS = 5
"""Times that adapters are loaded where the server is lost on the way."""
PAUSE = 2.0
"""Seconds before the next: a server whose engine has ended answers for a moment."""
VISIBLE = 5.0
"""By how many times rounding's limit the adapters of the first comparison change the probe."""
SIZES = tuple(0.01 * 2**k for k in range(14))
"""Standard deviations that are tried for them, from the smallest."""


def flags(rank: int) -> str:
    """What a server is started with, besides what every sampler is."""
    most = next((size for size in RANKS if size >= rank), RANKS[-1])
    return f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora --max-lora-rank {most}"


def adapters_of(policy: HFPolicy) -> Adapters:
    """The adapters that a policy trains. Raises PolicyError where it trains none."""
    if policy.adapters is None:
        raise PolicyError(
            'policy.sampler.transfer = "adapters" is for a student with adapters, and this one has '
            "none; set policy.lora to their rank, or leave transfer out"
        )
    return policy.adapters


def write(policy: HFPolicy, folder: Path) -> None:
    """Write the adapters in peft's format, in the dtype that the policy computes in: a server would
    round them itself. A reader sees the old file or the new one."""
    draft = folder / ".adapters"
    adapters_of(policy).save(draft, DTYPES[policy.dtype])
    for name in (CONFIG, WEIGHTS):
        os.replace(draft / name, folder / name)


class AdapterSampler(ServerSampler):
    """A vLLM server that is given low-rank adapters, which it applies to its own weights.

    It must serve the student's base model, and be started with VLLM_SERVER_DEV_MODE=1,
    --logprobs-mode processed_logprobs and `flags`.
    """

    def __init__(self, remote: RemotePolicy, *, name: str = "policy.sampler") -> None:
        super().__init__(remote, name=name)
        self.rank = 0
        self.folder: Path | None = None

    def check(self, rank: int) -> None:
        """Raise PolicyError where the server takes no adapters, or none of this rank."""
        self.rank, client = rank, self.remote.client
        where = f"the server of {self.name} at {client.url}"
        fix = f"start it with {flags(rank)}, or leave policy.sampler.transfer out"
        try:
            client.ask(LOAD, {"lora_name": "", "lora_path": ""}).result()
        except PolicyError as error:
            if status_of(error) in (404, 405):
                raise PolicyError(
                    f"{where} has no {LOAD}, by which vLLM alone takes adapters (`tutelage serve` "
                    f"takes whole weights); {fix}"
                ) from error
            if status_of(error) != 400:
                raise
        lora = lora_settings(client)
        if lora is None:
            raise PolicyError(f"{where} was started without --enable-lora; {fix}")
        most = lora.get("max_lora_rank")
        if isinstance(most, int) and rank > most:
            raise PolicyError(
                f"{where} takes adapters of rank {most} at most, and policy.lora is {rank}; {fix}, or "
                f"set policy.lora to {most}"
            )

    def load(self, folder: Path) -> None:
        self.folder = folder
        super().load(folder)

    def take(self, client: Client, folder: Path) -> None:
        """Load the adapters. Where the server is lost on the way, wait for another, and load them
        there; not at the first hand-over, when nothing has worked yet."""
        attempt = 1
        while True:
            try:
                self._replace(client, folder)
                self.remote.model = folder.name
                return
            except PolicyError as error:
                lost = status_of(error) in (0, *RETRY_STATUSES)
                if not lost or self.loads == 1 or attempt == ATTEMPTS:
                    raise
            attempt += 1
            time.sleep(PAUSE)
            client.ask("/v1/models").result()  # repeated until a server answers

    def _replace(self, client: Client, folder: Path) -> None:
        name = folder.name
        try:
            _tell(client, UNLOAD, {"lora_name": name})
        except PolicyError as error:
            if status_of(error) != 404:  # a server that has none of this name
                raise
        try:
            _tell(client, LOAD, {"lora_name": name, "lora_path": str(folder)})
        except PolicyError as error:
            if status_of(error) != 404:
                raise
            raise PolicyError(
                f"it finds no adapters in {folder}; name a folder that both sides see in "
                "policy.sampler.folder"
            ) from error

    def cause(self, folder: Path) -> str:
        return (
            "vLLM takes adapters if it serves policy.model and was started with "
            f"VLLM_SERVER_DEV_MODE=1, {flags(self.rank)}, and both must see the folder {folder}"
        )

    def poll(self) -> list[Completion]:
        try:
            return super().poll()
        except PolicyError as error:
            if status_of(error) == 404:  # it knows the name of the adapters no longer
                raise WeightsLost(self) from error
            raise

    def logps(self, ids: Ids) -> Tensor:
        for _ in range(ATTEMPTS - 1):
            try:
                return super().logps(ids)
            except PolicyError as error:
                if status_of(error) != 404 or self.folder is None:
                    raise
            self.load(self.folder)  # it was started again since
        return super().logps(ids)


def _tell(client: Client, path: str, body: dict[str, Any]) -> None:
    """One attempt at a request whose answer is a text, which says nothing new."""
    client.ask_once(path, body, deadline=client.options.deadline, read=bytes)


def lora_settings(client: Client) -> dict[str, Any] | None:
    """A server's settings of adapters, None where it was started without; empty where it does not
    tell them. Raises PolicyError where it was not started as a sampler."""
    try:
        info = client.ask("/server_info?config_format=json").result()
    except PolicyError as error:
        if status_of(error) not in (404, 405):
            raise
        raise PolicyError(
            f"the server of {client.name} at {client.url} takes no weights, because it was started "
            "without VLLM_SERVER_DEV_MODE=1; start it with that"
        ) from error
    config = info.get("vllm_config") if isinstance(info, dict) else None
    if not isinstance(config, dict) or "lora_config" not in config:
        return {}  # a release that tells it as a text
    lora = config["lora_config"]
    return lora if isinstance(lora, dict) else None


class AdapterEngine(VllmEngine):
    """Hands over adapters alone.

    New adapters change nothing (B = 0), so a server that ignored them, or a part of them, would agree
    with the trainer until they have learnt something. Before the first hand-over both sides are
    therefore compared with other adapters, which change the probe visibly.
    """

    fix = (
        "start the server from policy.model as it is (weights that another run loaded into it stay), "
        "with --dtype {dtype} and adapters for all its layers, or leave policy.sampler.transfer out"
    )
    tried = False

    def refresh(self) -> None:
        if not self.tried:
            with self._visible():
                super().refresh()
            self.loaded, self.tried = (), True
        super().refresh()

    def _write(self) -> None:
        write(self.policy, self.folder)

    @contextmanager
    def _visible(self) -> Iterator[None]:
        """Random adapters, in the place of the policy's own."""
        tensors = adapters_of(self.policy).tensors()
        places = [x for name, x in tensors.items() if ".lora_B" in name]
        own = [x.clone() for x in places]
        before = self._trainer_logps()
        limit = VISIBLE * MAX_PROBE_DIFFERENCE[self.policy.dtype]
        try:
            for size in SIZES:
                chance = torch.Generator().manual_seed(0)
                for x, old in zip(places, own, strict=True):
                    x.copy_(old + size * torch.randn(x.shape, generator=chance).to(old))
                if float((self._trainer_logps() - before).abs().mean()) > limit:
                    break
            yield
        finally:
            for x, old in zip(places, own, strict=True):
                x.copy_(old)
