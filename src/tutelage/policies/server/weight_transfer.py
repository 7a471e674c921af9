"""A student's sampler on a server that is sent its weights by vLLM's weight transfer.

The trainer's engine is made by vLLM's `WeightTransferTrainerFactory`, and asks the server by the same
client as everything else here. One server, one group: it is made at the first hand-over, and again
where the server no longer tells the name of the weights that it was given, because a process that was
started again is in no group.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, PolicyError, first_line, install
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import Client, Failure
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import DTYPES
from tutelage.policies.server.vllm_server import ServerSampler

BACKEND = "tutelage-gloo"
EXTENSION = "tutelage.policies.server.vllm_gloo.Extension"
FLAGS = (
    f'--weight-transfer-config \'{{"backend": "{BACKEND}"}}\' --worker-extension-cls {EXTENSION}'
)
"""What a server is started with, besides what every sampler is."""
ANSWER = 120.0
"""Seconds in which a server answers a request that moves no weights."""
WHOLE = 3600.0
"""Seconds that a whole transfer may take; one tensor has gloo_group.TENSOR_SECONDS."""
ATTEMPTS = 3
"""Transfers that may break off before one is finished."""


def require_vllm() -> None:
    """Raise ConfigError where vllm cannot be imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # it writes to the run's own terminal
    try:
        import tutelage.policies.server.vllm_gloo  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'policy.sampler.transfer = "gloo" takes vLLM\'s weight transfer, and vllm (0.32 or later) '
            f"cannot be imported here ({error}); {install('vllm')}, or leave transfer out, and the "
            "weights go through a folder"
        ) from error


class Wire:
    """The four requests of vLLM's weight transfer to one server. Each is sent once: the next attempt
    is another transfer."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        try:
            self._post("/start_weight_update")
        except PolicyError as error:
            if status_of(error) != 500:
                raise
            # the transfer of a trainer that was killed is still open
            with contextlib.suppress(PolicyError):
                self._post("/finish_weight_update")
            self._post("/start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._post("/update_weights", {"update_info": update_info}, seconds=WHOLE)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        body = {} if weight_version is None else {"weight_version": weight_version}
        self._post("/finish_weight_update", body)

    def _post(
        self, path: str, body: dict[str, Any] | None = None, *, seconds: float = ANSWER
    ) -> None:
        self.client.ask_once(path, body or {}, deadline=seconds)


def status_of(error: PolicyError) -> int:
    """The HTTP status of an answer that was an error; 0 where there was no answer, -1 where the error
    is another."""
    return error.__cause__.status if isinstance(error.__cause__, Failure) else -1


class TransferSampler(ServerSampler):
    """A server that is sent the student's weights; nothing is written to a folder.

    They are sent as they are then, by the names of the base model, adapters merged, in the dtype that
    the policy computes in; one cast or merged tensor is in memory at a time.

    Needs vllm on both sides: see `require_vllm`, and FLAGS for the server.
    """

    def __init__(
        self, remote: RemotePolicy, policy: HFPolicy, *, name: str = "policy.sampler"
    ) -> None:
        super().__init__(remote, name=name)
        self.policy = policy
        self.engine: Any = None

    def take(self, client: Client, folder: Path) -> None:
        """Send the weights. Where the server is lost on the way, wait for another, and send them to
        that one; not at the first hand-over, when nothing has worked yet."""
        attempt = 1
        while True:
            try:
                if not self._in_group(client):
                    self.engine = None
                    self.engine = self._joined(client)
                self.engine.send_weights()
                return
            except (PolicyError, OSError, RuntimeError) as error:
                self.engine = None
                lost = not isinstance(error, PolicyError) or status_of(error) == 0
                if not lost or self.loads == 1 or attempt == ATTEMPTS:
                    if isinstance(error, PolicyError):
                        raise
                    raise PolicyError(
                        f"its connections to the trainer broke ({first_line(error)[:200]})"
                    ) from error
            attempt += 1
            client.ask("/v1/models").result()  # repeated until a server answers

    def cause(self, folder: Path) -> str:
        return (
            f"vLLM takes them this way if it was started with VLLM_SERVER_DEV_MODE=1 and {FLAGS} where "
            "tutelage can be imported, and if it reaches the trainer's machine at any port"
        )

    def _in_group(self, client: Client) -> bool:
        """Whether the server is the process that the group was made with."""
        if self.engine is None or not self.version:
            return False
        info = client.ask("/weight_info").result()
        return isinstance(info, dict) and info.get("weight_version") == self.version

    def _joined(self, client: Client) -> Any:
        """An engine of vLLM's that is in a group with the server's workers."""
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory

        from tutelage.policies.server.gloo_group import RENDEZVOUS_SECONDS, RendezvousFailed
        from tutelage.policies.server.vllm_gloo import Given, TrainerInfo

        answer = client.ask("/get_world_size").result()
        workers = answer.get("world_size") if isinstance(answer, dict) else None
        if not isinstance(workers, int) or workers < 1:
            raise PolicyError("it does not tell how many workers it has (/get_world_size)")
        to = client.target.address
        port = to.port or (443 if to.secure else 80)
        info = TrainerInfo(host=to.host, port=port, workers=workers, rank=0)
        # a tied LM head is sent a second time: a reload may not follow the tie
        source = Given(self.policy.weights, DTYPES[self.policy.dtype])
        try:
            return WeightTransferTrainerFactory.trainer_init(
                info, client=Wire(client), source=source
            )
        except RendezvousFailed as error:
            raise PolicyError(
                f"its workers did not connect to the trainer within {RENDEZVOUS_SECONDS:g} s"
            ) from error
        except PolicyError as error:
            backend = backend_of(client) if status_of(error) == 500 else BACKEND
            if backend == BACKEND:
                raise
            raise PolicyError(f"its weight transfer is {backend or 'switched off'}") from error


def backend_of(client: Client) -> str:
    """The backend that a server was started with, empty where with none; ours where it does not tell."""
    try:
        info = client.ask_once("/server_info?config_format=json", None, deadline=ANSWER)
        transfer = info["vllm_config"]["weight_transfer_config"]
        return str(transfer["backend"]) if transfer else ""
    except (PolicyError, KeyError, TypeError):  # an older release, or one without that address
        return BACKEND
