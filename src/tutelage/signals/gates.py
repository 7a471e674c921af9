"""Per-token gates for distillation, and RLSD's factor for advantages.

A gate is computed from the student's current scores in each minibatch and passes no gradient; the
teacher's scores are those from before the step.
"""

import math

import torch
from torch import Tensor

from tutelage.maths.distributions import entropy
from tutelage.maths.turn_weights import soft_or
from tutelage.objective import ONE, STUDENT, Gate, Signal, Step
from tutelage.objective.scores import Scores
from tutelage.schedules import Schedule, as_schedule
from tutelage.signals.advantages import gap


def gap_gate(beta: float = 5.0) -> Gate:
    """sigmoid(beta gap) (SDAR, arXiv:2605.15155): open where the teacher endorses the token,
    gap = log q - log p. With beta = 0 it is 1/2 everywhere."""
    return lambda student, teacher: torch.sigmoid(beta * (teacher.logp - student.logp))


def entropy_gate(beta: float = 5.0) -> Gate:
    """sigmoid(beta h) (SDAR, arXiv:2605.15155): open where the student is uncertain, h its entropy
    over the vocabulary in nats."""
    return lambda student, teacher: torch.sigmoid(beta * entropy(student.distribution))


def soft_or_gate(beta: float = 5.0) -> Gate:
    """sigmoid(beta (1 - (1 - h)(1 - gap))) (SDAR, arXiv:2605.15155): open for either reason, h the
    student's entropy over its largest possible value, log V."""

    def of(student: Scores, teacher: Scores) -> Tensor:
        h = entropy(student.distribution) / math.log(len(student.distribution.head))
        return torch.sigmoid(beta * soft_or(h, teacher.logp - student.logp))

    return of


GATES = {"gap": gap_gate, "entropy": entropy_gate, "soft_or": soft_or_gate}
"""The gates by the names that configurations use."""


def evidence(
    advantage: Signal,
    strength: float | Schedule,
    *,
    width: float = 0.2,
    teacher: str = "teacher",
    student: str = STUDENT,
) -> Signal:
    """RLSD's factor for an advantage A (arXiv:2604.03128), which keeps A's sign:

    1 - strength + strength clip(exp(sign(A) gap), 1 - width, 1 + width)
    """
    if not 0 < width < 1:
        raise ValueError(
            f"a width lies between 0 and 1, so that advantages keep their sign: {width}"
        )
    share, distance = as_schedule(strength), gap(teacher, student)

    def of(s: Step) -> Tensor:
        now = share(s.step)
        # once the strength is 0 the teacher is not read, so it is not scored either
        read = s.within(torch.full_like(s.batch.token, now != 0, dtype=torch.bool))
        likely = (advantage(s).sign() * distance(read)).exp().clamp(1 - width, 1 + width)
        return 1 + now * (likely - 1) if now else torch.ones_like(s.batch.logp)

    scheduled = share * ONE if callable(strength) else ONE  # lists the schedule in dry runs
    return advantage.derived(of, f"evidence[{advantage.name}]", distance, scheduled, tokenwise=True)
