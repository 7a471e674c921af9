"""Shared-prefix scoring: sequences of a step start with the same instructions, so the keys and
values of those tokens are computed once.

The common prefix is passed through the model on its own, and every layer's keys and values of it
are kept. A sequence's other tokens attend to those and to themselves, which is exact: causal
attention never lets a token depend on later ones. (Of an episode of 1,857 tokens in
`benchmarks/step.py`, 548 are such a prefix.)

With a gradient, the keys and values are cut off from the graph of the prefix: every sequence's pass
adds its gradient there, and one backward pass through the prefix takes the sum when the minibatch
is over. A CPU often has memory for one sequence a pass only, so the prefix cannot stay part of each
one's graph; this way needs no more memory than one complete sequence.

Only the prefix of all sequences of a view is shared. What a group has in common beyond that (its
task) would need a tree and is computed again. A view whose sequences begin like another one's of
the same weights reads that one's prefix. On a GPU the sequences of a pass go through one kernel
that knows no prefix, so nothing is shared there. TUTELAGE_REFERENCE_PATH=1 computes every sequence
from its first token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.policies.packing import PackedSequence, common_prefix

MIN_PREFIX = 32
"""Tokens from which on a separate pass over the prefix pays."""
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(slots=True)
class Prefix:
    """Keys and values [1, K, P, D] of the P tokens `ids`, by layer.

    outputs  of the pass over the prefix, with the graph for its gradient
    leaves   the same, detached: passes of sequences read these, and their gradients add up there,
             in float32 at least
    """

    ids: Sequence[int]
    outputs: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    leaves: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store a layer's keys and values, from the pass over the prefix."""
        self.outputs[layer] = key, value
        key, value = (
            (x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_())
            if x.requires_grad
            else x
            for x in (key, value)
        )
        self.leaves[layer] = key, value

    def truncated(self, size: int) -> "Prefix":
        """Its first tokens only; gradients arrive at this prefix's leaves."""
        if size == len(self.ids):
            return self
        leaves = {at: (k[:, :, :size], v[:, :, :size]) for at, (k, v) in self.leaves.items()}
        return Prefix(self.ids[:size], leaves=leaves)

    def backward(self) -> None:
        """Take the accumulated gradients through the pass over the prefix."""
        pairs = [
            (output, leaf.grad.to(output.dtype))
            for layer, both in self.outputs.items()
            for output, leaf in zip(both, self.leaves[layer], strict=True)
            if leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [grad for _, grad in pairs])


def shared_tokens(sequences: Sequence[PackedSequence]) -> int:
    """Length of the prefix of all sequences, before any position that predicts a sampled token."""
    if len(sequences) < 2:
        return 0
    first = sequences[0].ids
    return min(
        _unread_tokens(sequences), *(common_prefix(first, each.ids) for each in sequences[1:])
    )


def _unread_tokens(sequences: Sequence[PackedSequence]) -> int:
    """Tokens before the first position whose hidden state is read in any sequence: the one that
    predicts its first sampled token."""
    return min(min(each.positions, default=len(each.ids)) - 1 for each in sequences)


def longest_usable(
    prefixes: Sequence[Prefix], sequences: Sequence[PackedSequence]
) -> Prefix | None:
    """The longest part of a computed prefix with which all sequences begin; None if too short."""
    best, size = None, MIN_PREFIX - 1
    for prefix in prefixes:
        usable = min(
            _unread_tokens(sequences), *(common_prefix(prefix.ids, each.ids) for each in sequences)
        )
        if usable > size:
            best, size = prefix, usable
    return None if best is None else best.truncated(size)


def attend(
    query: Tensor, key: Tensor, value: Tensor, before: tuple[Tensor, Tensor], scaling: float
) -> Tensor:
    """Causal attention of one sequence's tokens [1, H, T, D] over keys and values `before` them
    [1, K, P, D] and their own [1, K, T, D] -> [1, H, T, D]. On a CPU."""
    dtype = value.dtype
    attended: Tensor = _AttentionAfterPrefix.apply(  # type: ignore[no-untyped-call]
        *(x.to(dtype) for x in (query, key, value, *before)), scaling
    )
    return attended


class _AttentionAfterPrefix(torch.autograd.Function):
    """torch's flash kernel over the prefix and over the sequence itself, combined by their
    log-sum-exps.

    Both backward passes take the combined result and its log-sum-exp, so each gives its part of the
    gradient: the kernel's backward needs only exp(score - log-sum-exp) and each row's product of
    result and gradient (arXiv:2205.14135, appendix B).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        scaling: float,
    ) -> Tensor:
        _, h, t, d = query.shape
        fold, _, repeat = _group_functions(query, key)
        far, far_sum = _forward(fold(query), prefix_key, prefix_value, 0.0, False, scale=scaling)
        near, near_sum = _forward(query, repeat(key), repeat(value), 0.0, True, scale=scaling)
        far_sum = far_sum.reshape(1, h, t)
        total = torch.logaddexp(far_sum, near_sum)
        attended: Tensor = far.reshape(1, h, t, d) * (far_sum - total).exp()[..., None]
        attended += near * (near_sum - total).exp()[..., None]
        attended = attended.to(value.dtype)
        ctx.save_for_backward(query, key, value, prefix_key, prefix_value, attended, total)
        ctx.scaling = scaling
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, prefix_key, prefix_value, attended, total = ctx.saved_tensors
        fold, unite, repeat = _group_functions(query, key)
        far = _backward(
            fold(grad),
            fold(query),
            prefix_key,
            prefix_value,
            fold(attended),
            fold(total),
            0.0,
            False,
            scale=ctx.scaling,
        )
        near = _backward(
            grad, query, repeat(key), repeat(value), attended, total, 0.0, True, scale=ctx.scaling
        )
        query_grad = far[0].reshape(query.shape) + near[0]
        return query_grad, unite(near[1]), unite(near[2]), far[1], far[2], None


def _group_functions(query: Tensor, key: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """For query heads that share a key head: `fold` them into rows of it (without a mask), `repeat`
    a key head for each of them, and `unite` the gradients of such copies."""
    k = key.shape[1]
    n = query.shape[1] // k
    return (
        lambda x: x.reshape(1, k, n * x.shape[2], *x.shape[3:]),
        lambda x: x.reshape(1, k, n, *x.shape[2:]).sum(2),
        lambda x: x.repeat_interleave(n, 1),
    )
