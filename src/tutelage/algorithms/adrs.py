"""ADRS (arXiv:2608.03223): GRPO with a hinted teacher's score of each token added to the advantage.

    x_t = (log q(y_t) - its mean over the turn) / its deviation
    d   = mean return weighted by confidence c - mean weighted by 1 - c
    A_t = A_GRPO + eta Z_t,  Z: sigmoid(2 d) x_t, whitened over the group
    L   = mean_t of PPO's clipped surrogate on A_t

q is the same weights with a hint. The confidence of an episode, or of a turn, is a sigmoid of its
mean log q less the step's mean; d compares those of one group, or of one state.
"""

from dataclasses import replace
from typing import Literal

from tutelage.algorithms.grpo import policy_gradient
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm, View
from tutelage.signals import group_relative, relative_support, reliability, whitened


def adrs(
    *,
    hint: str = "skills",
    teacher: str = "self",
    eta: float = 0.1,
    units: Literal["episode", "state", "none"] = "episode",
    scale: Literal["batch", "episode"] = "batch",
    std: bool = True,
    clip: float = 0.2,
    clip_high: float | None = 0.28,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
    entropy: float = 0.01,
) -> Algorithm:
    """Args:
    eta: weight of the teacher's score beside the reward
    units: what the teacher's reliability is estimated from: episodes, turns in one state, or
        nothing (weight 1). From episodes it is one factor for a whole group, which the whitening
        divides out again: only "state" changes what is learnt.
    scale: what the score's deviation is taken over
    """
    opinion = relative_support(scale=scale)
    if units != "none":
        opinion = reliability(units=units) * opinion
    advantage = group_relative(std=std) + eta * whitened(opinion)
    surrogate = ppo_clip(clip, clip_high, dual_clip)
    plain = policy_gradient(advantage, surrogate, name="adrs", kl=kl, entropy=entropy)
    return replace(plain, views={**plain.views, "teacher": View(policy=teacher, hint=hint)})
