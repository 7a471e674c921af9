"""REINFORCE++ (arXiv:2501.03262): advantages normalised over the whole batch instead of each group.

A_t = R - kl sum_{u >= t} KL(u),  KL(u) = log p_old(y_u) - log p_reference(y_u)        (eq. 4)
Â_t = (A_t - mean_batch A) / (std_batch A + 1e-8),  over all tokens of the step        (eq. 5)
L = mean_t -min(r_t Â_t, clip(r_t, 1 - clip, 1 + clip) Â_t)

With baseline, R is R - mean_group R (eq. 6), still without the group's deviation. The paper pairs
it with the KL as a loss of its own, + kl mean_t k2(p, p_reference) (eq. 8), instead of in the
reward: baseline = true, kl_in = "loss", estimate = "k2".
"""

from typing import Literal

from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, DistillSampled, Reinforce, Term, View
from tutelage.signals import batch_normalised, drift, episode_return, group_relative, to_come
from tutelage.signals.advantages import ESTIMATES


def reinforce_pp(
    *,
    baseline: bool = False,
    kl: float = 0.01,
    kl_in: Literal["reward", "loss"] = "reward",
    estimate: Literal["k1", "k2", "k3"] = "k1",
    clip: float = 0.2,
) -> Algorithm:
    """Args:
    baseline: subtract the group's mean first; without it, rollout.group_size may be 1
    estimate: estimator of the KL to the initial weights from sampled tokens
    """
    if kl and kl_in == "loss" and estimate == "k1":
        raise ValueError('k1 as a loss has an expected gradient of 0; choose estimate = "k2"')
    earned = group_relative(std=False) if baseline else episode_return()
    if kl and kl_in == "reward":
        earned = earned + (-kl) * to_come(drift(estimate=estimate))
    terms: list[Term] = [
        Reinforce(advantage=batch_normalised(earned), surrogate=ppo_clip(clip), name="reinforce_pp")
    ]
    if kl and kl_in == "loss":
        pull = ESTIMATES[estimate]
        terms.append(DistillSampled(teacher="reference", estimate=pull, weight=kl * ONE, name="kl"))
    views = {"reference": View(policy="reference")} if kl else {}
    return Algorithm(terms=tuple(terms), views=views)
