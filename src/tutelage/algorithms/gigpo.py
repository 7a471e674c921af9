"""GiGPO (arXiv:2505.10978): group-relative advantages of episodes, and of turns that share a state.

A^E_i = (R_i - mean_group R) / F,                                                      (eq. 3)
G_k = sum_{l >= k} gamma^(l - k) r_l                                                   (eq. 5)
A^S_k = (G_k - mean G) / F,  over all turns of the group that began in the same state  (eq. 7)
A = A^E + weight A^S                                                                   (eq. 8)
L = mean_t -min(r_t A, clip(r_t, 1 - clip, 1 + clip) A) + kl mean_t k3(p, p_reference) (eq. 9)

F is the standard deviation (+ 1e-6), or 1 without `std`. A state that no other turn visited gives
A^S = 0. States are the environment's own (`Observation.state`).
"""

from tutelage.algorithms.grpo import policy_gradient
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm
from tutelage.signals import group_relative, state_relative


def gigpo(
    *,
    gamma: float = 0.95,
    weight: float = 1.0,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
    entropy: float = 0.0,
) -> Algorithm:
    """Args:
    weight: weight of the turn advantage, the paper's omega
    kl: weight of the KL to the initial weights, by k3
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma discounts later rewards and must lie in [0, 1], got {gamma}")
    advantage = group_relative(std=std) + weight * state_relative(gamma, std=std)
    surrogate = ppo_clip(clip, dual=dual_clip)
    return policy_gradient(advantage, surrogate, name="gigpo", kl=kl, entropy=entropy)
