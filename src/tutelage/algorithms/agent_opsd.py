"""AgentOPSD (arXiv:2608.05987): GRPO that moves the advantage to turns that change the belief in success.

    D_t = log q(y_t) - log p(y_t),  q: the same weights with a hint
    e_k = sum of D_t over turn k
    logit B_k = logit B_0 + sum_{j <= k} gamma^(k - j) e_j
    B_0 = the group's success rate
    z_k = standardised sign(A) (B_k - B_{k-1}) within the episode
    w_k = clip(1 + band z_k, 1 - band, 1 + band)
    A_k = A_GRPO ((1 - strength) + strength w_k)
    L   = mean_t of PPO's clipped surrogate on A_k

There is no distillation loss.
"""

from dataclasses import replace

from tutelage.algorithms.grpo import policy_gradient
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, View
from tutelage.signals import belief_weight, group_relative


def agent_opsd(
    *,
    hint: str = "skills",
    teacher: str = "self",
    gamma: float = 0.95,
    band: float = 0.2,
    strength: float = 0.5,
    std: bool = True,
    clip: float = 0.2,
    clip_high: float | None = 0.24,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    gamma: discount of a turn's evidence per later turn
    band: how far a turn's weight may be from 1
    strength: the share of the advantage that is reweighted
    """
    if not 0 <= strength <= 1 or not 0 <= band < 1:
        raise ValueError(f"strength lies in [0, 1] and band in [0, 1), got {strength} and {band}")
    reward = group_relative(std=std)
    weight = (1 - strength) * ONE + strength * belief_weight(reward, gamma=gamma, band=band)
    surrogate = ppo_clip(clip, clip_high, dual_clip)
    plain = policy_gradient(reward * weight, surrogate, name="agent_opsd", kl=kl)
    return replace(plain, views={**plain.views, "teacher": View(policy=teacher, hint=hint)})
