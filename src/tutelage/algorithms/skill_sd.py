"""Skill-SD (arXiv:2604.10674): GRPO plus reverse KL to the same policy with a skill.

L = L_GRPO + coef mean_t r_t k3_t,  r_t = p / p_old with gradient
k3_t = exp(gap) - 1 - gap,  gap = log q(y_t) - log p(y_t)

r_t makes the gradient that of reverse KL, r_t (log p - log q) grad log p; k3_t alone would have
that of forward KL.
"""

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.sdar import beside
from tutelage.maths.estimators import k3
from tutelage.objective import ONE, Algorithm, DistillSampled, View
from tutelage.schedules import Schedule


def skill_sd(
    *,
    hint: str = "skills",
    teacher: str = "self",
    coef: float | Schedule = 0.001,
    std: bool = True,
    clip: float = 0.2,
    clip_high: float | None = 0.28,
    dual_clip: float | None = None,
    kl: float = 0.0,
) -> Algorithm:
    reward = grpo(std=std, clip=clip, clip_high=clip_high, dual_clip=dual_clip, kl=kl)
    pull = DistillSampled(estimate=k3, corrected=True, weight=coef * ONE, name="skill_sd")
    return beside(reward, pull, View(policy=teacher, hint=hint))
