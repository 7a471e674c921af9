"""Dr. GRPO (arXiv:2503.20783): GRPO without its normalisation by length and by standard deviation.

A_i = R_i - mean_group R
L = mean_i 1 / length sum_t -min(r_t A_i, clip(r_t, 1 - clip, 1 + clip) A_i)

`length` is one constant for all episodes. Divided by its own length instead, a long failure is
punished less per token than a short one; divided by the group's deviation, very easy and very hard
tasks count more than others.
"""

from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm, Reinforce
from tutelage.signals import episode_mean, episode_sum, group_relative


def dr_grpo(*, length: int = 3000, clip: float = 0.2) -> Algorithm:
    """Args:
    length: tokens that an episode's loss is divided by; it only sets the scale. The paper's is
        the largest number that an episode may have, rollout.max_turns x rollout.max_new_tokens
    """
    if length < 1:
        raise ValueError(f"length is a number of tokens and must be at least 1, got {length}")
    term = Reinforce(advantage=group_relative(std=False), surrogate=ppo_clip(clip), name="dr_grpo")
    return Algorithm(
        terms=(term,), token_weight=(1 / length) * episode_sum(), minibatch_weight=episode_mean()
    )
