"""GRPO+OPSD (arXiv:2605.15155, a baseline): GRPO plus ungated distillation from the same policy with a hint.

    score       L = L_GRPO + coef mean_t (log p - log q)^2 / 2
    published   L = L_GRPO + coef mean_t (sg log q - log p) / 2

The gradient of score at a sampled token is sg(log p - log q) grad log p, in expectation that of
KL(p || q). Published is SDAR's loss with beta = 0: on the student's own samples its expected
gradient is zero.
"""

from typing import Literal

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.sdar import beside, gated
from tutelage.maths.estimators import k2
from tutelage.objective import ONE, Algorithm, DistillSampled, Term, View
from tutelage.schedules import Schedule
from tutelage.signals import gap_gate


def grpo_opsd(
    *,
    form: Literal["score", "published"] = "score",
    hint: str = "skills",
    teacher: str = "self",
    coef: float | Schedule = 0.01,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
    entropy: float = 0.0,
) -> Algorithm:
    """Args:
    form: "score" distils, "published" is what the released script computes
    """
    reward = grpo(std=std, clip=clip, dual_clip=dual_clip, kl=kl, entropy=entropy)
    pull: Term = (
        DistillSampled(estimate=k2, weight=coef * ONE, name="opsd")
        if form == "score"
        else gated(gap_gate(beta=0.0), "sampled", coef, name="opsd")
    )
    return beside(reward, pull, View(policy=teacher, hint=hint))
