"""A process group of torch.distributed's gloo backend between a trainer and a server's workers.

Rank 0 is the trainer. It opens a key-value store on the one address that the server can reach it at, which
stays open as long as the group; the workers find it there, and are connected. It is no default group, so
it stands beside those that either side has.

    rendezvous = Rendezvous(("10.0.0.2", 8000), workers=1)   # trainer, with .address and .port
    group = rendezvous.wait(ended=lambda: False)
    group = join(address, port, rank=1, size=2)              # worker
    broadcast(group, tensor)                                 # both
"""

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

RENDEZVOUS_SECONDS = 60.0
"""Seconds in which all workers must have come."""
TENSOR_SECONDS = 120.0
"""Seconds in which the other side must have sent or taken one tensor."""
distributed: Any = torch.distributed  # whose stubs name neither the store nor the options


class RendezvousFailed(Exception):
    """Not all workers came."""


def local_address(towards: tuple[str, int]) -> str:
    """The address of this machine on the way to another one. Raises OSError where there is none."""
    family, kind, protocol, _, to = socket.getaddrinfo(*towards, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as way:
        way.connect(to)  # sends nothing
        return str(way.getsockname()[0])


class Rendezvous:
    """The trainer's side of a rendezvous.

    towards  host and port of the server
    workers  how many of its processes will come

    Raises OSError where this machine has no way to it.
    """

    def __init__(self, towards: tuple[str, int], *, workers: int) -> None:
        self.size = 1 + workers
        self.address = local_address(towards)
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        # on this one address, not on all that the machine has; 0: any port that is free
        self.listener = socket.create_server((self.address, 0), family=family)
        self.port = int(self.listener.getsockname()[1])
        self.store = distributed.TCPStore(
            self.address,
            self.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=RENDEZVOUS_SECONDS),
            # which the store closes in the end
            master_listen_fd=self.listener.detach(),
        )

    def wait(self, ended: Callable[[], bool]) -> Any:
        """The group. Raises RendezvousFailed after RENDEZVOUS_SECONDS, or as soon as `ended` says that
        no worker will come any more; RuntimeError where a connection to one fails."""
        until = time.monotonic() + RENDEZVOUS_SECONDS
        names = [_name(rank) for rank in range(1, self.size)]
        while not self.store.check(names):
            if ended() or time.monotonic() > until:
                raise RendezvousFailed
            time.sleep(0.005)
        return _group(self.store, self.address, rank=0, size=self.size)


def join(address: str, port: int, *, rank: int, size: int) -> Any:
    """A worker's side. Raises OSError or RuntimeError where the trainer cannot be reached, or does
    not answer in RENDEZVOUS_SECONDS seconds."""
    own = local_address((address, port))
    store = distributed.TCPStore(
        address,
        port,
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=RENDEZVOUS_SECONDS),
    )
    store.set(_name(rank), "here")
    return _group(store, own, rank=rank, size=size)


def broadcast(group: Any, tensor: Tensor) -> None:
    """Send a contiguous tensor from rank 0, or receive into it. Raises RuntimeError where the other
    side has gone, or does nothing for TENSOR_SECONDS seconds."""
    if tensor.numel():
        # as bytes, because gloo does not know every dtype
        group.broadcast(tensor.view(-1).view(torch.uint8), 0).wait()


def _name(rank: int) -> str:
    return f"rank {rank}"


def _group(store: Any, address: str, *, rank: int, size: int) -> Any:
    group = distributed.ProcessGroupGloo
    options = group._Options()
    options._devices = [group.create_device(hostname=address)]
    options._timeout = timedelta(seconds=TENSOR_SECONDS)
    return group(store, rank, size, options)
