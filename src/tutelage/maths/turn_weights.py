"""Weights of turns and tokens in distillation, from student and teacher scores, no gradient.

Shapes: K turns, E episodes, N tokens. Of each turn, d[K] is the mean |log p - log q| of its tokens
and h[K] their mean -log p.
"""

import torch
from torch import Tensor

from tutelage.maths.segments import min_max, segment_min_max, segment_sum

EPS = 1e-6


def soft_or(a: Tensor, b: Tensor) -> Tensor:
    """1 - (1 - a)(1 - b): near 1 where either input is.

    >>> soft_or(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.5, 0.2])).tolist()
    [0.0, 0.75, 1.0]
    """
    return 1 - (1 - a) * (1 - b)


def t_dur(
    d: Tensor,
    h: Tensor,
    episode: Tensor,
    size: int,
    *,
    min_turns: int = 3,
    min_gap: float = 0.01,
) -> Tensor:
    """ATOD's turn weight (arXiv:2606.27814, T-DUR): d[K], h[K], episode[K] -> [K] in [0, 1].

    soft_or of d and h, each min-max scaled within its episode. All weights are 1 in an episode of
    fewer than `min_turns` turns, or whose largest d is below `min_gap`: there the scaling would
    only amplify noise.
    """
    weight = soft_or(min_max(d, episode, size), min_max(h, episode, size))
    turns = segment_sum(torch.ones_like(d), episode, size)
    largest = segment_min_max(d, episode, size)[1]
    plain = (turns < min_turns) | (largest < min_gap)
    return torch.where(plain[episode], torch.ones_like(d), weight)


def token_dur(d: Tensor, h: Tensor, *, quantile: float = 0.98) -> Tensor:
    """The same for single tokens, d[N] = |log p - log q| and h[N] = -log p -> [N], each min-max
    scaled over all tokens; h is clipped at its `quantile` first, because one rare token would
    flatten all others."""
    if len(d) == 0:
        return torch.ones_like(d)
    everywhere = torch.zeros(len(d), dtype=torch.long, device=d.device)
    cut = h.clamp(max=float(h.quantile(quantile)))
    return soft_or(min_max(d, everywhere, 1), min_max(cut, everywhere, 1))


def balanced(
    weight: Tensor, count: Tensor, index: Tensor, size: int, *, low: float = 0.5, high: float = 2.0
) -> Tensor:
    """weight[K] divided by its segment's mean, where entry k stands for count[k] tokens, clamped to
    [low, high]. If no entry is clamped, the segment's mean weight is exactly 1."""
    mean = segment_sum(weight * count, index, size) / segment_sum(count, index, size)
    return (weight / mean[index]).clamp(low, high)


def sod(d: Tensor, first: Tensor, *, headroom: float = 0.5) -> Tensor:
    """SOD's weight of each turn (arXiv:2605.07725): min((d_first + e) / (d + e), 1 + headroom).

    d[K] and the index first[K] of each turn's first turn. The paper's running product of
    (d_u + e) / (d_{u+1} + e) telescopes to this.
    """
    return ((d[first] + EPS) / (d + EPS)).clamp(max=1 + headroom)
