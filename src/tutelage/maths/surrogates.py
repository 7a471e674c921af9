"""Policy-gradient surrogates per token: (logp, old logp, advantage) [N] -> loss [N]."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Surrogate = Callable[[Tensor, Tensor, Tensor], Tensor]

LOG_RATIO_LIMIT = 20.0
"""Log ratios are clamped to +-20, so that exp stays finite: a token whose advantage is exactly zero
then adds zero, and not zero times infinity."""


def ratio(logp: Tensor, old: Tensor) -> Tensor:
    """Importance ratio p / p_old of sampled tokens, [N], [N] -> [N]."""
    return (logp - old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def score_function() -> Surrogate:
    """REINFORCE, -A log p: exact when the sampler is the current policy."""
    return lambda logp, old, advantage: -advantage * logp


def importance() -> Surrogate:
    """Unclipped importance sampling, -A p / p_old."""
    return lambda logp, old, advantage: -advantage * ratio(logp, old)


def ppo_clip(low: float = 0.2, high: float | None = None, dual: float | None = None) -> Surrogate:
    """Pessimistic clipping of the ratio to [1 - low, 1 + high] (PPO, arXiv:1707.06347, eq. 7).

    With `dual` = c, a negative advantage is also bounded below by c A (dual clip,
    arXiv:1912.09729, eq. 5), so that one token with a huge ratio cannot dominate the batch.
    """
    top = low if high is None else high
    if not (0 <= low <= 1 and top >= 0):
        raise ValueError(f"a clip range needs 0 <= low <= 1 and high >= 0, got {low} and {top}")
    if dual is not None and dual <= 1:
        raise ValueError(f"a dual clip must be greater than 1, got {dual}")
    return Clipped(low=low, high=top, dual=dual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """What `ppo_clip` gives: the loss, and which tokens it clips."""

    low: float
    high: float
    dual: float | None

    def __call__(self, logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        r = ratio(logp, old)
        gain = torch.minimum(r * advantage, r.clamp(1 - self.low, 1 + self.high) * advantage)
        if self.dual is not None:
            gain = torch.where(advantage < 0, torch.maximum(gain, self.dual * advantage), gain)
        return -gain

    def clips(self, r: Tensor, advantage: Tensor) -> Tensor:
        """Of ratios [N] and advantages [N]: the tokens [N] whose loss has no gradient any more."""
        up, down = (advantage > 0) & (r > 1 + self.high), (advantage < 0) & (r < 1 - self.low)
        cut = up | down
        return cut if self.dual is None else cut | ((advantage < 0) & (r > self.dual))
