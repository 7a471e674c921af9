"""Guided-OPD (arXiv:2606.15912): a teacher takes some turns, fewer as training proceeds.

Each turn is the teacher's with probability beta(step), drawn independently; beta falls from `start` to
exactly `end` over the first `decay` of training (section 3.3). Per token, in one mean over all:

    student's turns   KL(p || q), reverse    full, top-k, or policy gradient
    teacher's turns   KL(q || p), forward    full, top-k of a text-only teacher, or cross-entropy

Either direction can be exchanged for the other: the paper's ablation.
"""

from typing import Literal

from tutelage.algorithms.opd import Vocabulary
from tutelage.maths.divergences import forward_kl, reverse_kl, top_k
from tutelage.maths.estimators import k3
from tutelage.maths.surrogates import importance, ppo_clip, score_function
from tutelage.objective import (
    STUDENT,
    TOP_LOGPROBS,
    Algorithm,
    Distill,
    DistillRecorded,
    DistillSampled,
    Reinforce,
    Signal,
    Term,
    View,
)
from tutelage.schedules import SHAPES, constant
from tutelage.signals import acted_by, gap

Direction = Literal["reverse", "forward"]
TeacherTurns = Literal["sampled", "full", "topk"]
KL = {"reverse": reverse_kl, "forward": forward_kl}


def guided_opd(
    *,
    total_steps: int,
    teacher: str = "teacher",
    start: float = 1.0,
    end: float = 0.0,
    decay: float = 0.8,
    curriculum: Literal["cosine", "linear", "exponential", "fixed"] = "cosine",
    student_turns: Vocabulary = "full",
    teacher_turns: TeacherTurns = "full",
    student_kl: Direction = "reverse",
    teacher_kl: Direction = "forward",
    k: int = 64,
    clip: float = 0.2,
    dual_clip: float = 3.0,
) -> Algorithm:
    """Args:
    start: initial probability of a teacher's turn; "fixed" keeps it
    teacher_turns: the same on the teacher's turns; "topk" are the log-probabilities that a teacher
        asked in messages tells of at most 20 likely tokens, all others as one
    k: vocabulary entries that top-k keeps, on student turns
    clip: PPO's clip, for sampled student turns
    dual_clip: PPO's dual clip, for sampled student turns
    """
    student_acted, guided = acted_by(STUDENT), acted_by("teacher")
    if student_turns != "sampled":
        of = KL[student_kl] if student_turns == "full" else top_k(KL[student_kl], k)
        student_term: Term = Distill(divergence=of, weight=student_acted, name="student_turns")
    elif student_kl == "reverse":
        surrogate = ppo_clip(clip, dual=dual_clip)
        student_term = Reinforce(
            advantage=gap() * student_acted, surrogate=surrogate, name="student_turns"
        )
    else:  # the expected gradient of k3 on the student's own tokens is forward KL's
        student_term = DistillSampled(estimate=k3, weight=student_acted, name="student_turns")
    likely = TOP_LOGPROBS if teacher_turns == "topk" else 0
    if curriculum == "fixed":
        beta = constant(start)
    else:
        beta = SHAPES[curriculum](start, end, max(1, round(decay * total_steps)))
    return Algorithm(
        terms=(student_term, _imitation(teacher_turns, teacher_kl, guided)),
        views={"teacher": View(policy=teacher, top_logprobs=likely)},
        actors={"teacher": beta},
    )


def _imitation(vocabulary: TeacherTurns, kl: Direction, guided: Signal) -> Term:
    """The loss of the teacher's turns."""
    if vocabulary == "topk":
        if kl != "forward":
            raise ValueError(
                'teacher_turns = "topk" is a forward KL, since the student may give mass to tokens '
                'of which the teacher tells nothing; set teacher_kl = "forward"'
            )
        return DistillRecorded(weight=guided, name="teacher_turns")
    if vocabulary == "full":
        return Distill(divergence=KL[kl], weight=guided, name="teacher_turns")
    if kl == "forward":
        return Reinforce(advantage=guided, surrogate=score_function(), name="teacher_turns")
    # p_old is the teacher here: only the unclipped ratio p / q makes these samples of p
    return Reinforce(advantage=gap() * guided, surrogate=importance(), name="teacher_turns")
