"""What rows have in common is scored once: rows of a step begin with the same instructions.

The common beginning is passed through the model on its own, and every layer's keys and values of it
are kept. A row's own tokens attend to those and to themselves, which is exact: causal attention
never lets a token depend on what comes after it. Where a gradient is wanted, each row's pass leaves
its part of it at the keys and values, and one backward pass through the beginning takes the sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.policies.packing import Row, head_of

LEAST = 32
"""Tokens from which on a pass of their own is worth it."""
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(slots=True)
class Prefix:
    """Keys and values [1, K, P, D] of the P tokens `ids`, by layer.

    made    what a pass put out, with all that its gradient needs
    leaves  the same, cut off: passes of rows read these, and their gradients add up there, in
            float32 at least
    """

    ids: Sequence[int]
    made: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    leaves: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def take(self, layer: int, key: Tensor, value: Tensor) -> None:
        """A layer's keys and values, from the pass over the prefix."""
        self.made[layer] = key, value
        key, value = (
            (x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_())
            if x.requires_grad
            else x
            for x in (key, value)
        )
        self.leaves[layer] = key, value

    def upto(self, size: int) -> "Prefix":
        """Its first tokens only. What passes leave there is found here."""
        if size == len(self.ids):
            return self
        cut = {at: (k[:, :, :size], v[:, :, :size]) for at, (k, v) in self.leaves.items()}
        return Prefix(self.ids[:size], leaves=cut)

    def send(self) -> None:
        """Take the gradients that were left, through the pass over the prefix."""
        pairs = [
            (made, leaf.grad.to(made.dtype))
            for layer, both in self.made.items()
            for made, leaf in zip(both, self.leaves[layer], strict=True)
            if leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([made for made, _ in pairs], [grad for _, grad in pairs])


def common(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with, short of the place where a first token is predicted."""
    if len(rows) < 2:
        return 0
    return min(_unread(rows), *(head_of(rows[0].ids, row.ids) for row in rows[1:]))


def _unread(rows: Sequence[Row]) -> int:
    """Tokens before the first place whose state is read in any row: it predicts the next one."""
    return min(min(row.at, default=len(row.ids)) - 1 for row in rows)


def longest(prefixes: Sequence[Prefix], rows: Sequence[Row]) -> Prefix | None:
    """What can be used of those that are there, by all of these rows; None if it is too little."""
    best, most = None, LEAST - 1
    for prefix in prefixes:
        fits = min(_unread(rows), *(head_of(prefix.ids, row.ids) for row in rows))
        if fits > most:
            best, most = prefix, fits
    return None if best is None else best.upto(most)


def attend(
    query: Tensor, key: Tensor, value: Tensor, before: tuple[Tensor, Tensor], scaling: float
) -> Tensor:
    """Causal attention of one row's tokens [1, H, T, D] over keys and values `before` them
    [1, K, P, D] and their own [1, K, T, D] -> [1, H, T, D]. On a processor."""
    kind = value.dtype
    made: Tensor = _After.apply(  # type: ignore[no-untyped-call]
        *(x.to(kind) for x in (query, key, value, *before)), scaling
    )
    return made


class _After(torch.autograd.Function):
    """Two runs of torch's kernel, one over each part of the keys, put together by their sums of
    exponentials. Their backward passes take the whole's result and sum, which makes each give its
    part of the gradient: it needs only exp(score - log sum) and the row's product of result and
    gradient (arXiv:2205.14135, appendix B)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, head: Tensor, said: Tensor,
        scaling: float,
    ) -> Tensor:  # fmt: skip
        _, h, t, d = query.shape
        fold, _, repeat = _ways(query, key)
        far, far_sum = _forward(fold(query), head, said, 0.0, False, scale=scaling)
        near, near_sum = _forward(query, repeat(key), repeat(value), 0.0, True, scale=scaling)
        far_sum = far_sum.reshape(1, h, t)
        whole = torch.logaddexp(far_sum, near_sum)
        made: Tensor = far.reshape(1, h, t, d) * (far_sum - whole).exp()[..., None]
        made += near * (near_sum - whole).exp()[..., None]
        made = made.to(value.dtype)
        ctx.save_for_backward(query, key, value, head, said, made, whole)
        ctx.scaling = scaling
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, head, said, made, whole = ctx.saved_tensors
        fold, unite, repeat = _ways(query, key)
        far = _backward(
            fold(grad), fold(query), head, said, fold(made), fold(whole), 0.0, False,
            scale=ctx.scaling,
        )  # fmt: skip
        near = _backward(
            grad, query, repeat(key), repeat(value), made, whole, 0.0, True, scale=ctx.scaling
        )
        own = far[0].reshape(query.shape) + near[0]
        return own, unite(near[1]), unite(near[2]), far[1], far[2], None


def _ways(query: Tensor, key: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Query heads that share a key head: as rows of it, which nothing masks; and its copies for
    them, whose gradients are united."""
    k = key.shape[1]
    n = query.shape[1] // k
    return (
        lambda x: x.reshape(1, k, n * x.shape[2], *x.shape[3:]),
        lambda x: x.reshape(1, k, n, *x.shape[2:]).sum(2),
        lambda x: x.repeat_interleave(n, 1),
    )
