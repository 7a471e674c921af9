"""How far a student is from a teacher at each token, from log-probabilities over V entries.

`student` carries the gradient, `teacher` never does. All are zero where the two agree; none
reduces over tokens. V may be a vocabulary or its coarsening.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) from log-probabilities [N, V] -> [N]. Mode-covering."""
    teacher = teacher.detach()
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) from log-probabilities [N, V] -> [N]. Mode-seeking."""
    return (student.exp() * (student - teacher.detach())).sum(-1)


def jensen_shannon(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta) student.

    Tends to 0, not to a KL, at both ends of `beta`: use `forward_kl` or `reverse_kl` there.
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta must lie strictly between 0 and 1, got {beta}")
    teacher = teacher.detach()
    weights = torch.tensor([beta, 1 - beta], dtype=student.dtype, device=student.device).log()
    mixture = torch.logsumexp(torch.stack([teacher, student], -1) + weights, -1)
    return beta * (teacher.exp() * (teacher - mixture)).sum(-1) + (1 - beta) * (
        student.exp() * (student - mixture)
    ).sum(-1)


def coarsen(logps: Tensor, ids: Tensor) -> Tensor:
    """Keep the columns ids[N, K] of logps[N, V] and pool the rest: [N, K + 1], still normalised.

    A divergence of coarsened distributions never exceeds that of the originals.
    """
    kept = logps.gather(-1, ids)
    # summed from the rest itself: 1 - sum(kept) would lose all its digits where the rest is small
    others = logps.scatter(-1, ids, torch.finfo(logps.dtype).min)
    return torch.cat([kept, others.logsumexp(-1, keepdim=True)], -1)


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
