"""Divergences between student and teacher per token, from log-probabilities over V entries.

The gradient reaches `student` only. All are zero where the two agree; none reduces over tokens. V
may be a vocabulary or a coarsening of it.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Each is a custom autograd function that saves the two inputs for the backward pass; autograd's own
# record of these formulas would save five to eight tensors of their size.


class _ForwardKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        ctx.save_for_backward(teacher)
        return (teacher - student).mul_(teacher.exp()).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (teacher,) = ctx.saved_tensors
        return teacher.exp().mul_(-grad[..., None]), None


class _ReverseKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        ctx.save_for_backward(student, teacher)
        return (student - teacher).mul_(student.exp()).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        student, teacher = ctx.saved_tensors
        grad_student = (student - teacher).add_(1).mul_(student.exp())
        return grad_student.mul_(grad[..., None]), None


def _mixture(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    return torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))


class _JensenShannon(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.beta = beta
        mixture = _mixture(student, teacher, beta)
        far = (teacher - mixture).mul_(teacher.exp()).sum(-1)
        return beta * far + (1 - beta) * (student - mixture).mul_(student.exp()).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        student, teacher = ctx.saved_tensors
        # the derivative of the mixture cancels: it is 1 - beta times the student there
        grad_student = _mixture(student, teacher, ctx.beta).neg_().add_(student).mul_(student.exp())
        return grad_student.mul_((1 - ctx.beta) * grad[..., None]), None, None


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) from log-probabilities [N, V] -> [N]. Mode-covering."""
    result: Tensor = _ForwardKL.apply(student, teacher.detach())  # type: ignore[no-untyped-call]
    return result


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) from log-probabilities [N, V] -> [N]. Mode-seeking."""
    result: Tensor = _ReverseKL.apply(student, teacher.detach())  # type: ignore[no-untyped-call]
    return result


def jensen_shannon(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta) student.

    Tends to 0, not to a KL, at both ends of `beta`: use `forward_kl` or `reverse_kl` there.
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta must lie strictly between 0 and 1, got {beta}")
    result: Tensor = _JensenShannon.apply(student, teacher.detach(), beta)  # type: ignore[no-untyped-call]
    return result


def coarsen(logps: Tensor, ids: Tensor) -> Tensor:
    """Keep the columns ids[N, K] of logps[N, V] and pool the rest: [N, K + 1], still normalised.

    A divergence of coarsened distributions never exceeds that of the originals.
    """
    selected = logps.gather(-1, ids)
    # summed over the rest itself: 1 - sum(selected) would lose all digits where the rest is small
    others = logps.scatter(-1, ids, torch.finfo(logps.dtype).min)
    return torch.cat([selected, others.logsumexp(-1, keepdim=True)], -1)


def from_known(
    divergence: Callable[[Tensor, Tensor], Tensor], student: Tensor, ids: Tensor, logps: Tensor
) -> Tensor:
    """A divergence from a teacher of which K entries are known; its others are pooled into one, for
    teacher and student: [N, V], ids [N, K], their log-probabilities [N, K] -> [N]. ids are -1 after
    the last known entry, of which each row has one at least.

    With `forward_kl` it is sum_v q_v (log q_v - log p_v) + r (log r - log p_r) over the known v,
    where r = 1 - sum_v q_v and p_r is the student's mass elsewhere; a teacher whose entries add up
    to more than 1 by rounding is normalised.
    """
    there = ids >= 0
    # pooled once, though it is there twice: what follows the last entry repeats the first, without
    # mass
    ids = torch.where(there, ids, ids[:, :1])
    whole = there.sum(-1) == student.shape[-1]  # there are no other entries
    return divergence(coarsen(student, ids), _with_rest(logps, whole).to(student))


def _with_rest(logps: Tensor, whole: Tensor) -> Tensor:
    """Log-probabilities [N, K] of some entries, and that of all others, [N, K + 1]; without others
    where `whole` [N]. A probability of 0 has the smallest finite number, times which 0 is 0."""
    total = logps.double().exp().sum(-1, keepdim=True)
    rest = torch.where(whole[:, None], 0.0, (1 - total).clamp(min=0.0))
    found = torch.cat([logps.double() - total.clamp(min=1.0).log(), rest.log()], -1)
    return found.clamp(min=torch.finfo(torch.float32).min)


def top_k(
    divergence: Callable[[Tensor, Tensor], Tensor],
    k: int,
    support: Literal["student", "teacher"] = "student",
) -> Callable[[Tensor, Tensor], Tensor]:
    """A divergence of two distributions that keep `support`'s k likeliest entries and pool the rest
    into one: [N, V], [N, V] -> [N].

    It is exact for the pooled distributions, so at most the divergence of the originals, equal to
    it from k = V - 1 on, and never negative; restricting the sum to k entries is none of these.
    """
    if k < 1:
        raise ValueError(f"a top-k divergence keeps at least one entry, got k = {k}")

    def pooled(student: Tensor, teacher: Tensor) -> Tensor:
        if k >= student.shape[-1]:
            return divergence(student, teacher)
        ids = (student if support == "student" else teacher).detach().topk(k, -1).indices
        return divergence(coarsen(student, ids), coarsen(teacher, ids))

    pooled.__name__ = f"top-{k} {getattr(divergence, '__name__', 'divergence')}"
    return pooled
