"""AdaSwitch (arXiv:2510.07842): the student begins each turn, a teacher finishes it once they diverge.

With d_i = KL(p || q) at token i of the student's turn and its running mean m_i = ema m_{i-1} +
(1 - ema) d_i, the teacher q writes from the first i on at which d_i > factor m_{i-1} (and d_i >
floor). Per token, in one mean over all:

    student's tokens   reverse KL(p || q)     full, or the sampled-token policy gradient
    teacher's tokens   forward KL(q || p)     full, or cross-entropy on its own tokens
"""

from typing import Literal

from tutelage.maths.divergences import forward_kl, reverse_kl
from tutelage.maths.surrogates import ppo_clip, score_function
from tutelage.objective import STUDENT, Acting, Algorithm, Distill, Reinforce, Term, View
from tutelage.objective.takeover import Takeover
from tutelage.signals import acted_by, gap


def adaswitch(
    *,
    teacher: str = "teacher",
    factor: float = 1.5,
    ema: float = 0.95,
    floor: float = 0.0,
    student_tokens: Literal["sampled", "full"] = "full",
    teacher_tokens: Literal["sampled", "full"] = "full",
    clip: float = 0.2,
    dual_clip: float = 3.0,
) -> Algorithm:
    """Args:
    factor: the teacher takes over once the divergence exceeds this times its running mean
    ema: decay of that running mean
    floor: the divergence below which the student keeps the turn
    clip: PPO's clip, for sampled student tokens
    dual_clip: PPO's dual clip, for sampled student tokens
    """
    by_student, by_teacher = acted_by(STUDENT), acted_by("teacher")
    clipped = ppo_clip(clip, dual=dual_clip)
    own: dict[str, Term] = {
        "full": Distill(divergence=reverse_kl, weight=by_student, name="student_tokens"),
        "sampled": Reinforce(
            advantage=gap() * by_student, surrogate=clipped, name="student_tokens"
        ),
    }
    rest: dict[str, Term] = {
        "full": Distill(divergence=forward_kl, weight=by_teacher, name="teacher_tokens"),
        "sampled": Reinforce(
            advantage=by_teacher, surrogate=score_function(), name="teacher_tokens"
        ),
    }
    return Algorithm(
        terms=(own[student_tokens], rest[teacher_tokens]),
        views={"teacher": View(policy=teacher)},
        acting=Acting(takeover=Takeover(view="teacher", factor=factor, ema=ema, floor=floor)),
    )
