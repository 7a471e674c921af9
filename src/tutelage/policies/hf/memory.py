"""What is done to a model's layers to fit them into less memory.

recompute  activations inside a layer are forgotten, and computed again in the backward pass; exact
halve      frozen weights are kept in the 2 bytes in which products take them; exact under autocast
Halved     the same of weights that are trained, for passes without a gradient
quantize   frozen weights are kept in 4 bits (NF4, arXiv:2305.14314, section 3), which is lossy
"""

import copy
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.errors import PolicyError


def layers_of(base: nn.Module, config: Any) -> nn.ModuleList:
    """The list of a model's layers."""
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise PolicyError(
        f"the layers of {type(base).__name__} were not found, so they cannot be computed again; "
        "set gradient_checkpointing = false, or choose a model such as Qwen3 or Llama"
    )


def recompute(base: nn.Module, config: Any) -> None:
    """Keep of each layer only what goes into it, where a gradient is wanted."""
    for layer in layers_of(base, config):
        layer.forward = partial(_again, layer.forward)


def _again(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


def halve(base: nn.Module) -> None:
    """Frozen weights of linear layers in bfloat16: autocast would make the same of them in every
    pass. Embeddings, norms and what is trained stay in float32."""
    for module in base.modules():
        if not isinstance(module, nn.Linear) or module.weight.requires_grad:
            continue
        if module.weight.dtype == torch.float32:
            module.weight.data = module.weight.data.bfloat16()
        elif hasattr(module, "compute_dtype"):  # 4 bits, unpacked into this
            module.compute_dtype = torch.bfloat16  # type: ignore[assignment]


class Halved:
    """A model that only acts, while its weights are trained in float32: its linear layers are read
    in bfloat16, which autocast would make of them in every pass again, at a cost that a pass over
    a few tokens is lost in. All else is the model's own."""

    def __init__(self, base: nn.Module) -> None:
        same = {id(x): x for x in (*base.parameters(), *base.buffers())}
        self.base = copy.deepcopy(base, same)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for module in self.base.modules():
            if isinstance(module, nn.Linear) and module.weight.requires_grad:
                made = nn.Parameter(module.weight.detach().bfloat16(), requires_grad=False)
                self._pairs.append((made, module.weight))
                module.weight = made

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what the weights have become, in place."""
        for made, trained in self._pairs:
            made.copy_(trained)


BLOCK = 64
"""Weights of a row that share a scale."""


def quantize(base: nn.Module) -> None:
    """Every linear layer's weights in 4 bits, frozen. They are packed when the model is moved to
    its device."""
    if find_spec("bitsandbytes") is None:
        raise PolicyError(
            'quantize = "nf4" needs bitsandbytes, which is not installed; install it with '
            "`pip install 'tutelage[lora]'`, or leave quantize out"
        )
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent in list(base.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                if child.in_features % BLOCK:
                    raise PolicyError(
                        f'quantize = "nf4" keeps weights in blocks of {BLOCK}, but {name} of this '
                        f"model takes {child.in_features} inputs; leave quantize out"
                    )
                made = Linear4bit(
                    child.in_features, child.out_features, bias=child.bias is not None,
                    compute_dtype=torch.float32, quant_type="nf4", device="meta",
                )  # fmt: skip
                made.weight = Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
                made.bias = child.bias
                # packs weights again on a processor, in a form without a gradient for the input
                made.support_avx512bf16_for_cpu = False
                setattr(parent, name, made)
