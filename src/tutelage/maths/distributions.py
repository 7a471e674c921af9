"""Distributions over the full vocabulary, computed in chunks of tokens to save memory.

N tokens over V entries in float32 are 4NV bytes: 600 kB a token at V = 151,936. Here a distribution
is kept as what it is computed from, hidden states [N, H] and an output head [V, H], and turned
into log-probabilities a chunk at a time.

There are two ways to take gradients. A `Distribution` recomputes each chunk in the backward pass.
`Pieces` cuts it into chunks of tokens and takes the gradient of one chunk before the next begins:
nothing is computed twice, and terms that read the same chunk share its log-probabilities. The
memory of both is constant in N; the second is as fast as holding everything.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tutelage.maths.divergences import from_known

CHUNK_ELEMENTS = 1 << 24
"""Log-probabilities computed at once: 64 MB in float32."""
CHUNK_ELEMENTS_GPU = 1 << 27
"""The same on a GPU, whose products need more rows to be fast: 512 MB."""


@dataclass(slots=True)
class _Sum:
    """A gradient [V, H] that is accumulated in place.

    leaf  the parameter to whose gradient it belongs, where the head is a copy in 16 bits
    """

    value: Tensor | None = None
    leaf: Tensor | None = None

    def add(self, logits: Tensor, hidden: Tensor) -> None:
        """logits^T hidden, from gradients for logits [n, V]; in float32 at least."""
        if hidden.dtype != torch.float32 and hidden.dtype != torch.float64:
            more = product(logits.T, hidden.T)
            if self.leaf is not None and self.value is None:
                if self.leaf.grad is None:
                    self.leaf.grad = torch.zeros_like(self.leaf)
                self.value = self.leaf.grad[: len(more)]
            self.value = more if self.value is None else self.value.add_(more)
        elif self.value is None:
            self.value = logits.T @ hidden
        else:
            self.value.addmm_(logits.T, hidden)


@dataclass(slots=True)
class _Piece:
    """What the terms of a loss share for one chunk of tokens."""

    head: _Sum
    rows: Tensor | None = None  # log-probabilities [n, V]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The entries that two vocabularies have in common.

    student, teacher  [S] their ids in either, in the same order
    rest              whether both have other entries, whose probabilities are pooled into one
    """

    student: Tensor
    teacher: Tensor
    rest: bool

    def __call__(self, divergence: "Divergence") -> "Divergence":
        """A divergence of a student [n, V] and a teacher [n, W] over what they share [n, S], and the
        pooled rest. Where only one of them has a rest, it is left out of that one's distribution."""

        def shared(student: Tensor, teacher: Tensor) -> Tensor:
            return divergence(
                _among(student, self.student, rest=self.rest),
                _among(teacher, self.teacher, rest=self.rest),
            )

        return shared

    def to(self, device: str) -> "Shared":
        return Shared(
            student=self.student.to(device), teacher=self.teacher.to(device), rest=self.rest
        )


