"""OPSD (arXiv:2602.04942): RL that stays near the same policy shown privileged information.

The student takes every turn; pT is the same weights with the hint in their prompt (section 3).
A_i = R_i - mean_group R, without std, and r = p / p_old, per token:

    L = -min(r A, clip(r) A) + beta KL(p || sg pT)

The ratio is clipped to [1 - clip, 1 + clip], the KL is over the whole vocabulary and to the policy
of now. The teacher shares the student's weights, so it moves as the student does: whatever sets
the two apart keeps pulling. With `teacher = "reference"` it is the policy that the run began with.
"""

from typing import Literal

from tutelage.maths.divergences import reverse_kl
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, Distill, Reinforce, View
from tutelage.objective.penalties import leakage, length
from tutelage.signals import episode_mean, episode_sum, group_relative, token_mean, varied


def opsd(
    *,
    hint: str = "plan",
    teacher: str = "self",
    beta: float = 0.5,
    clip: float = 0.2,
    flat_groups: Literal["leave_out", "keep"] = "leave_out",
    reduction: Literal["token", "sum"] = "token",
    penalties: bool = False,
) -> Algorithm:
    """Args:
    teacher: the policy that is shown the hint: the paper's is the student itself
    flat_groups: groups of equal returns: left out of every term, or kept without an advantage
    reduction: one mean over tokens, or an episode's sum and the mean over episodes
    penalties: subtract the paper's penalties, for leakage and length, from the reward
    """
    kept = varied() if flat_groups == "leave_out" else ONE
    return Algorithm(
        terms=(
            Reinforce(advantage=group_relative(std=False), surrogate=ppo_clip(clip), name="reward"),
            Distill(divergence=reverse_kl, weight=beta * ONE, live=teacher == "self", name="kl"),
        ),
        views={"teacher": View(policy=teacher, hint=hint)},
        token_weight=token_mean(kept) if reduction == "token" else episode_sum(kept),
        minibatch_weight=None if reduction == "token" else episode_mean(kept),
        penalties={"leakage": leakage(), "length": length()} if penalties else {},
    )
