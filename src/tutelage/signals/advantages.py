"""Advantages and masks per sampled token, from rewards, a teacher's scores, or the actor.

Shapes: N sampled tokens, U turns, E episodes, G groups.
"""

from typing import Literal

import torch

from tutelage.maths import advantages
from tutelage.maths.estimators import k1, k2, k3
from tutelage.maths.segments import future_sum, segment_sum
from tutelage.objective import STUDENT, Signal, Step
from tutelage.types import EXPERT, WRONG_TURN


def group_relative(*, std: bool = True) -> Signal:
    """GRPO's advantage (arXiv:2402.03300): an episode's return relative to its group, the same for
    all of its tokens.

        A_i = (R_i - mean_group R) / (std_group R + 1e-6); without `std`, the numerator alone
    """

    def of(s: Step) -> torch.Tensor:
        b = s.batch
        return advantages.group_relative(b.outcome, b.group, std=std)[b.owner]

    return Signal(of, "group_relative", compares_group=True)


def gap(teacher: str = "teacher", student: str = STUDENT) -> Signal:
    """log teacher - log student at each sampled token: the negated k1 estimate of reverse KL. 0
    where one of them has another tokenizer, which cuts the text elsewhere (`Step.coverage`)."""

    def of(s: Step) -> torch.Tensor:
        apart = s.scores[teacher].logp - s.scores[student].logp
        return s.where_covered(student, s.where_covered(teacher, apart))

    return Signal(
        of,
        f"gap[{teacher}|{student}]",
        tokenwise=True,
        views=(teacher, student),
    )


def acted_by(actor: str) -> Signal:
    """1 on the tokens that one actor wrote, 0 elsewhere. An actor is a view, "expert" for the
    environment's expert, or "astray" for the expert's wrong turns."""

    def of(s: Step) -> torch.Tensor:
        number = s.batch.actors.index(actor) if actor in s.batch.actors else -1
        return (s.batch.writer == number).float()

    views = () if actor in (EXPERT, WRONG_TURN) else (actor,)
    return Signal(of, f"acted_by[{actor}]", views=views)


Estimate = Literal["k1", "k2", "k3"]
ESTIMATES = {"k1": k1, "k2": k2, "k3": k3}


def episode_return() -> Signal:
    """An episode's return, rewards less penalties, at each of its tokens: no baseline."""
    return Signal(lambda s: s.batch.outcome[s.batch.owner], "episode_return")


def drift(reference: str = "reference", estimate: Estimate = "k1") -> Signal:
    """How far sampling moved from a reference, by one of Schulman's estimates at each token:
    k1 = log p_old - log p_reference, k2 = k1^2 / 2, k3 = exp(-k1) - 1 + k1."""
    estimated = ESTIMATES[estimate]
    return Signal(
        lambda s: estimated(s.batch.logp, s.scores[reference].logp),
        f"drift[{estimate}|{reference}]",
        tokenwise=True,
        views=(reference,),
    )


def to_come(of: Signal) -> Signal:
    """A signal's sum from each token to the end of its episode: what the token can still change."""
    return of.derived(lambda s: advantages.sum_to_end(of(s), s.batch.owner), f"to_come[{of.name}]")


def batch_normalised(of: Signal) -> Signal:
    """A signal minus its mean over all tokens of the step, divided by its deviation (REINFORCE++,
    arXiv:2501.03262, eq. 5)."""
    return of.derived(lambda s: advantages.normalised(of(s)), f"batch_normalised[{of.name}]")


def leave_one_out(cost: Signal | None = None) -> Signal:
    """RLOO's advantage (arXiv:2402.14740): an episode's return minus the mean of the others in its
    group. A `cost` is summed over an episode and subtracted from its return before comparing."""

    def of(s: Step) -> torch.Tensor:
        b, outcome = s.batch, s.batch.outcome
        if cost is not None:
            outcome = outcome - segment_sum(cost(s).double(), b.owner, len(b.group))
        return advantages.leave_one_out(outcome, b.group)[b.owner]

    return Signal(
        of,
        "leave_one_out" if cost is None else f"leave_one_out[less {cost.name}]",
        compares_group=True,
        views=() if cost is None else cost.views,
    )


def turn_relative(*, std: bool = True) -> Signal:
    """GRPO's advantage with turns as samples: a turn's score is its episode's return before
    penalties less the turn's own penalty; mean and deviation are over all turns of a group, so that
    long episodes weigh more.
    """

    def of(s: Step) -> torch.Tensor:
        b = s.batch
        earned = segment_sum(b.reward + b.penalty, b.episode, len(b.group))
        score = earned[b.episode] - b.penalty
        return advantages.row_relative(score, b.group[b.episode], std=std)[b.turn]

    return Signal(of, "turn_relative", compares_group=True)


def state_relative(gamma: float = 0.95, *, std: bool = True) -> Signal:
    """GiGPO's step advantage (arXiv:2505.10978, eq. 7): the discounted return from a turn against
    those of all turns of its group that began in the same state; 0 if no other did, as in an
    environment without states. Records the column `shared_state`: 1 where others did.
    """

    def of(s: Step) -> torch.Tensor:
        b = s.batch
        peers = torch.bincount(b.state)[b.state]
        s.note("shared_state", (peers > 1).float()[b.turn])
        returns = future_sum(b.reward, b.episode, gamma)
        return advantages.group_relative(returns, b.state, std=std)[b.turn]

    return Signal(of, "state_relative", compares_group=True)