def _among(rows: Tensor, ids: Tensor, *, rest: bool) -> Tensor:
    """Log-probabilities [n, V] -> those of some entries [n, S], normalised: with the pooled others
    as a last column, or without them."""
    some = rows.index_select(-1, ids)
    if rest:
        # summed over the others themselves: 1 - sum(some) would lose all digits where that is small
        others = rows.index_fill(-1, ids, torch.finfo(rows.dtype).min)
        return torch.cat([some, others.logsumexp(-1, keepdim=True)], -1)
    return some if len(ids) == rows.shape[-1] else some.log_softmax(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """log-softmax(f(hidden head^T) / temperature) at each of N sampled tokens.

    hidden [N, H], head [V, H]; temperature is that of sampling. f(x) = cap tanh(x / cap) if the
    model has a soft cap (Gemma 2, arXiv:2408.00118, section 2), else f(x) = x. A head [V, 0] says
    that `hidden` are the logits [N, V] themselves.
    """

    hidden: Tensor
    head: Tensor
    temperature: float = 1.0
    cap: float = 0.0  # 0: none
    piece: _Piece | None = None  # if these tokens are one chunk of `Pieces`
    leaf: Tensor | None = None  # the parameter [V or more, H] of which head is a copy in 16 bits
    shared: Shared | None = None  # of a teacher whose entries are not those of the student

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: Tensor | slice) -> "Distribution":
        piece = self.piece
        if piece is not None and isinstance(index, Tensor):
            if len(index) == len(self) and index.equal(
                torch.arange(len(index), device=index.device)
            ):
                return self
            rows = None if piece.rows is None else piece.rows.index_select(0, index)
            piece = _Piece(piece.head, rows)
        return replace(self, hidden=self.hidden[index], piece=piece)

    def to(self, device: str) -> "Distribution":
        return replace(
            self,
            hidden=self.hidden.to(device),
            head=self.head.to(device),
            piece=None,
            leaf=None,
            shared=None if self.shared is None else self.shared.to(device),
        )

    def detach(self) -> "Distribution":
        """The same numbers without gradient."""
        rows = None if self.piece is None else self.piece.rows
        return replace(
            self,
            hidden=self.hidden.detach(),
            head=self.head.detach(),
            piece=None if rows is None else _Piece(_Sum(), rows.detach()),
            leaf=None,
        )

    @property
    def chunk(self) -> int:
        """How many tokens are turned into log-probabilities at once."""
        elements = CHUNK_ELEMENTS_GPU if self.hidden.is_cuda else CHUNK_ELEMENTS
        return max(1, elements // len(self.head))

    def logps(self) -> Tensor:
        """All log-probabilities [N, V] in float32: 4NV bytes. A piece caches them."""
        if self.piece is None:
            return log_softmax(self.hidden, self.head, self.temperature, self.cap)
        if self.piece.rows is None:
            rows: Tensor = _LogSoftmax.apply(  # type: ignore[no-untyped-call]
                self.hidden, self.head, self.temperature, self.cap, self.piece.head
            )
            self.piece.rows = rows
        return self.piece.rows


def log_softmax(hidden: Tensor, head: Tensor, temperature: float, cap: float = 0.0) -> Tensor:
    """hidden [n, H], head [V, H] -> log-probabilities [n, V], in float32 at least."""
    logits = capped(raw_logits(hidden, head), cap)
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, -1)


def raw_logits(hidden: Tensor, head: Tensor) -> Tensor:
    """hidden [n, H], head [V, H] -> logits [n, V] before any cap; a head [V, 0] leaves what are
    logits already as they are. In float32 at least."""
    if head.shape[1]:
        return product(hidden, head)
    return hidden if hidden.dtype == torch.float64 else hidden.float()


def capped(logits: Tensor, cap: float) -> Tensor:
    """cap tanh(logits / cap); the logits themselves where cap is 0."""
    return cap * torch.tanh(logits / cap) if cap else logits


def product(rows: Tensor, columns: Tensor) -> Tensor:
    """rows [n, K], columns [m, K] -> rows columns^T [n, m], in float32 at least.

    In bfloat16 on a GPU, sums are in float32 and are not rounded to bfloat16. With hidden states h
    and a head's row w rounded to bfloat16 (by at most 2^-9 of each entry), a logit then differs from
    that of float32 by at most (2^-8 + 2^-18) sum_k |h_k w_k|.
    """
    if rows.is_cuda and rows.dtype == torch.bfloat16:
        logits: Tensor = _Float32Sums.apply(rows, columns)  # type: ignore[no-untyped-call]
        return logits
    logits = rows @ columns.T
    return logits if logits.dtype == torch.float64 else logits.float()


class _Float32Sums(torch.autograd.Function):
    """A product of bfloat16 matrices with a result in float32; its gradients are products of
    bfloat16 too."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        return torch.mm(rows, columns.T, out_dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, columns = ctx.saved_tensors
        grad = grad.to(rows.dtype)
        return (
            grad @ columns if ctx.needs_input_grad[0] else None,
            grad.T @ rows if ctx.needs_input_grad[1] else None,
        )


class _LogSoftmax(torch.autograd.Function):
    """`log_softmax` whose gradient for the head goes into a `_Sum`: autograd would make a new
    [V, H] for every chunk before it adds it to the last."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, temperature: float, cap: float, into: _Sum
    ) -> Tensor:
        rows = log_softmax(hidden, head, temperature, cap)
        ctx.save_for_backward(hidden, head, rows)
        ctx.temperature, ctx.cap, ctx.into = temperature, cap, into
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        hidden, head, rows = ctx.saved_tensors
        # d logits = (grad - p sum(grad)) / temperature
        logits = rows.exp().mul_(grad.sum(-1, keepdim=True)).sub_(grad).div_(-ctx.temperature)
        if ctx.cap:  # d cap tanh(x / cap) = 1 - tanh(x / cap)^2
            logits.mul_(1 - torch.tanh(raw_logits(hidden, head) / ctx.cap).square_())
        logits = logits.to(hidden.dtype)
        if ctx.needs_input_grad[1]:
            ctx.into.add(logits, hidden)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        return logits @ head if head.shape[1] else logits, None, None, None, None


