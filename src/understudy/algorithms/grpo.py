"""GRPO (arXiv:2402.03300, eq. 3 and 4): a clipped policy gradient on rewards relative to the group.

A_i = (R_i - mean_group R) / (std_group R + 1e-6),  the same for every token of episode i
L = mean_t -min(r_t A, clip(r_t, 1 - clip, 1 + clip) A) + kl mean_t k3(p, p_reference)
"""

from typing import Literal

from understudy.maths.estimators import k3
from understudy.maths.surrogates import ppo_clip
from understudy.objective import ONE, Algorithm, DistillSampled, Entropy, Reinforce, Term, View
from understudy.signals import group_relative


def grpo(
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    dual_clip: float | None = 3.0,
    std: bool = True,
    kl: float = 0.0,
    entropy: float = 0.0,
    old: Literal["sampler", "recomputed"] = "sampler",
) -> Algorithm:
    """Statistics are over the group's episodes; `kl` pulls to the weights of the start, by k3."""
    surrogate = ppo_clip(clip, clip_high, dual_clip)
    terms: list[Term] = [
        Reinforce(credit=group_relative(std=std), surrogate=surrogate, old=old, name="grpo")
    ]
    views = {}
    if kl:
        pull = DistillSampled(teacher="reference", estimate=k3, weight=kl * ONE, name="kl")
        terms.append(pull)
        views["reference"] = View(policy="reference")
    if entropy:
        terms.append(Entropy(weight=entropy * ONE))
    return Algorithm(terms=tuple(terms), views=views)
