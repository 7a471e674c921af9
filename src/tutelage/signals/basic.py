"""The words algorithms are written in: credits and weights read from a step."""

import torch

from tutelage.maths import advantages
from tutelage.objective.algorithm import STUDENT, Signal, Step


def group_relative(*, std: bool = True) -> Signal:
    """GRPO's credit: an episode's return against its group's, spread over its tokens."""

    def of(s: Step) -> torch.Tensor:
        b = s.batch
        return advantages.group_relative(b.outcome, b.group, std=std)[b.owner]

    return Signal(of, "group_relative")


def gap(teacher: str = "teacher", student: str = STUDENT) -> Signal:
    """log teacher - log student at each sampled token: the negated sample of reverse KL."""
    return Signal(
        lambda s: s.scores[teacher].logp - s.scores[student].logp,
        f"gap[{teacher}|{student}]",
        tokenwise=True,
    )


def acted_by(actor: str) -> Signal:
    """1 on the tokens that one actor wrote, 0 elsewhere."""

    def of(s: Step) -> torch.Tensor:
        who = s.batch.actors.index(actor) if actor in s.batch.actors else -1
        return (s.batch.writer == who).float()

    return Signal(of, f"acted_by[{actor}]")
