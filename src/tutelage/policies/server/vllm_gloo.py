"""A backend of vLLM's weight transfer, "tutelage-gloo", that needs no accelerator and no shared folder.

A server knows it when it is started where tutelage can be imported, with

    --worker-extension-cls tutelage.policies.server.vllm_gloo.Extension
    --weight-transfer-config '{"backend": "tutelage-gloo"}'

since vLLM imports the extension in every worker before the model is loaded. The trainer's side is made
by vLLM's `WeightTransferTrainerFactory`. Tensors travel one after another, as bytes, in the names and
layout of a checkpoint, and vLLM's layer-wise loading takes each. Written for vLLM 0.32; importing this
needs vllm.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.distributed.weight_transfer import (
    ParamMeta,
    TrainerWeightTransferEngine,
    WeightSource,
    WeightTransferEngine,
    WeightTransferEngineFactory,
    WeightTransferTrainerFactory,
)
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from tutelage.policies.server.gloo_group import Rendezvous, broadcast, join

BACKEND = "tutelage-gloo"
SERVER_ENDS = 5.0
"""Seconds in which a server says why a transfer broke off."""


class Extension:
    """Adds nothing to vLLM's worker: importing this module has registered the backend."""


@dataclass
class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Where a worker meets the trainer, and how many are in the group, the trainer included."""

    address: str
    port: int
    size: int


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """What will be sent, in this order: names, names of torch dtypes, shapes."""

    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)


class WorkerEngine(WeightTransferEngine[InitInfo, UpdateInfo]):  # type: ignore[misc]
    """In a worker: receives the tensors of a checkpoint and loads them into the model."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    group: Any = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        self.shutdown()
        here = self.parallel_config
        rank = 1 + here.data_parallel_index * here.world_size + here.rank
        self.group = join(init_info.address, init_info.port, rank=rank, size=init_info.size)

    def start_weight_update(self) -> None:
        """Nothing: between two requests of a trainer that is killed the model must stay whole."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # that of the base class synchronises an accelerator, which a CPU has not
        try:
            self.receive_weights(self.parse_update_info(update_info))
        except BaseException:
            self.shutdown()  # its connections close, so the trainer does not wait
            raise
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    @torch.no_grad()
    def receive_weights(self, update_info: UpdateInfo) -> None:
        from vllm.model_executor.model_loader.reload import (
            finalize_layerwise_reload,
            initialize_layerwise_reload,
        )

        if self.group is None:
            raise RuntimeError("no trainer has met this worker yet (init_weight_transfer_engine)")
        initialize_layerwise_reload(self.model)
        try:
            self.model.load_weights(self._received(update_info))
        finally:
            # also where it broke off: a layer that kept some of its weights in a buffer would count
            # them with those of the next update
            finalize_layerwise_reload(self.model, self.model_config)

    def finish_weight_update(self) -> None:
        """Nothing: every update is finished by itself."""

    def _received(self, info: UpdateInfo) -> Iterator[tuple[str, Tensor]]:
        for name, dtype, shape in zip(info.names, info.dtypes, info.shapes, strict=True):
            # a new one each time: layer-wise loading keeps them until a layer is complete
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
            broadcast(self.group, tensor)
            yield name, tensor.to(self.device)

    def shutdown(self) -> None:
        self.group = None  # its connections close with it


@dataclass
class TrainerInfo(TrainerInitInfo):  # type: ignore[misc]
    """Host and port at which the server is asked, and the number of its workers."""

    backend: ClassVar[str] = BACKEND

    host: str
    port: int
    workers: int


class TrainerEngine(TrainerWeightTransferEngine[TrainerInfo]):  # type: ignore[misc]
    """In the trainer: sends what a source tells to one server. Every rank of a trainer has servers of
    its own, so each is a sender."""

    init_info_cls = TrainerInfo
    group: Any = None

    @classmethod
    def trainer_init(
        cls, init_info: TrainerInfo, *, client: Any, source: WeightSource | None = None
    ) -> "TrainerEngine":
        """Raises what the client does where the server refuses, else RendezvousFailed, RuntimeError or
        OSError."""
        engine = cls(client=client, source=source)
        rendezvous = Rendezvous((init_info.host, init_info.port), workers=init_info.workers)
        payload = {"address": rendezvous.address, "port": rendezvous.port, "size": rendezvous.size}
        answer = _begin(client.init_weight_transfer_engine, payload)
        with _reason(answer):
            engine.group = rendezvous.wait(answer.done)
        answer.result()
        return engine

    def send_weights(self) -> None:
        """Raises what the client does where the server refuses, else RuntimeError."""
        assert self.source is not None
        listed = self.source.metadata()
        payload = {
            "names": [one.name for one in listed],
            "dtypes": [str(one.dtype).removeprefix("torch.") for one in listed],
            "shapes": [list(one.shape) for one in listed],
        }
        self.client.start_weight_update()
        answer = _begin(self.client.update_weights, payload)
        with _reason(answer):
            for _, tensor in self.source:
                broadcast(self.group, tensor.cpu().contiguous())
        answer.result()
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        self.group = None


class Given(WeightSource):  # type: ignore[misc]
    """A source of the tensors that a function yields, cast to a dtype one at a time.

    weights  called for each pass; yields the same names and shapes in the same order
    """

    def __init__(
        self, weights: Callable[[], Iterable[tuple[str, Tensor]]], dtype: torch.dtype
    ) -> None:
        self.weights, self.dtype = weights, dtype
        self.listed: list[ParamMeta] = []

    @torch.no_grad()
    def metadata(self) -> list[ParamMeta]:
        # once: where adapters are merged, a pass costs as much as one that is sent
        self.listed = self.listed or [
            ParamMeta(name, self.dtype, tuple(x.shape)) for name, x in self.weights()
        ]
        return self.listed

    @torch.no_grad()
    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.weights():
            yield name, tensor.detach().to(self.dtype)


def _begin(call: Callable[[Any], None], argument: Any) -> "Future[None]":
    """Call something in a thread that nobody waits for when the process ends."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            call(argument)
            future.set_result(None)
        except Exception as error:  # whatever it is: the future must end
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextlib.contextmanager
def _reason(answer: "Future[None]") -> Iterator[None]:
    """Where a group breaks, raise what the server says about it, if it says something soon."""
    try:
        yield
    except Exception:
        with contextlib.suppress(TimeoutError):
            answer.result(SERVER_ENDS)
        raise


def register() -> None:
    """Tell vLLM's factories of the backend."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, WorkerEngine)
        WeightTransferTrainerFactory.register_engine(BACKEND, TrainerEngine)


register()
