"""Linear layers that read the same numbers as one product, for weights that are not trained.

A decode step of few tokens is bound by its number of kernels: an H100 took some 6 us for each of the
20 of a layer of Qwen3-1.7B (batch 1, see docs/benchmarks.md), of which 7 were products. The products
for queries, keys and values become one, and so do the two of a gated MLP. Their weights move into one
piece of memory, of which each layer's own parameter is a view: nothing is held twice, and whoever
writes to a parameter writes to the joined weight.

Only passes that sample take them (`used`). A GPU may round a joined product differently, and a frozen
copy has to score to the bit what the trained model scores.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names that transformers gives to linear layers of one input."""
_used: ContextVar[bool] = ContextVar("used", default=False)


@contextmanager
def used() -> Iterator[None]:
    """Joined products, where weights are joined."""
    token = _used.set(True)
    try:
        yield
    finally:
        _used.reset(token)


def join(base: nn.Module) -> None:
    """Join the groups in all modules of a model, in place. Groups of which a layer is trained, is
    not a plain linear layer (adapters, weights in 4 bits), or differs from the others by its input,
    its dtype or its bias stay as they are."""
    for module in base.modules():
        for names in GROUPS:
            group = [getattr(module, name, None) for name in names]
            if _fits(group):
                _join(group)  # type: ignore[arg-type]


def _fits(group: Sequence[Any]) -> bool:
    if any(type(x) is not nn.Linear or "forward" in vars(x) for x in group):
        return False
    kinds = {(x.in_features, x.weight.dtype, x.weight.device, x.bias is None) for x in group}
    parameters = [p for x in group for p in x.parameters()]
    # weights that are divided over ranks stay with their rank
    fixed = all(not p.requires_grad and not hasattr(p, "to_local") for p in parameters)
    return len(kinds) == 1 and fixed


@torch.no_grad()
def _join(group: Sequence[nn.Linear]) -> None:
    for name in ("weight", "bias"):
        parts = [getattr(layer, name) for layer in group]
        if parts[0] is not None:
            whole = torch.cat([part.detach() for part in parts])
            for part, view in zip(
                parts, whole.split_with_sizes([len(p) for p in parts]), strict=True
            ):
                part.data = view
    shared = _Product(group)
    for k, layer in enumerate(group):
        layer.product, layer.part = shared, k  # type: ignore[assignment]
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(self: Any, x: Tensor) -> Tensor:
    if not _used.get():
        return F.linear(x, self.weight, self.bias)
    return self.product.of(x, self.part)  # type: ignore[no-any-return]


class _Product:
    """The joined product of the last input, whose parts are asked for one after another."""

    def __init__(self, group: Sequence[nn.Linear]) -> None:
        self.group = tuple(group)
        self.x: Tensor | None = None
        self.parts: dict[int, Tensor] = {}

    def of(self, x: Tensor, part: int) -> Tensor:
        """W_part x + b_part."""
        if self.x is not x or part not in self.parts:
            weight = self._whole("weight")
            if weight is None:
                own = self.group[part]
                return F.linear(x, own.weight, own.bias)
            sizes = [layer.out_features for layer in self.group]
            product = F.linear(x, weight, self._whole("bias"))
            self.x, self.parts = x, dict(enumerate(product.split_with_sizes(sizes, -1)))
        found = self.parts.pop(part)
        if not self.parts:
            self.x = None  # nothing is held on to between passes
        return found

    def _whole(self, name: str) -> Tensor | None:
        """The parameters of all as one tensor; None where they are not next to each other any more,
        such as after a deep copy of each."""
        parts: list[Tensor | None] = [getattr(layer, name) for layer in self.group]
        first = parts[0]
        if first is None:
            return None
        at, storage = first.data_ptr(), first.untyped_storage().data_ptr()
        for part in parts:
            if part is None or part.data_ptr() != at or not part.is_contiguous():
                return None
            if part.untyped_storage().data_ptr() != storage:
                return None
            at += part.numel() * part.element_size()
        rows = sum(layer.out_features for layer in self.group)
        return first.detach().as_strided((rows, *first.shape[1:]), first.stride())
