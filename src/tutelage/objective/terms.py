"""The terms of a loss: policy gradients and distillation, bound to one step.

Shapes: N sampled tokens, U turns, E episodes, G groups, V vocabulary, n tokens of a slice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from tutelage.maths.distributions import Divergence, diverge, entropy
from tutelage.maths.surrogates import Surrogate, ppo_clip, ratio
from tutelage.objective.scores import Scores
from tutelage.objective.step import ONE, Signal, Step
from tutelage.objective.view import STUDENT

Loss = Callable[[Mapping[str, Scores], Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Bound:
    """A term of one step. Called with the live scores of a slice and its token indices [n], it
    gives the loss per token [n].

    counts  [N]: tokens whose loss is not 0 whatever the scores; only they need to be scored
    reads   the views whose live scores it takes
    settle  takes what it reads of views as they were before the update, once all terms are bound
    """

    loss: Loss
    counts: Tensor
    reads: tuple[str, ...]
    settle: Callable[[], object] = lambda: None

    def __call__(self, live: Mapping[str, Scores], i: Tensor) -> Tensor:
        return self.loss(live, i)


Gate = Callable[[Scores, Scores], Tensor]
"""(the trained view's scores, the teacher's) of n tokens -> a weight for each [n]: what follows
the student from one minibatch to the next. Both come without gradient."""


class Term(Protocol):
    """A part of the loss. `bind` looks at the whole step once; what it returns may be sliced."""

    @property
    def name(self) -> str: ...

    @property
    def trains(self) -> str: ...  # the view whose scores carry the gradient

    def bind(self, step: Step) -> Bound: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """Policy gradient on an advantage: surrogate(log p, log p_old, advantage), 0 where the advantage is.

    `old` says what the ratio's denominator is: the log-probability at sampling, or the one that
    the same weights give when they score the batch before the first update.
    """

    advantage: Signal
    surrogate: Surrogate = field(default_factory=ppo_clip)
    trains: str = STUDENT
    old: Literal["sampler", "recomputed"] = "sampler"
    name: str = "reinforce"

    def bind(self, step: Step) -> Bound:
        advantage, old = step.weight(self.advantage), step.batch.logp
        counts = advantage != 0
        if self.old == "recomputed":
            said = step.within(counts).scores[self.trains].logp.detach()
            old = torch.where(counts, said, old)

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            return self.surrogate(live[self.trains].logp, old[i], advantage[i])

        return Bound(_drawn(step, loss), counts, (self.trains,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """Move one view towards another over the whole vocabulary: the exact gradient.

    The teacher is as it was before the step; with `live` it is as it is now, for two views of one
    policy, whether both of them are trained or only one.
    """

    divergence: Divergence  # [n, V], [n, V] -> [n]
    teacher: str = "teacher"
    trains: str = STUDENT
    weight: Signal = ONE
    gate: Gate | None = None
    live: bool = False
    name: str = "distill"

    def bind(self, step: Step) -> Bound:
        weight = step.weight(self.weight)
        counts = weight != 0
        goal = None if self.live else step.want(self.teacher, counts)
        note_gate(self, step, counts)

        def settle() -> None:
            if goal is not None and counts.any():
                goal().check()  # says at once where there is no distribution

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            # a token of weight zero costs a forward and a backward over V: skip it
            on = counts[i].nonzero().squeeze(-1)
            if len(on) == 0:
                return torch.zeros_like(weight[i])
            theirs = live[self.teacher].at(on) if goal is None else goal().at(i[on])
            mine = live[self.trains]
            value = diverge(self.divergence, mine.distribution[on], theirs.distribution)
            scale = weight[i[on]] * (self.gate(mine.at(on), theirs) if self.gate else 1.0)
            return _spread(scale * value, on, len(i))

        reads = (self.trains, self.teacher) if self.live else (self.trains,)
        return Bound(loss, counts, reads, settle)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSampled:
    """Move one view towards another using only the sampled tokens: an estimate, and cheap.

    `corrected` multiplies the estimate by p / p_old with gradient, which makes k3's gradient that
    of reverse KL (without it, on the student's own samples, it is that of forward KL).
    """

    estimate: Callable[[Tensor, Tensor], Tensor]  # [n], [n] -> [n]
    teacher: str = "teacher"
    trains: str = STUDENT
    weight: Signal = ONE
    gate: Gate | None = None
    corrected: bool = False
    name: str = "distill_sampled"

    def bind(self, step: Step) -> Bound:
        weight, old = step.weight(self.weight), step.batch.logp
        counts = weight != 0
        goal = step.want(self.teacher, counts)
        note_gate(self, step, counts)

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            mine, on = live[self.trains], counts[i].nonzero().squeeze(-1)
            logp, said = mine.logp[on], goal().logp[i[on]]
            scale = ratio(logp, old[i[on]]) if self.corrected else 1.0
            if self.gate is not None:
                scale = scale * self.gate(mine.at(on), goal().at(i[on]))
            return _spread(weight[i[on]] * scale * self.estimate(logp, said), on, len(i))

        return Bound(_drawn(step, loss), counts, (self.trains,), goal)


def _drawn(step: Step, loss: Loss) -> Loss:
    """An expectation over sampled tokens, from those that were drawn."""
    weight = step.importance
    return loss if weight is None else lambda live, i: weight[i] * loss(live, i)


def _spread(value: Tensor, on: Tensor, count: int) -> Tensor:
    """Losses of the tokens on[m] of `count`, 0 elsewhere."""
    return value.new_zeros(count).index_add(0, on, value)


def note_gate(term: Distill | DistillSampled, step: Step, counts: Tensor) -> None:
    """Record the gate of the tokens that count [N] as the first minibatch applies it."""
    if term.gate is None:
        return
    scores, on = step.within(counts).scores, counts.nonzero().squeeze(-1)
    mine, theirs = scores[term.trains], scores[term.teacher]
    with torch.no_grad():
        if len(on) == len(counts):
            value = term.gate(mine, theirs)
        else:
            value = torch.full_like(step.batch.logp, torch.nan)
            value[on] = term.gate(mine.at(on), theirs.at(on)).to(value)
    step.note(f"gate[{term.name}]", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """A bonus for uncertainty: -weight * entropy of the view's own distribution."""

    weight: Signal
    trains: str = STUDENT
    name: str = "entropy"

    def bind(self, step: Step) -> Bound:
        weight = step.weight(self.weight)
        return Bound(
            lambda live, i: -weight[i] * entropy(live[self.trains].distribution),
            weight != 0,
            (self.trains,),
        )
