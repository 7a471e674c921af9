"""SOD (arXiv:2605.07725): GRPO plus a teacher gap that fades on turns far from the teacher.

A_t = A_GRPO + coef w_k gap_t,  gap_t = log q(y_t) - log p(y_t)
w_k = min((d_1 + 1e-6) / (d_k + 1e-6), 1 + headroom),  w_1 = 1
d_k = mean |gap| of turn k's tokens
L = mean_t of PPO's clipped surrogate on A_t
"""

from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm, Reinforce, View
from tutelage.schedules import Schedule
from tutelage.signals import gap, group_relative, sod_weight


def sod(
    *,
    teacher: str = "teacher",
    coef: float | Schedule = 1.0,
    headroom: float = 0.5,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Algorithm:
    """Args:
    coef: weight of the teacher against the reward, or a schedule
    headroom: how far a turn's weight may exceed 1
    """
    advantage = group_relative(std=std) + coef * (sod_weight(headroom=headroom) * gap())
    term = Reinforce(advantage=advantage, surrogate=ppo_clip(clip, dual=dual_clip), name="sod")
    return Algorithm(terms=(term,), views={"teacher": View(policy=teacher)})
