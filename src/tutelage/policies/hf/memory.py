"""Ways to fit a model's layers into less memory.

checkpoint_layers        recompute activations inside a layer in the backward pass; exact
cast_frozen_to_bfloat16  frozen weights in the dtype of the products; exact under autocast
in_float32               products of such weights in float32 nevertheless, for a while
ActingCopy               the same of trained weights, for sampling only
quantize                 frozen weights in 4 bits (NF4, arXiv:2305.14314, section 3); lossy
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.errors import PolicyError, install

QUANTIZATION_BLOCK = 64
"""Weights that share a scale."""


def layers_of(base: nn.Module, config: Any) -> nn.ModuleList:
    """The list of a model's layers."""
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise PolicyError(
        f"the layers of {type(base).__name__} were not found, so they cannot be recomputed; "
        "set gradient_checkpointing = false, or choose a model such as Qwen3 or Llama"
    )


def checkpoint_layers(base: nn.Module, config: Any) -> None:
    """Keep only the input of each layer for the backward pass."""
    for layer in layers_of(base, config):
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


def without_head(model: Any) -> list[nn.Module]:
    """The modules of a model but its LM head, which stays in float32."""
    head = model.get_output_embeddings()
    return [x for x in getattr(model, model.base_model_prefix, model).modules() if x is not head]


def cast_frozen_to_bfloat16(model: Any) -> None:
    """Keep frozen weights of linear layers in bfloat16: autocast would compute the same numbers in
    every pass. So are those of experts, which autocast may leave in float32: most of a mixture's
    memory. The LM head, embeddings, norms and trained weights stay in float32. Weights in 4 bits are
    unpacked into bfloat16."""
    for module in without_head(model):
        for weight in experts_of(module):
            if not weight.requires_grad and weight.dtype == torch.float32:
                weight.data = weight.data.bfloat16()
        if packed_state(module) is not None:
            packed_state(module).dtype = torch.bfloat16
        if not isinstance(module, nn.Linear) or module.weight.requires_grad:
            continue
        if module.weight.dtype == torch.float32:
            module.weight.data = module.weight.data.bfloat16()
        elif hasattr(module, "compute_dtype"):  # 4 bits, unpacked into this
            module.compute_dtype = torch.bfloat16  # type: ignore[assignment]
            if module.weight.is_cuda:
                # in the backward pass too, which else unpacks 4 bytes a weight and rounds those
                module.weight.quant_state.dtype = torch.bfloat16  # type: ignore[attr-defined]


@contextmanager
def in_float32(base: nn.Module) -> Iterator[None]:
    """Weights that are kept in bfloat16 are float32 in the forward passes of the layers that hold them,
    which run without autocast meanwhile. At any time one layer's take 4 bytes a weight."""
    with ExitStack() as stack:
        if any(p.dtype == torch.bfloat16 for p in base.parameters()):
            for module in base.modules():
                held = list(module) if isinstance(module, nn.ModuleList) else []
                # those outside of layers, and those of layers that are not called as a whole
                held += [module] if isinstance(module, nn.Linear) or experts_of(module) else []
                for each in held:
                    widened = _Widened()
                    for hook in (
                        each.register_forward_pre_hook(widened.before),
                        each.register_forward_hook(widened.after, always_call=True),
                    ):
                        stack.callback(hook.remove)
        yield


class _Widened:
    """Hooks that exchange a module's parameters in bfloat16 for float32 copies in a forward pass.
    Copies, since what autograd keeps for the backward pass must not change its dtype."""

    def __init__(self) -> None:
        self.low: list[tuple[nn.Module, str, nn.Parameter]] = []

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self.low = [
            (part, name, own)
            for part in module.modules()
            for name, own in part.named_parameters(recurse=False)
            if own.dtype == torch.bfloat16
        ]
        for part, name, own in self.low:
            part._parameters[name] = nn.Parameter(own.detach().float(), requires_grad=False)
        # some models cast an input to the dtype in which they find the weight
        return tuple(x.float() if _is_bfloat16(x) else x for x in inputs)

    def after(self, module: nn.Module, inputs: object, output: object) -> None:
        for part, name, own in self.low:
            part._parameters[name] = own
        self.low = []


