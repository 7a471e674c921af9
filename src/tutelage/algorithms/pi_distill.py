"""pi-Distill (arXiv:2602.04942): the policy with privileged information acts, and distils into itself without.

pT is the policy with the hint in its prompt, pS the same weights without; every turn is pT's
(section 3). A_i = R_i - mean_group R, without std, and r = p / pT_sampled, per token:

    teacher   L_T = -min(r_T A, clip(r_T) A) + beta KL(pT || sg pS)
    student   L_S = -min(r_S A, clip(r_S) A) + beta KL(sg pT || pS)
    L = alpha L_T + (1 - alpha) L_S

Ratios are clipped to [1 - clip, 1 + clip], both KLs are over the full vocabulary and between the
current policies. If a task has no hint, pT = pS, and only the clipped policy gradient is left.
"""

from typing import Literal

from tutelage.maths.divergences import forward_kl, reverse_kl
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, STUDENT, Algorithm, Distill, Reinforce, View
from tutelage.objective.penalties import leakage, length
from tutelage.schedules import Schedule, constant, linear
from tutelage.signals import episode_mean, episode_sum, group_relative, token_mean, varied


def pi_distill(
    *,
    total_steps: int,
    hint: str = "plan",
    alpha: float = 0.5,
    ramp: float = 0.0,
    beta: float | Schedule = 0.25,
    clip: float = 0.2,
    flat_groups: Literal["leave_out", "keep"] = "leave_out",
    reduction: Literal["token", "sum"] = "token",
    penalties: bool = False,
) -> Algorithm:
    """Args:
    alpha: the teacher's share of the loss
    ramp: share of training over which alpha rises from 0
    beta: weight of both KLs, or a schedule
    flat_groups: groups of equal returns: excluded from every term, or kept with advantage 0
    reduction: mean over tokens, or the sum over an episode and the mean over episodes
    penalties: subtract the paper's penalties, for leakage and length, from the reward
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the teacher's share of the loss, from 0 to 1; got {alpha}")
    if not 0 <= ramp <= 1:
        raise ValueError(f"ramp is a share of training, from 0 to 1; got {ramp}")
    steps = max(1, round(ramp * total_steps))
    rising = linear(0.0, alpha, steps) if ramp else constant(alpha)
    teacher_weight, student_weight = rising * ONE, (lambda step: 1.0 - rising(step)) * ONE
    advantage, clipped = group_relative(std=False), ppo_clip(clip)
    counted = varied() if flat_groups == "leave_out" else ONE
    return Algorithm(
        terms=(
            Reinforce(
                advantage=teacher_weight * advantage,
                surrogate=clipped,
                trains="teacher",
                name="teacher",
            ),
            Distill(
                divergence=reverse_kl,
                weight=beta * teacher_weight,
                live=True,
                name="teacher_kl",
                trains="teacher",
                teacher=STUDENT,
            ),
            Reinforce(advantage=student_weight * advantage, surrogate=clipped, name="student"),
            Distill(
                divergence=forward_kl, weight=beta * student_weight, live=True, name="student_kl"
            ),
        ),
        views={"teacher": View(policy="self", hint=hint)},
        actors={"teacher": constant(1.0)},
        token_weight=token_mean(counted) if reduction == "token" else episode_sum(counted),
        minibatch_weight=None if reduction == "token" else episode_mean(counted),
        penalties={"leakage": leakage(), "length": length()} if penalties else {},
    )
