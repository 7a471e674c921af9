"""Token-level credit: distribute an episode's advantage over tokens by a hinted teacher's scores.

Nothing here carries a gradient.

Shapes: N tokens, K turns, E episodes, G groups. gap[N] is log teacher - log student.
"""

import torch
from torch import Tensor

from tutelage.maths.segments import future_sum, segment_mean, segment_std, segment_sum

EPS = 1e-6
CERTAIN = 1e-4
"""A prior stays this far from 0 and 1, so that its logit is finite."""


def equal_turns(
    x: Tensor, turn: Tensor, episode: Tensor, size: int, *, limit: float = 2.0
) -> Tensor:
    """x[N] of turn[N] -> K, episode[K] -> E = size; each turn scaled so that its mean |x| is its
    episode's mean over turns, by at most `limit` and at least 1 / limit."""
    strength = segment_mean(x.abs(), turn, len(episode))
    target = segment_mean(strength, episode, size)[episode]
    factor = torch.where(strength > 0, target / strength.clamp(min=1e-12), 1.0)
    return x * factor.clamp(1 / limit, limit)[turn]


def beliefs(
    evidence: Tensor, prior: Tensor, episode: Tensor, *, gamma: float
) -> tuple[Tensor, Tensor]:
    """evidence[K] of consecutive turns, prior[E] in (0, 1), episode[K] -> each turn's belief in
    success after it and before it, [K] and [K].

    logit B_k = logit B_0 + sum_{j <= k} gamma^(k - j) evidence_j, and B_0 is the prior.
    """
    start = prior.clamp(CERTAIN, 1 - CERTAIN)
    grown = future_sum(evidence.flip(0), episode.flip(0), gamma).flip(0)
    after = torch.sigmoid(start.logit()[episode] + grown)
    before = start[episode].clone()
    same = episode[1:] == episode[:-1]
    before[1:] = torch.where(same, after[:-1], before[1:])
    return after, before


def standardised(x: Tensor, index: Tensor, size: int) -> Tensor:
    """x[N] with its segment's mean 0 and population deviation 1; 0 in a segment of equal values."""
    centred = x - segment_mean(x, index, size)[index]
    return centred / (segment_std(x, index, size)[index] + EPS)


def most(x: Tensor, index: Tensor, size: int, share: float) -> Tensor:
    """x[K] -> 1 for its segment's ceil(share count) largest, 0 for others; the first of equals."""
    by_value = x.argsort(descending=True, stable=True)
    order = by_value[index[by_value].argsort(stable=True)]
    count = segment_sum(torch.ones_like(x), index, size)
    first = (count.cumsum(0) - count)[index[order]]
    rank = torch.arange(len(x), device=x.device) - first
    # counts are integers: rounding of `share` must not turn 3 = .6 * 5 into 4
    allowed = (share * count - 1e-6).ceil()[index[order]]
    return torch.zeros_like(x).index_put((order,), (rank < allowed).to(x.dtype))


def covariance(confidence: Tensor, outcome: Tensor, group: Tensor, size: int) -> Tensor:
    """ADRS (arXiv:2608.03223): confidence[U] in (0, 1), outcome[U] of units in group[U] -> [size],
    the mean outcome weighted by confidence less that weighted by its complement. It has the sign
    of their covariance; 0 in groups of one."""
    outcome = outcome.to(confidence.dtype)

    def mean(weight: Tensor) -> Tensor:
        total = segment_sum(weight, group, size)
        return segment_sum(weight * outcome, group, size) / total.clamp(min=1e-8)

    many = segment_sum(torch.ones_like(confidence), group, size) > 1
    return torch.where(many, mean(confidence) - mean(1 - confidence), 0.0)


