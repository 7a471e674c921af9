"""A model's layers divided over ranks by FSDP2.

Beside a policy's model stands a second form of the same layers, whose linear weights are divided by
`torch.distributed.fsdp.fully_shard`: a layer is gathered where it is computed. Embedding, LM head,
norms, biases and adapters are small or are read outside of `forward`: they are whole in both forms,
the same tensors.

Divided in the update, the policy keeps its whole weights for what a rank does by itself: sampling,
scoring before the update, saving. They are given back at the beginning of an update, in which every
pass goes through the divided form, and are gathered again at its end.

Divided always, the whole weights are given back for good: every pass goes through the divided form,
and servers sample. One weight at a time is gathered for them.

A rank that computes a divided pass alone would wait for ever: all ranks make the same passes in the
same order.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.policies.hf import memory


class Sharded:
    """The divided form of a model.

    parts  by the number of a weight among the model's parameters: this rank's rows of it, a leaf
           that an optimiser trains. Only weights that are trained have one

    bfloat16  gather layers in bfloat16, as autocast would compute with them
    offload   keep this rank's rows in main memory, with their gradients and moments
    always    no rank has the whole weights again
    device    of the divided form, to which each layer is moved before it is divided
    """

    def __init__(
        self,
        model: Any,
        base: nn.Module,
        config: Any,
        *,
        bfloat16: bool,
        offload: bool,
        always: bool = False,
        device: str,
    ) -> None:
        # imported here, since a run in one process needs none of it
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            CPUOffloadPolicy,
            MixedPrecisionPolicy,
            OffloadPolicy,
            fully_shard,
        )

        self.active = self.always = always
        self.updates = 0
        self.whole = _divisible(base, config)
        kind = torch.device(device).type
        layers = set(map(id, self.whole))
        for x in (*model.parameters(), *model.buffers()):
            if id(x) not in layers and x.device.type != kind:  # FSDP moves what it divides
                x.data = x.data.to(device)
        size = torch.distributed.get_world_size()
        mesh = init_device_mesh(kind, (size,))
        self.host = mesh if kind == "cpu" else init_device_mesh("cpu", (size,))
        same = {id(x): x for x in (*base.parameters(), *base.buffers())}
        pairs = []
        for weight in self.whole:
            divided = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
            same[id(weight)] = divided
            pairs.append(divided)
        self.base = copy.deepcopy(base, same)
        places = _places(self.base, pairs)
        # reduced as a sum: a loss is divided by the tokens of all ranks already
        settings: dict[str, Any] = {
            "mesh": mesh,
            "reshard_after_forward": True,
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if bfloat16 else None,
                reduce_dtype=torch.float32,
                cast_forward_inputs=False,
            ),
            "offload_policy": CPUOffloadPolicy() if offload and kind == "cuda" else OffloadPolicy(),
        }
        ours = set(pairs)
        for module in (*memory.layers_of(self.base, config), self.base):
            ignored = {p for p in module.parameters() if p not in ours}
            fully_shard(module, ignored_params=ignored, **settings)
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            module.set_reduce_scatter_unused_params(True)
        self.places = places
        names = {id(p): name for name, p in model.named_parameters()}
        self.names = {names[id(weight)]: k for k, weight in enumerate(self.whole)}
        numbers = {id(p): number for number, p in enumerate(model.parameters())}
        self.numbers = [numbers[id(weight)] for weight in self.whole]
        self.parts = {
            number: nn.Parameter(self.divided(k).to_local().detach())
            for k, number in enumerate(self.numbers)
            if self.whole[k].requires_grad
        }
        if always:
            self._give_back()

    def divided(self, k: int) -> Any:
        """The k-th divided weight as it stands in its module: a DTensor."""
        module, name = self.places[k]
        return getattr(module, name)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """An update: the whole weights are given back until it has ended, and are then those that
        it left. Every rank enters and leaves it."""
        self._give_back()
        self.active = True
        try:
            yield
            self.updates += 1
            if not self.always:
                self.gather()
        finally:
            self.active = self.always

    def _give_back(self) -> None:
        for weight in self.whole:
            weight.data = weight.data.new_empty(0)

    @torch.no_grad()
    def gather(self) -> None:
        """Make the whole weights those of all ranks' rows."""
        for k, weight in enumerate(self.whole):
            full = self._full(k)
            weight.data = torch.empty_like(full, dtype=weight.dtype, device=weight.device)
            weight.copy_(full)  # in place, which torch counts, as readers of the weights expect

    def _full(self, k: int) -> Tensor:
        full: Tensor = self.divided(k).detach().full_tensor()
        return full

    @torch.no_grad()
    def whole_weight(self, name: str, value: Tensor) -> Tensor:
        """A weight of the model by its name, gathered where it is divided: every rank calls this at
        the same time. Any other is `value`."""
        return self._full(self.names[name]) if self.always and name in self.names else value

    def stored(self, model: Any) -> dict[str, Tensor]:
        """The weights of a model that is always divided, by the names of its file: DTensors where
        they are divided. A weight that is tied to another is there once."""
        weights = dict(model.named_parameters())
        state = model.state_dict()
        every = set(dict(model.named_parameters(remove_duplicate=False)))
        weights |= {name: state[name] for name in state if name not in every}  # buffers
        return {
            name: self.divided(self.names[name]).detach() if name in self.names else x.detach()
            for name, x in weights.items()
        }

    @torch.no_grad()
    def agreed(self, passes: int) -> int:
        """The largest of all ranks' numbers of passes: every rank calls this at the same time."""
        most = torch.tensor(passes)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def collect(self) -> None:
        """Move the gradients of the divided weights to their parts, where the optimiser is."""
        for k, number in enumerate(self.numbers):
            if number in self.parts:
                divided = self.divided(k)
                gradient = divided.grad
                self.parts[number].grad = None if gradient is None else gradient.to_local()
                divided.grad = None

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the parts, which an optimiser has changed, to the divided weights. Where both are
        the same memory there is nothing to write."""
        for k, number in enumerate(self.numbers):
            if number in self.parts:
                local, part = self.divided(k).to_local(), self.parts[number]
                if local.data_ptr() != part.data_ptr():
                    local.copy_(part)
                    part.data = local

    def trained(self, model: Any) -> Iterator[nn.Parameter]:
        """What an optimiser trains, in the order of the model's parameters."""
        for number, p in enumerate(model.parameters()):
            if p.requires_grad:
                yield self.parts.get(number, p)

    def spread(self, part: Tensor, like: Tensor) -> Tensor:
        """A tensor of the shape of `part`, such as its moments, as this rank's rows of one of all
        ranks: a DTensor in main memory. Any other tensor as it is."""
        k = self._place_of(part)
        if k is None or like.shape != part.shape:
            return like
        from torch.distributed.tensor import DTensor

        of = self.divided(k)
        return DTensor.from_local(
            like.detach().cpu(),
            self.host,
            of.placements,
            run_check=False,
            shape=of.shape,
            stride=of.stride(),
        )

    def rows_of(self, part: Tensor, shape: Sequence[int]) -> slice:
        """This rank's rows of a tensor of the shape of a whole weight. All rows of any other."""
        k = self._place_of(part)
        if k is None or not shape:
            return slice(None)
        if tuple(shape) != tuple(self.divided(k).shape):
            raise ValueError("it belongs to another model")
        size = torch.distributed.get_world_size()
        rows = -(-shape[0] // size)
        start = min(shape[0], torch.distributed.get_rank() * rows)
        return slice(start, min(shape[0], start + rows))

    def _place_of(self, part: Tensor) -> int | None:
        for k, number in enumerate(self.numbers):
            if self.parts.get(number) is part:
                return k
        return None


def _divisible(base: nn.Module, config: Any) -> list[nn.Parameter]:
    """The matrices of a model's layers: where some are frozen, beside adapters, those alone."""
    found: list[nn.Parameter] = []
    for layer in memory.layers_of(base, config):
        for module in layer.modules():
            if isinstance(module, nn.Linear) and isinstance(module.weight, nn.Parameter):
                found.append(module.weight)
            found += memory.experts_of(module)
    frozen = [p for p in found if not p.requires_grad]
    return frozen or found


def _places(base: nn.Module, wanted: list[nn.Parameter]) -> list[tuple[nn.Module, str]]:
    """The module and the name of each parameter, in their order."""
    found = {
        id(p): (module, name)
        for module in base.modules()
        for name, p in module.named_parameters(recurse=False)
    }
    return [found[id(p)] for p in wanted]