def _is_bfloat16(x: object) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.bfloat16


def experts_of(module: nn.Module) -> list[nn.Parameter]:
    """The weights of a mixture's experts that a module holds: one parameter for all of them, with
    three dimensions, and no linear layers."""
    if "expert" not in type(module).__name__.lower():
        return []
    return [p for p in module.parameters(recurse=False) if p.dim() == 3]


class ActingCopy:
    """A model for sampling whose trained linear layers are copied in bfloat16; all else is shared.

    The weights are trained in float32, and autocast would cast all of them for every token that is
    sampled. The copy takes half the memory of the weights and is refreshed in place, so that
    recorded decode steps keep their addresses.
    """

    def __init__(self, base: nn.Module) -> None:
        shared = {id(x): x for x in (*base.parameters(), *base.buffers())}
        self.base = copy.deepcopy(base, shared)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for module in self.base.modules():
            if isinstance(module, nn.Linear) and module.weight.requires_grad:
                module.weight = self._copied(module.weight)
                if module.bias is not None:
                    module.bias = self._copied(module.bias)

    def _copied(self, trained: Tensor) -> nn.Parameter:
        copied = nn.Parameter(trained.detach().bfloat16(), requires_grad=False)
        self._pairs.append((copied, trained))
        return copied

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current weights, in place."""
        for weight, trained in self._pairs:
            weight.copy_(trained)


def require() -> None:
    """Raise PolicyError where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise PolicyError(
            'quantize = "nf4" needs bitsandbytes, which is not installed; install it with '
            f"`{install('lora')}`, or leave quantize out"
        )


def quantize(model: Any, device: str) -> None:
    """The weights of every linear layer but the LM head, and of a mixture's experts, in 4 bits, frozen.
    Linear layers are packed when the model is moved to its device, experts are moved and packed
    here, one tensor at a time: no device ever holds all of them unpacked."""
    require()
    head = model.get_output_embeddings()
    for parent in without_head(model):
        _pack_experts(parent, device)
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(parent, name, _packed_linear(name, child))


def _packed_linear(name: str, child: nn.Linear) -> nn.Module:
    """A linear layer in 4 bits. Raises PolicyError for one whose rows are no whole blocks."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    if child.in_features % QUANTIZATION_BLOCK:
        raise PolicyError(
            f'quantize = "nf4" keeps weights in blocks of {QUANTIZATION_BLOCK}, but '
            f"{name} of this model takes {child.in_features} inputs; leave quantize out"
        )
    layer = Linear4bit(
        child.in_features,
        child.out_features,
        bias=child.bias is not None,
        compute_dtype=torch.float32,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
    layer.bias = child.bias
    # it would pack weights again on a CPU, in a form without a gradient for the input
    layer.support_avx512bf16_for_cpu = False
    return layer  # type: ignore[no-any-return]


def _pack_experts(module: nn.Module, device: str) -> None:
    """The experts of a module in 4 bits. Every read of one of its tensors unpacks that tensor; in a
    forward pass of the module it is unpacked once."""
    held = experts_of(module)
    if not held:
        return
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    names = [n for n, p in module.named_parameters(recurse=False) if any(p is x for x in held)]
    for name in names:
        weight = getattr(module, name)
        if weight.shape[-1] % QUANTIZATION_BLOCK:
            raise PolicyError(
                f'quantize = "nf4" keeps weights in blocks of {QUANTIZATION_BLOCK}, but the rows of '
                f"{name}, a mixture's experts, have {weight.shape[-1]}; leave quantize out"
            )
        setattr(module, name, nn.Parameter(weight.data.to(device), requires_grad=False))
        replace_parameter_4bit(module, name, compress_statistics=True, quant_type="nf4")


def is_mixture(base: nn.Module) -> bool:
    """Whether a model has experts, packed or not."""
    return any(experts_of(x) or packed_state(x) is not None for x in base.modules())


def packed_state(module: nn.Module) -> Any:
    """How the numbers of packed experts are unpacked, whose `dtype` is that of the result; None for
    every other module."""
    return module.quant_state if type(module).__name__ == "Bnb4bitParametrization" else None
