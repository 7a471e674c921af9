"""Turn weights of distillation methods, and masks over turns.

Turns without tokens are excluded from every count and statistic.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.maths import turn_weights
from tutelage.maths.segments import future_sum, segment_mean, segment_sum
from tutelage.objective import STUDENT, Signal, Step
from tutelage.objective.batch import TokenBatch
from tutelage.schedules import Schedule, as_schedule
from tutelage.signals.advantages import gap


class TurnsWithTokens(NamedTuple):
    """The K turns that have tokens."""

    turn: Tensor  # [N] -> K
    episode: Tensor  # [K] -> E, ascending
    first: Tensor  # [K] -> K, the first turn of its episode

    @property
    def position(self) -> Tensor:
        """[K] index of each turn within its episode."""
        return torch.arange(len(self.first), device=self.first.device) - self.first


def turns_with_tokens(batch: TokenBatch) -> TurnsWithTokens:
    """The turns of a batch that have tokens, in order."""
    numbers, turn = torch.unique(batch.turn, return_inverse=True)
    episode = batch.episode[numbers]
    return TurnsWithTokens(turn, episode, torch.searchsorted(episode, episode))


def _disagreement(s: Step, teacher: str, student: str) -> Tensor:
    """[N] |log student - log teacher|."""
    return (s.scores[student].logp - s.scores[teacher].logp).abs()


def t_dur(
    *,
    teacher: str = "teacher",
    student: str = STUDENT,
    min_turns: int = 3,
    min_gap: float = 0.01,
    balanced: bool = False,
) -> Signal:
    """ATOD's turn weight (arXiv:2606.27814): high where teacher and student disagree, or where
    the student was uncertain, compared with the other turns of the episode; see `maths.turn_weights.t_dur`.

    Weights are in [0, 1], so they only ever reduce distillation; `balanced` divides by an episode's
    mean weight over its tokens, bounded to [.5, 2].
    """

    def of(s: Step) -> Tensor:
        turn, episode, _ = turns_with_tokens(s.batch)
        turns, episodes = len(episode), len(s.batch.group)
        d = segment_mean(_disagreement(s, teacher, student), turn, turns)
        h = segment_mean(-s.scores[student].logp, turn, turns)
        w = turn_weights.t_dur(d, h, episode, episodes, min_turns=min_turns, min_gap=min_gap)
        if balanced:
            tokens = segment_sum(torch.ones_like(s.batch.logp), turn, turns)
            w = turn_weights.balanced(w, tokens, episode, episodes)
        return w[turn]

    return Signal(of, "t_dur", views=(teacher, student))


def token_dur(
    *,
    teacher: str = "teacher",
    student: str = STUDENT,
    quantile: float = 0.98,
    balanced: bool = False,
) -> Signal:
    """ATOD's token-level variant: the same weight for single tokens, compared with all tokens of
    the step; see `maths.turn_weights.token_dur`."""

    def of(s: Step) -> Tensor:
        d, h = _disagreement(s, teacher, student), -s.scores[student].logp
        w = turn_weights.token_dur(d, h, quantile=quantile)
        if balanced:
            w = turn_weights.balanced(w, torch.ones_like(w), torch.zeros_like(s.batch.turn), 1)
        return w

    return Signal(of, "token_dur", views=(teacher, student))


def sod_weight(
    *, teacher: str = "teacher", student: str = STUDENT, headroom: float = 0.5
) -> Signal:
    """SOD's turn weight (arXiv:2605.07725): 1 on an episode's first turn, less on turns where the
    student is further from the teacher than there, at most 1 + `headroom`."""

    def of(s: Step) -> Tensor:
        turn, episode, first = turns_with_tokens(s.batch)
        d = segment_mean(_disagreement(s, teacher, student), turn, len(episode))
        return turn_weights.sod(d, first, headroom=headroom)[turn]

    return Signal(of, "sod_weight", views=(teacher, student))


def first_turns(count: float | Schedule) -> Signal:
    """1 on the first `count` turns of each episode (rounded down, at least one), 0 elsewhere."""
    number = as_schedule(count)

    def of(s: Step) -> Tensor:
        turns = turns_with_tokens(s.batch)
        return (turns.position < max(1, math.floor(number(s.step)))).float()[turns.turn]

    return Signal(of, "first_turns", (number,) if callable(count) else ())


def discounted_gap(gamma: float, *, teacher: str = "teacher", student: str = STUDENT) -> Signal:
    """The gap of a token and of those after it in the episode, sum_{u >= t} gamma^(u - t) gap_u.

    Distance counts sampled tokens, across turns. With gamma = 1 it is the advantage of reverse KL
    between whole episodes; with 0 it is `gap`.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"a discount must lie between 0 and 1, got {gamma}")
    now = gap(teacher, student)
    return now.derived(
        lambda s: future_sum(now(s), s.batch.owner, gamma), f"discounted[{now.name}]"
    )
