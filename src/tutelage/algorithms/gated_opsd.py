"""Gated OPSD (arXiv:2605.15155, the baseline it calls OPSD): SDAR without its policy gradient.

L = coef mean_t g_t (sg log q(y_t) - log p(y_t)) + kl mean_t k3(p, p_reference)

q is the same policy shown privileged information, g_t = sigmoid(beta (log q - log p)). No reward
is used. Not the OPSD of arXiv:2602.04942, which is `opsd`.
"""

from tutelage.algorithms.sdar import Gated, TokenLoss, gated
from tutelage.maths.estimators import k3
from tutelage.objective import ONE, Algorithm, DistillSampled, Term, View
from tutelage.schedules import Schedule
from tutelage.signals import GATES


def gated_opsd(
    *,
    hint: str = "skills",
    teacher: str = "self",
    gate: Gated = "gap",
    beta: float = 5.0,
    loss: TokenLoss = "sampled",
    coef: float | Schedule = 0.01,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    kl: weight of the KL to the initial weights
    """
    terms: list[Term] = [gated(GATES[gate](beta), loss, coef, name="gated_opsd")]
    views = {"teacher": View(policy=teacher, hint=hint)}
    if kl:
        pull = DistillSampled(teacher="reference", estimate=k3, weight=kl * ONE, name="kl")
        terms.append(pull)
        views["reference"] = View(policy="reference")
    return Algorithm(terms=tuple(terms), views=views)