def windows(x: Tensor, turn: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """x[N] -> [N, width]: each entry and the next ones of its turn, and a mask of those that exist."""
    places = torch.arange(len(x), device=x.device)[:, None] + torch.arange(width, device=x.device)
    inside = places < len(x)
    places = places.clamp(max=max(len(x) - 1, 0))
    inside = inside & (turn[places] == turn[:, None])
    return torch.where(inside, x[places], 0.0), inside.to(x.dtype)


def persistence(
    gap: Tensor, turn: Tensor, *, decay: float, width: int, calm: float, wild: float, fall: float
) -> tuple[Tensor, Tensor]:
    """PCSD (arXiv:2608.01837): gap[N] -> a smoothed gap [N] and a trend factor [N] in [0, 1].

    smoothed  (1 - r) gap + r sum_j decay^j gap_{t+j} / sum_j decay^j over `width` tokens of the
              turn, r = clip((variance - calm) / (wild - calm), 0, 1) of the gap among them
    trend     clip(1 - fall max(0, -slope / mean |gap|), 0, 1), slope by least squares over them
    """
    ahead, there = windows(gap, turn, width)
    count = there.sum(-1)
    steps = torch.arange(width, dtype=gap.dtype, device=gap.device)
    weight = decay**steps * there
    average = (weight * ahead).sum(-1) / weight.sum(-1)
    mean = ahead.sum(-1) / count
    centred = (ahead - mean[:, None]) * there
    variance = (centred**2).sum(-1) / count
    mixed = ((variance - calm) / (wild - calm)).clamp(0, 1)
    time = (steps - ((steps * there).sum(-1) / count)[:, None]) * there
    slope = (time * centred).sum(-1) / (time**2).sum(-1).clamp(min=EPS)
    size = (ahead.abs().sum(-1) / count).clamp(min=EPS)
    trend = (1 - fall * (-slope / size).clamp(min=0)).clamp(0, 1)
    return (1 - mixed) * gap + mixed * average, trend


def segment_median(x: Tensor, index: Tensor, size: int) -> Tensor:
    """x[N], index[N] -> [size], the mean of the middle two where the count is even; 0 if empty.

    >>> segment_median(torch.tensor([5.0, 1.0, 2.0, 4.0]), torch.tensor([0, 0, 1, 1]), 3).tolist()
    [3.0, 3.0, 0.0]
    """
    if len(x) == 0:
        return x.new_zeros(size)
    by_value = x.argsort(stable=True)
    ranked = x[by_value[index[by_value].argsort(stable=True)]]
    count = segment_sum(torch.ones_like(index), index, size)
    first = count.cumsum(0) - count
    low, high = ((first + k).clamp(max=len(x) - 1) for k in ((count - 1) // 2, count // 2))
    return torch.where(count > 0, (ranked[low] + ranked[high]) / 2, 0.0)


def rank(x: Tensor, index: Tensor, size: int, *, split: float = 0.5) -> Tensor:
    """ICSD (arXiv:2608.14945): x[N] -> (0, 1), the distribution function of an asymmetric Laplace
    that is fitted to each segment: its median, and on either side the mean distance from it.

    x below the median m: split exp((x - m) / b-), else 1 - (1 - split) exp(-(x - m) / b+).
    """
    away = x - segment_median(x, index, size)[index]
    below = away < 0

    def spread(side: Tensor) -> Tensor:
        count = segment_sum(side.to(x.dtype), index, size).clamp(min=1)
        return (segment_sum(away.abs() * side, index, size) / count)[index].clamp(min=1e-12)

    tail = (-away.abs() / torch.where(below, spread(below), spread(~below))).exp()
    return torch.where(below, split * tail, 1 - (1 - split) * tail)


def reallocated(gate: Tensor, rank: Tensor, fixed: Tensor, turn: Tensor, size: int) -> Tensor:
    """gate[N] times rank[N], scaled so that each turn's sum is preserved; unchanged where
    `fixed`[N]."""
    moved = ~fixed
    before = segment_sum(gate * moved, turn, size)
    after = segment_sum(gate * rank * moved, turn, size).clamp(min=1e-300)
    return torch.where(fixed, gate, (before / after)[turn] * gate * rank)
