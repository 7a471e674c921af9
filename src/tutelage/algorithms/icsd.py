"""ICSD (arXiv:2608.14945): SDAR with weights on tokens where teacher and reward agree.

    L   = L_GRPO + coef mean_t c_t (sg log q(y_t) - log p(y_t))
    D_t = log q(y_t) - log p(y_t)
    g_t = sigmoid(beta D_t)
    u_t = A_GRPO (p / p_old) D_t
    c_t = g_t where A < 0 and D_t < 0, else alpha g_t F(u_t)

F is the distribution function of an asymmetric Laplace fitted to the turn's u: its median, and the
mean distance from it on either side. alpha preserves the turn's sum of weights. q is the same weights
with a hint; c_t is computed before the step.
"""

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.sdar import beside
from tutelage.maths.estimators import log_ratio
from tutelage.objective import Algorithm, DistillSampled, View
from tutelage.schedules import Schedule
from tutelage.signals import group_relative, influence_weight


def icsd(
    *,
    hint: str = "skills",
    teacher: str = "self",
    coef: float | Schedule = 0.01,
    beta: float = 5.0,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    beta: sharpness of the gate g_t
    """
    reward = grpo(std=std, clip=clip, dual_clip=dual_clip, kl=kl)
    gate = influence_weight(group_relative(std=std), beta=beta)
    pull = DistillSampled(estimate=log_ratio, weight=coef * gate, name="icsd")
    return beside(reward, pull, View(policy=teacher, hint=hint))
