"""Ways to fit a model's layers into less memory.

checkpoint_layers        recompute activations inside a layer in the backward pass; exact
cast_frozen_to_bfloat16  frozen weights in the dtype of the products; exact under autocast
ActingCopy               the same of trained weights, for sampling only
quantize                 frozen weights in 4 bits (NF4, arXiv:2305.14314, section 3); lossy
"""

import copy
from collections.abc import Callable
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


def cast_frozen_to_bfloat16(base: nn.Module) -> None:
    """Keep frozen weights of linear layers in bfloat16: autocast would compute the same numbers in
    every pass. So are those of experts, which autocast may leave in float32: most of a mixture's
    memory. Embeddings, norms and trained weights stay in float32."""
    for module in base.modules():
        for weight in experts_of(module):
            if not weight.requires_grad and weight.dtype == torch.float32:
                weight.data = weight.data.bfloat16()
        if not isinstance(module, nn.Linear) or module.weight.requires_grad:
            continue
        if module.weight.dtype == torch.float32:
            module.weight.data = module.weight.data.bfloat16()
        elif hasattr(module, "compute_dtype"):  # 4 bits, unpacked into this
            module.compute_dtype = torch.bfloat16  # type: ignore[assignment]


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
                weight = nn.Parameter(module.weight.detach().bfloat16(), requires_grad=False)
                self._pairs.append((weight, module.weight))
                module.weight = weight

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


def quantize(base: nn.Module) -> None:
    """Every linear layer's weights in 4 bits, frozen. They are packed when the model is moved to
    its device."""
    require()
    whole = sum(p.numel() for module in base.modules() for p in experts_of(module))
    if whole:
        share = whole / sum(p.numel() for p in base.parameters())
        raise PolicyError(
            f'quantize = "nf4" packs linear layers, but {share:.0%} of the parameters of this '
            "mixture are experts, which are none and would stay in float32; leave quantize out, "
            "or choose a model without experts"
        )
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent in list(base.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
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
                setattr(parent, name, layer)
