"""DAPO (arXiv:2503.14476): GRPO with a higher upper clip that learns only from groups of unequal returns.

A_i = (R_i - mean_group R) / (std_group R + 1e-6),  R_i = r_i - overlong_i                (eq. 9)
L = mean_t -min(r_t A_i, clip(r_t, 1 - clip, 1 + clip_high) A_i)                          (eq. 8)

The mean is over the tokens of groups whose returns are not all equal (eq. 11), and there is no
KL term. overlong_i rises from 0 to `overlong` in the last `buffer` of `limit` tokens (eq. 13).
"""

from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Acting, Algorithm, Reinforce
from tutelage.objective.penalties import overlong as overlong_penalty
from tutelage.signals import group_relative, token_mean, varied


def dapo(
    *,
    clip: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
    max_batches: int = 1,
    overlong: float = 0.0,
    limit: int = 20_480,
    buffer: int = 4_096,
) -> Algorithm:
    """Args:
    max_batches: dynamic sampling: most batches of new tasks to play until
        rollout.tasks_per_step groups have unequal returns
    overlong: the largest length penalty; the paper's is 1, with rewards of +-1; 0 for none
    """
    if max_batches < 1:
        raise ValueError(f"max_batches of tasks must be at least 1, got {max_batches}")
    surrogate = ppo_clip(clip, clip_high, dual_clip)
    term = Reinforce(advantage=group_relative(), surrogate=surrogate, name="dapo")
    penalty = overlong_penalty(limit=limit, buffer=buffer, most=overlong)
    return Algorithm(
        terms=(term,),
        token_weight=token_mean(varied()),
        penalties={"overlong": penalty} if overlong else {},
        acting=Acting(max_batches=max_batches),
    )
