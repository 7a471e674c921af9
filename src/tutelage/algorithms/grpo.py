"""GRPO (arXiv:2402.03300, eq. 3 and 4): a clipped policy gradient on group-relative advantages.

A_i = (R_i - mean_group R) / (std_group R + 1e-6),  the same for every token of episode i
L = mean_t -min(r_t A, clip(r_t, 1 - clip, 1 + clip) A) + kl mean_t k3(p, p_reference)

With statistics = "turn", samples are single turns: s = (return before penalties) - (the turn's own
penalty), mean and sample standard deviation are over all turns of the group's episodes, and a group
of one turn has mean 0 and deviation 1. Long episodes then weigh more in both.
"""

from typing import Literal

from tutelage.maths.estimators import k3
from tutelage.maths.surrogates import Surrogate, ppo_clip
from tutelage.objective import (
    ONE,
    Algorithm,
    DistillSampled,
    Entropy,
    Reinforce,
    Signal,
    Term,
    View,
)
from tutelage.signals import group_relative, turn_relative

Old = Literal["sampler", "recomputed"]


def grpo(
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    dual_clip: float | None = 3.0,
    std: bool = True,
    statistics: Literal["episode", "turn"] = "episode",
    kl: float = 0.0,
    entropy: float = 0.0,
    old: Old = "sampler",
) -> Algorithm:
    """Args:
    statistics: mean and deviation are over the group's episodes, or over their turns
    kl: weight of the KL to the initial weights, by k3
    """
    advantage = {"episode": group_relative, "turn": turn_relative}[statistics](std=std)
    surrogate = ppo_clip(clip, clip_high, dual_clip)
    return policy_gradient(advantage, surrogate, name="grpo", kl=kl, entropy=entropy, old=old)


def policy_gradient(
    advantage: Signal,
    surrogate: Surrogate,
    *,
    name: str,
    kl: float = 0.0,
    entropy: float = 0.0,
    old: Old = "sampler",
) -> Algorithm:
    """Policy gradient of an advantage, + kl mean k3(p, p_reference) - entropy mean H(p)."""
    terms: list[Term] = [Reinforce(advantage=advantage, surrogate=surrogate, old=old, name=name)]
    views = {}
    if kl:
        pull = DistillSampled(teacher="reference", estimate=k3, weight=kl * ONE, name="kl")
        terms.append(pull)
        views["reference"] = View(policy="reference")
    if entropy:
        terms.append(Entropy(weight=entropy * ONE))
    return Algorithm(terms=tuple(terms), views=views)