class Pieces:
    """A distribution [N, V] cut into chunks of tokens, whose gradients are taken one at a time.

    Every piece is detached from the graph of the hidden states and the head: call `backward` on
    its loss before taking the next piece, then `send` once for all of them.
    """

    def __init__(self, of: Distribution) -> None:
        # a parameter's gradient is accumulated in place: one [V, H] less
        self.of = of
        self.head = _Sum(of.head.grad if of.head.is_leaf else None, leaf=of.leaf)
        self.leaves: list[Tensor] = []

    def __getitem__(self, part: slice) -> Distribution:
        """The next tokens; pieces are taken in order."""
        of = self.of
        leaf = of.hidden[part].detach().requires_grad_(of.hidden.requires_grad)
        self.leaves.append(leaf)
        return replace(
            of,
            hidden=leaf,
            head=of.head.detach().requires_grad_(of.head.requires_grad),
            piece=_Piece(self.head),
        )

    def send(self, *, always: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """(tensor, its gradient) for the hidden states and the head, where any piece had one; that
        of a head which is itself a parameter has been added to the parameter's. With `always` the
        hidden states have one in any case, of zeros."""
        needed = always and self.of.hidden.requires_grad
        if needed or any(leaf.grad is not None for leaf in self.leaves):
            parts = [torch.zeros_like(x) if x.grad is None else x.grad for x in self.leaves]
            yield self.of.hidden, torch.cat(parts)
        if self.of.leaf is not None:
            return  # the head's gradient is in the parameter's already, in float32
        head, grad = self.of.head, self.head.value
        if grad is not None and not head.is_leaf:
            yield head, grad.to(head.dtype)
        elif grad is not None and head.grad is not grad:
            head.grad = grad.to(head.dtype) if head.grad is None else head.grad.add_(grad)


def sampled_logps(of: Distribution, token: Tensor) -> Tensor:
    """Log-probability of token[N] -> [N]."""

    def pick(rows: Tensor, token: Tensor) -> Tensor:
        return rows.gather(-1, token[:, None]).squeeze(-1)

    return _by_chunk(pick, of, token)


def entropy(of: Distribution) -> Tensor:
    """-sum_v p log p per token -> [N], in nats."""
    return _by_chunk(lambda rows: -(rows.exp() * rows).sum(-1), of)


Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student [n, V], teacher [n, V]) log-probabilities -> [n], as in `maths.divergences`."""


def diverge(divergence: Divergence, student: Distribution, teacher: Distribution) -> Tensor:
    """A divergence at each token -> [N]; the gradient reaches the student only."""
    if teacher.shared is not None:
        divergence = teacher.shared(divergence)
    elif len(student.head) != len(teacher.head):
        raise ValueError(
            f"the student's vocabulary has {len(student.head)} entries and the teacher's "
            f"{len(teacher.head)}: a divergence over the vocabulary needs the same tokenizer"
        )
    if student.piece is not None:
        return divergence(student.logps(), teacher.detach().logps())

    def against(rows: Tensor, other: Tensor) -> Tensor:
        with torch.no_grad():
            goal = log_softmax(other, teacher.head, teacher.temperature, teacher.cap)
        return divergence(rows, goal)

    return _by_chunk(against, student, teacher.hidden)


def diverge_known(
    divergence: Divergence, student: Distribution, ids: Tensor, logps: Tensor
) -> Tensor:
    """`divergences.from_known`, of the K known entries of a teacher, ids and logps [N, K], at each
    token -> [N]; the gradient reaches the student."""
    return _by_chunk(partial(from_known, divergence), student, ids, logps)


def _by_chunk(function: Callable[..., Tensor], of: Distribution, *more: Tensor) -> Tensor:
    """function(log-probabilities [n, V], *more [n, ...]) -> [n], over all tokens: [N]. If a
    gradient is needed, intermediates are dropped and recomputed in the backward pass."""
    if of.piece is not None:
        return function(of.logps(), *more)

    def one(hidden: Tensor, head: Tensor, *rest: Tensor) -> Tensor:
        return function(log_softmax(hidden, head, of.temperature, of.cap), *rest)

    parts = [
        _again(one, of.hidden[i : i + of.chunk], of.head, *(x[i : i + of.chunk] for x in more))
        for i in range(0, len(of), of.chunk)
    ]
    return torch.cat(parts) if parts else of.hidden.new_zeros(0, dtype=torch.float32)


def _again(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call; if a gradient is needed, recompute the intermediates in the backward pass."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        result = checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(result, Tensor)
        return result
    return function(*tensors)
