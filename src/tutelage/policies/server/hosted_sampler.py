"""A student's sampler on a server that Ray started."""

from pathlib import Path

from torch import Tensor

from tutelage.errors import PolicyError
from tutelage.policies.base import Dtype
from tutelage.policies.server.hosted import HostedClient
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import MAX_PROBE_DIFFERENCE
from tutelage.policies.server.vllm_server import ServerSampler
from tutelage.prompts.prompter import Ids, Sample


class HostedSampler(ServerSampler):
    """One that is started again gets the weights of the last hand-over and their name, and must score
    the probe as the one before it did, before any request is sent to it."""

    patient = False  # its client asks the cluster where it is

    def __init__(self, remote: RemotePolicy, client: HostedClient, *, dtype: Dtype) -> None:
        super().__init__(remote, name=client.hosted.name)
        self.limit = MAX_PROBE_DIFFERENCE[dtype]
        self.folder: Path | None = None
        self.proof: tuple[Ids, Tensor] | None = None
        client.restore = self.restore

    def load(self, folder: Path) -> None:
        # the probe that follows is of these weights
        self.folder, self.proof = folder, None
        super().load(folder)

    def logps(self, ids: Ids) -> Tensor:
        found = super().logps(ids)
        self.proof = ids, found
        return found

    def restore(self, client: Client) -> None:
        """Raises PolicyError where a new server cannot be given the weights of the lost one."""
        if self.folder is None:
            return  # it starts with the weights that it samples with first
        self.hand_over(client, self.folder, self.version)
        if self.proof is None:
            return
        ids, before = self.proof
        remote = RemotePolicy(client, self.remote.chat, model=self.remote.model)
        now = remote.score([Sample(prompt=ids[:1], tokens=ids[1:])], 1.0).logp
        difference = float((now - before).abs().mean())
        if not difference <= self.limit:
            raise PolicyError(
                f"{self.name} was started again and differs from the server before by "
                f"{difference:.3g} nats a token (at most {self.limit:g} is rounding); install the "
                "same releases on every node, and continue with --resume"
            )
