"""RLSD (arXiv:2604.03128): the reward gives the sign of an advantage, a hinted view its size.

A_t = A_GRPO (1 - s + s clip(exp(sign(A_GRPO) gap_t), 1 - width, 1 + width))
gap_t = log q(y_t) - log p(y_t) before the step
s falls from `strength` to 0 over `decay_steps`
L = mean_t of PPO's clipped surrogate on A_t
"""

from dataclasses import replace

from tutelage.algorithms.grpo import policy_gradient
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm, View
from tutelage.schedules import linear
from tutelage.signals import evidence, group_relative


def rlsd(
    *,
    hint: str = "skills",
    teacher: str = "self",
    strength: float = 0.5,
    decay_steps: int = 100,
    width: float = 0.2,
    std: bool = True,
    clip: float = 0.2,
    clip_high: float | None = None,
    dual_clip: float | None = 3.0,
    kl: float = 0.0,
) -> Algorithm:
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is a share of the advantage, from 0 to 1; got {strength}")
    reward = group_relative(std=std)
    advantage = reward * evidence(reward, linear(strength, 0.0, decay_steps), width=width)
    plain = policy_gradient(advantage, ppo_clip(clip, clip_high, dual_clip), name="rlsd", kl=kl)
    return replace(plain, views={**plain.views, "teacher": View(policy=teacher, hint=hint)})
