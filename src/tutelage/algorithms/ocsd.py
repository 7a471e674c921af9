"""OCSD (arXiv:2608.04788): GRPO with advantages scaled by hindsight of the next observations.

    e_t = log F(y_t) - log B(y_t)
    F: the same weights, shown the next two observations
    B: shown the same with the observations withheld
    A_t = A_GRPO (1 + strength sign(A) tanh(e_t / 2)) in uncertain turns
    A_t = A_GRPO in all others
    L   = mean_t of PPO's clipped surrogate on A_t

Uncertain is the `share` of an episode's turns with the largest mean -log p. No skills and no
teacher are needed.
"""

from dataclasses import replace

from tutelage.algorithms.grpo import policy_gradient
from tutelage.hints.hindsight import next_observations
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm, View
from tutelage.signals import group_relative, residual_weight


def ocsd(
    *,
    teacher: str = "self",
    observations: int = 2,
    strength: float = 0.5,
    share: float = 0.2,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    observations: how many later observations the full view is shown
    strength: how much they change the advantage
    share: the share of an episode's turns in which they do
    """
    reward = group_relative(std=std)
    advantage = reward * residual_weight(reward, strength=strength, share=share)
    plain = policy_gradient(advantage, ppo_clip(clip, dual=dual_clip), name="ocsd", kl=kl)
    full, ablated = (
        View(policy=teacher, hindsight=next_observations(observations, ablated=without))
        for without in (False, True)
    )
    return replace(plain, views={**plain.views, "full": full, "ablated": ablated})
