"""Guided-OPD (arXiv:2606.15912): a teacher takes some turns, fewer as training goes on.

Each turn is the teacher's with chance beta(step), drawn independently; beta falls from `start` to
exactly `end` over the first `decay` of training (section 3.3). Per token, in one mean over all:

    student's turns   reverse KL(p || q)     full, or the sampled-token policy gradient
    teacher's turns   forward KL(q || p)     full, or cross-entropy on the teacher's tokens
"""

from typing import Literal

from understudy.maths.divergences import forward_kl, reverse_kl
from understudy.maths.surrogates import ppo_clip, score_function
from understudy.objective import STUDENT, Algorithm, Distill, Reinforce, Term, View
from understudy.schedules import SHAPES
from understudy.signals import acted_by, gap


def guided_opd(
    *,
    total_steps: int,
    teacher: str = "teacher",
    start: float = 1.0,
    end: float = 0.0,
    decay: float = 0.8,
    curriculum: Literal["cosine", "linear", "exponential"] = "cosine",
    student_turns: Literal["sampled", "full"] = "full",
    teacher_turns: Literal["sampled", "full"] = "full",
    clip: float = 0.2,
    dual_clip: float = 3.0,
) -> Algorithm:
    """`clip` and `dual_clip` bound the policy gradient of sampled student turns."""
    mine, guided = acted_by(STUDENT), acted_by("teacher")
    reverse: dict[str, Term] = {
        "full": Distill(divergence=reverse_kl, weight=mine, name="reverse_kl"),
        "sampled": Reinforce(
            credit=gap() * mine, surrogate=ppo_clip(clip, dual=dual_clip), name="reverse_kl"
        ),
    }
    forward: dict[str, Term] = {
        "full": Distill(divergence=forward_kl, weight=guided, name="forward_kl"),
        "sampled": Reinforce(credit=guided, surrogate=score_function(), name="forward_kl"),
    }
    beta = SHAPES[curriculum](start, end, max(1, round(decay * total_steps)))
    return Algorithm(
        terms=(reverse[student_turns], forward[teacher_turns]),
        views={"teacher": View(policy=teacher)},
        actors={"teacher": beta},
    )
