"""PCSD (arXiv:2608.01837): SDAR with a gate that opens where the teacher's support persists.

    L   = L_GRPO + coef mean_t w_t (sg log q(y_t) - log p(y_t))
    w_t = sigmoid(beta S_t) T_t
    S_t = (1 - r) D_t + r sum_j decay^j D_{t+j} / sum_j decay^j
    r   = clip((variance of D - .05) / (.5 - .05), 0, 1)
    T_t = clip(1 - .3 max(0, -slope of D / mean |D|), 0, 1)
    D_t = log q(y_t) - log p(y_t) before the step

Sum, variance, slope and mean are over the token and those after it in its turn, 8 in all; q is the
initial policy with a hint.
"""

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.sdar import beside
from tutelage.maths.estimators import log_ratio
from tutelage.objective import Algorithm, DistillSampled, View
from tutelage.schedules import Schedule
from tutelage.signals import persistent_weight


def pcsd(
    *,
    hint: str = "skills",
    teacher: str = "reference",
    coef: float | Schedule = 0.01,
    beta: float = 5.0,
    decay: float = 0.8,
    width: int = 8,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    teacher: the teacher policy; the paper's is the initial student
    decay: ratio of the weights of one token and the next
    width: how many tokens the gate looks at
    """
    reward = grpo(std=std, clip=clip, dual_clip=dual_clip, kl=kl)
    gate = persistent_weight(beta=beta, decay=decay, width=width)
    pull = DistillSampled(estimate=log_ratio, weight=coef * gate, name="pcsd")
    return beside(reward, pull, View(policy=teacher, hint=hint))
