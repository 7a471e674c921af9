"""What an algorithm is: who acts, who is scored, and a sum of terms.

Shapes: N sampled tokens, U turns, E episodes, G groups, V vocabulary, n tokens of a slice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from tutelage.hints.hindsight import Hindsight
from tutelage.maths.distributions import Divergence, diverge, entropy
from tutelage.maths.surrogates import Surrogate, ppo_clip, ratio
from tutelage.objective.penalties import Penalty
from tutelage.objective.scores import Scores
from tutelage.objective.step import ONE, Signal, Step
from tutelage.objective.takeover import Switch
from tutelage.schedules import Schedule

__all__ = [
    "ONE",
    "STUDENT",
    "Algorithm",
    "Bound",
    "Distill",
    "DistillSampled",
    "Entropy",
    "Gate",
    "Loss",
    "Objective",
    "Reinforce",
    "Signal",
    "Step",
    "Term",
    "View",
    "bind",
    "note_gate",
]

STUDENT = "student"
EVENLY = Signal(lambda s: 1 / len(s.batch.token), "token_mean")


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
    """Policy gradient on a credit: surrogate(log p, log p_old, credit), 0 where the credit is.

    `old` says what the ratio's denominator is: the log-probability at sampling, or the one that
    the same weights give when they score the batch before the first update.
    """

    credit: Signal
    surrogate: Surrogate = field(default_factory=ppo_clip)
    trains: str = STUDENT
    old: Literal["sampler", "recomputed"] = "sampler"
    name: str = "reinforce"

    def bind(self, step: Step) -> Bound:
        credit, old = step.weight(self.credit), step.batch.logp
        counts = credit != 0
        if self.old == "recomputed":
            said = step.within(counts).scores[self.trains].logp.detach()
            old = torch.where(counts, said, old)

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            return self.surrogate(live[self.trains].logp, old[i], credit[i])

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


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A policy in a context. Views act, teach and learn: one notion for all three.

    policy     "self" is the policy being trained, other names are those of the configuration
    hint       the kind of privileged information put into its system message (see `hints`), or none
    hindsight  what else goes there when finished episodes are scored; such a view cannot act
    """

    policy: str = "self"
    hint: str = ""
    hindsight: Hindsight | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Who acts, who teaches, who learns, and the loss: a value, not a trainer."""

    terms: tuple[Term, ...]
    views: Mapping[str, View] = field(default_factory=dict)  # besides "student"
    actors: Mapping[str, Schedule] = field(default_factory=dict)  # view -> chance of a turn
    # what a token counts in the step's loss, and in the size that a minibatch's is divided by where
    # that is something else: [N], sums to 1
    reduction: Signal = EVENLY
    size: Signal | None = None
    # by name: a finished episode -> what is taken off its last turn's reward (see `penalties`)
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    # dynamic sampling: learn only from groups whose returns differ, and play up to so many batches
    # of tasks until there are enough of them (see `sampling`); 0 learns from all that was played
    rounds: int = 0
    demonstrated: bool = False  # the environment's expert takes every turn (imitation)
    left: Schedule | None = None  # it takes all turns but so many of its last ones, then actors do
    # view -> share of the demonstrated episodes that do what its hint tells, as if it had acted:
    # the environment's plan where that is in it, else what the expert does
    planned: Mapping[str, float] = field(default_factory=dict)
    strays: bool = False  # with wrong turns in it, which nobody imitates
    aloud: bool = False  # the expert says its thoughts
    switch: Switch | None = None  # another view may end a turn that the student began

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"terms of one algorithm need different names to be added up and logged under, got "
                f"{', '.join(names)}: set `name` in one of them"
            )
        for name in self.all_actors():
            if name in self.views and self.views[name].hindsight is not None:
                raise ValueError(
                    f"the view {name!r} has hindsight, which is known once an episode is over, so "
                    "it cannot act: leave it out of the actors, or its hindsight"
                )

        if self.switch is not None and self.switch.to not in self.views:
            raise ValueError(
                f"the switch hands turns to {self.switch.to!r}, which is none of the algorithm's "
                f"views: {', '.join(self.views) or 'it has none'}"
            )

    def all_views(self) -> dict[str, View]:
        return {STUDENT: View(), **self.views}

    def all_actors(self) -> set[str]:
        """The views besides the student that ever write a token."""
        return set(self.actors) | ({self.switch.to} if self.switch is not None else set())

    def trained(self) -> set[str]:
        """The views whose scores carry a gradient."""
        return {term.trains for term in self.terms}

    def followed(self) -> set[str]:
        """The views that are only read, but as they are now: live goals that no term trains."""
        live = {term.teacher for term in self.terms if isinstance(term, Distill) and term.live}
        return live - self.trained()


@dataclass(frozen=True, slots=True)
class Objective:
    """The whole loss of a step, still per token: sum it over slices in any partition and it is
    the same."""

    terms: tuple[tuple[str, Bound], ...]
    share: Tensor  # [N]: what a token counts, sums to 1 in a mean
    size: Tensor  # [N], sums to 1: what of the step a token is; all 0 where nothing counts

    def __call__(self, live: Mapping[str, Scores], i: Tensor) -> dict[str, Tensor]:
        """Live scores of a slice and its token indices [n] -> each term's part of the loss [n]."""
        share = self.share[i]
        return {
            name: share * term(live, i) if self._counts(term, i) else torch.zeros_like(share)
            for name, term in self.terms
        }

    def reads(self, i: Tensor) -> frozenset[str]:
        """The views whose live scores the tokens i[n] need: none where nothing counts."""
        return frozenset(
            view for _, term in self.terms if self._counts(term, i) for view in term.reads
        )

    @property
    def counting(self) -> Tensor:
        """[N] bool: the tokens at which any term counts."""
        none = torch.zeros_like(self.share, dtype=torch.bool)
        return sum((term.counts for _, term in self.terms), none) & (self.share != 0)

    def _counts(self, term: Bound, i: Tensor) -> bool:
        return bool((term.counts[i] & (self.share[i] != 0)).any())


def bind(algorithm: Algorithm, step: Step) -> Objective:
    """Look at the whole step once: credits, weights and reductions are fixed from here on."""
    share = algorithm.reduction(step)
    counting = step.within(share != 0)
    terms = tuple((term.name, term.bind(counting)) for term in algorithm.terms)
    for _, bound in terms:
        bound.settle()
    return Objective(terms, share, share if algorithm.size is None else algorithm.size(step))
