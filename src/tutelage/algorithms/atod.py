"""ATOD (arXiv:2606.27814): a turn-weighted teacher gap that is annealed into the reward.

A_t = kappa(s) w_k gap_t + rho(s) A_GRPO,  gap_t = log q(y_t) - log p(y_t)
kappa falls from 1 to .1, rho rises from 1 to 2 over `anneal_steps`, then stay
w_k = 1 - (1 - d_k)(1 - h_k)
d_k, h_k = mean |gap|, mean -log p of turn k, each min-max over the episode
L = mean_t of PPO's clipped surrogate on A_t
"""

from typing import Literal

from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, Reinforce, View
from tutelage.schedules import constant, linear
from tutelage.signals import gap, group_relative, t_dur, token_dur


def atod(
    *,
    teacher: str = "teacher",
    kappa: float = 1.0,
    kappa_min: float = 0.1,
    rho: float = 1.0,
    rho_max: float = 2.0,
    anneal: bool = True,
    anneal_steps: int = 80,
    reweight: Literal["turn", "token", "none"] = "turn",
    balanced: bool = False,
    min_turns: int = 3,
    min_gap: float = 0.01,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Algorithm:
    """Args:
    anneal: move kappa and rho over anneal_steps; without it they stay where they start
    balanced: divide weights by their mean
    min_turns: turns of shorter episodes have weight 1
    min_gap: turns have weight 1 in episodes whose turns all differ from the teacher by less
    """
    if kappa_min > kappa or rho_max < rho:
        raise ValueError(
            f"kappa falls to kappa_min and rho rises to rho_max, got {kappa} to {kappa_min} and "
            f"{rho} to {rho_max}"
        )
    weight = {
        "turn": t_dur(min_turns=min_turns, min_gap=min_gap, balanced=balanced),
        "token": token_dur(balanced=balanced),
        "none": ONE,
    }[reweight]
    falling = linear(kappa, kappa_min, anneal_steps) if anneal else constant(kappa)
    rising = linear(rho, rho_max, anneal_steps) if anneal else constant(rho)
    advantage = falling * (weight * gap()) + rising * group_relative(std=std)
    term = Reinforce(advantage=advantage, surrogate=ppo_clip(clip, dual=dual_clip), name="atod")
    return Algorithm(terms=(term,), views={"teacher": View(policy=teacher)})
