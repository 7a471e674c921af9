"""A student's sampler on a server: vLLM's, or `tutelage serve --reload`.

Weights are loaded from a folder that both sides see. A server that can (vLLM from 0.32 on, ours) is
told a name for them, which it forgets when it is started again. Before a turn is used the server must
still tell that name, so no turn of other weights is learnt from.
"""

import time
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tutelage.errors import PolicyError
from tutelage.policies.base import Completion, Request
from tutelage.policies.server.http import Client, Failure
from tutelage.policies.server.policy import POLL_WAIT, RemotePolicy
from tutelage.prompts.prompter import Ids, Sample

RETRIES = 12
"""Attempts after the first while a run is under way: three minutes or more, in which a server can be
started again."""
RESETS = 20
"""Times that the prefix cache is asked to clear itself, a tenth of a second apart: it cannot while a
turn that nobody waits for any more still runs."""


class WeightsLost(Exception):
    """A server no longer has the weights that it was given."""

    def __init__(self, sampler: "ServerSampler") -> None:
        super().__init__(f"{sampler.name} has other weights")
        self.sampler = sampler


class ServerSampler:
    """A server that samples the student's turns with the weights that were loaded last.

    vLLM must be started with VLLM_SERVER_DEV_MODE=1 (which opens /collective_rpc) and
    --logprobs-mode processed_logprobs (log-probabilities at the sampling temperature).
    """

    patient = True
    """Whether a lost server is waited for, because somebody may start it again."""

    def __init__(self, remote: RemotePolicy, *, name: str = "policy.sampler") -> None:
        self.remote, self.name = remote, name
        self.loads = 0
        self.version = ""  # the name of its weights; empty where it takes none
        self.requests: dict[str, Request] = {}  # turns that are not yet returned
        self.unchecked: list[tuple[list[Completion], Future[Any]]] = []

    def submit(self, request: Request) -> None:
        self.requests[request.key] = request
        self.remote.submit(request)

    def poll(self) -> list[Completion]:
        """The finished turns whose weights are known to be the right ones. Raises WeightsLost."""
        finished = self.remote.poll()
        if not self.version:
            return self._returned(finished)
        if finished:
            self.unchecked.append((finished, self.remote.client.ask("/weight_info")))
        elif self.unchecked and not self.remote.turns:
            wait([self.unchecked[0][1]], timeout=POLL_WAIT)
        checked: list[Completion] = []
        while self.unchecked and self.unchecked[0][1].done():
            turns, answer = self.unchecked.pop(0)
            info = answer.result()
            if not isinstance(info, dict) or info.get("weight_version") != self.version:
                raise WeightsLost(self)
            checked += self._returned(turns)
        return checked

    def _returned(self, turns: list[Completion]) -> list[Completion]:
        for turn in turns:
            self.requests.pop(turn.key, None)
        return turns

    def submit_again(self) -> None:
        """Ask anew for every turn that was not returned: some may be of other weights."""
        requests = list(self.requests.values())
        self.refresh()
        for request in requests:
            self.submit(request)

    def refresh(self) -> None:
        self.remote.refresh()
        self.requests, self.unchecked = {}, []

    def load(self, folder: Path) -> None:
        self.loads += 1
        # unlike those of other runs, and of earlier hand-overs
        version = f"{folder.name} {self.loads}"
        client = self.remote.client
        self.version = version if self.hand_over(client, folder, version) else ""
        if self.patient:
            # from now on: what fails at first is a mistake, and said at once
            client.options = replace(client.options, retries=RETRIES)

    def hand_over(self, client: Client, folder: Path, version: str) -> bool:
        """Let a server load weights; whether it takes a name for them, where there is one."""
        try:
            _known(client, "/abort_requests", {})
            self.take(client, folder)
            _clear_cache(client)
        except PolicyError as error:
            raise PolicyError(
                f"{self.name} could not load the weights: {error} ({self.cause(folder)})"
            ) from error
        return bool(version) and _known(client, "/update_weight_version", {"new_version": version})

    def take(self, client: Client, folder: Path) -> None:
        """Let the server load the weights; nothing else."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        client.ask("/collective_rpc", body).result()

    def cause(self, folder: Path) -> str:
        """What may be missing where that fails."""
        return (
            "vLLM loads them if it was started with VLLM_SERVER_DEV_MODE=1, `tutelage serve` with "
            f"--reload, and both must see the folder {folder}"
        )

    def logps(self, ids: Ids) -> Tensor:
        return self.remote.score([Sample(prompt=ids[:1], tokens=ids[1:])], 1.0).logp


def _clear_cache(client: Client) -> None:
    # not with reset_running_requests: vLLM 0.32 on a CPU ends with an error where that leaves a
    # seeded prompt to be read in two parts
    for attempt in range(RESETS):
        if attempt:
            time.sleep(0.1)
        answer = client.ask("/reset_prefix_cache", {}).result()
        if not isinstance(answer, dict) or answer.get("success") is not False:
            return
    raise PolicyError("it cannot clear its prefix cache, which holds the old ones'")


def _known(client: Client, path: str, body: dict[str, Any]) -> bool:
    """Ask for what only some servers know; whether this one does."""
    try:
        client.ask(path, body).result()
    except PolicyError as error:
        cause = error.__cause__
        if isinstance(cause, Failure) and cause.status in (404, 405):
            return False
        raise
    return True
