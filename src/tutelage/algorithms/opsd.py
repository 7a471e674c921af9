"""OPSD (arXiv:2602.04942): RL with a KL to the same policy with privileged information.

The student takes every turn; pT is the same weights with the hint in their prompt (section 3).
A_i = R_i - mean_group R, without std, and r = p / p_old, per token:

    L = -min(r A, clip(r) A) + beta KL(p || sg pT)

The ratio is clipped to [1 - clip, 1 + clip], the KL is over the full vocabulary and to the current
policy. The teacher shares the student's weights and moves with it, so the effect of the hint never
fades. With `teacher = "reference"` it is the policy at the start of the run.
"""

from typing import Literal

from tutelage.maths.divergences import reverse_kl
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, Distill, Reinforce, View
from tutelage.objective.penalties import leakage, length
from tutelage.schedules import Schedule
from tutelage.signals import episode_mean, episode_sum, group_relative, token_mean, varied


def opsd(
    *,
    hint: str = "plan",
    teacher: str = "self",
    beta: float | Schedule = 0.5,
    clip: float = 0.2,
    flat_groups: Literal["leave_out", "keep"] = "leave_out",
    reduction: Literal["token", "sum"] = "token",
    penalties: bool = False,
) -> Algorithm:
    """Args:
    teacher: the policy with the hint; the paper's is the student itself
    beta: weight of the KL, or a schedule; the paper sweeps 0, 0.1, 0.25 and 0.5
    flat_groups: groups of equal returns: excluded from every term, or kept with advantage 0
    reduction: mean over tokens, or the sum over an episode and the mean over episodes
    penalties: subtract the paper's penalties, for leakage and length, from the reward
    """
    counted = varied() if flat_groups == "leave_out" else ONE
    return Algorithm(
        terms=(
            Reinforce(advantage=group_relative(std=False), surrogate=ppo_clip(clip), name="reward"),
            Distill(divergence=reverse_kl, weight=beta * ONE, live=teacher == "self", name="kl"),
        ),
        views={"teacher": View(policy=teacher, hint=hint)},
        token_weight=token_mean(counted) if reduction == "token" else episode_sum(counted),
        minibatch_weight=None if reduction == "token" else episode_mean(counted),
        penalties={"leakage": leakage(), "length": length()} if penalties else {},
    )
