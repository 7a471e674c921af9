"""SDAR (arXiv:2605.15155): GRPO plus gated distillation from the same policy with a hint.

L = L_GRPO + coef mean_t g_t (sg log q(y_t) - log p(y_t))

    gap       g_t = sigmoid(beta D_t),  D_t = log q(y_t) - log p(y_t)
    entropy   g_t = sigmoid(beta h_t),  h_t = the student's entropy
    soft_or   g_t = sigmoid(beta (1 - (1 - h_t)(1 - D_t))),  h_t over log V

q is the same weights with the hint in the prompt, as they were before the step. Gates pass no
gradient and follow the student. With `loss` the gated token loss is KL(q || p), KL(p || q) or
Jensen-Shannon over the vocabulary instead.
"""

from dataclasses import replace
from typing import Literal

from tutelage.algorithms.grpo import grpo
from tutelage.maths.divergences import forward_kl, jensen_shannon, reverse_kl
from tutelage.maths.estimators import log_ratio
from tutelage.objective import (
    ONE,
    Algorithm,
    Distill,
    DistillSampled,
    Gate,
    Term,
    View,
)
from tutelage.schedules import Schedule
from tutelage.signals import GATES

Gated = Literal["gap", "entropy", "soft_or"]
TokenLoss = Literal["sampled", "forward", "reverse", "jsd"]
DIVERGENCES = {"forward": forward_kl, "reverse": reverse_kl, "jsd": jensen_shannon}


def sdar(
    *,
    hint: str = "skills",
    teacher: str = "self",
    gate: Gated = "gap",
    beta: float = 5.0,
    loss: TokenLoss = "sampled",
    coef: float | Schedule = 0.01,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
    entropy: float = 0.0,
) -> Algorithm:
    reward = grpo(std=std, clip=clip, dual_clip=dual_clip, kl=kl, entropy=entropy)
    pull = gated(GATES[gate](beta), loss, coef, name="sdar")
    return beside(reward, pull, View(policy=teacher, hint=hint))


def gated(gate: Gate, loss: TokenLoss, coef: float | Schedule, *, name: str) -> Term:
    """SDAR's own part of the loss."""
    if loss == "sampled":
        return DistillSampled(estimate=log_ratio, gate=gate, weight=coef * ONE, name=name)
    return Distill(divergence=DIVERGENCES[loss], gate=gate, weight=coef * ONE, name=name)


def beside(reward: Algorithm, pull: Term, teacher: View) -> Algorithm:
    """An algorithm with one more term, which reads one more view."""
    terms, views = (*reward.terms, pull), {**reward.views, "teacher": teacher}
    return replace(reward, terms=terms, views=views)
