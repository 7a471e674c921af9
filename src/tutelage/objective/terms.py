"""Loss terms (policy gradients and distillation), and what binding them to one step gives.

Shapes: N sampled tokens, U turns, E episodes, G groups, V vocabulary, n tokens of a slice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tutelage.errors import ConfigError, function, kind
from tutelage.maths.distributions import Divergence, diverge, diverge_known, entropy
from tutelage.maths.divergences import forward_kl
from tutelage.maths.surrogates import Clipped, Surrogate, ppo_clip, ratio
from tutelage.objective.scores import Scores
from tutelage.objective.step import ONE, Signal, Step
from tutelage.objective.view import STUDENT

Loss = Callable[[Mapping[str, Scores], Tensor], Tensor]
Ratios = Callable[[Mapping[str, Scores], Tensor], tuple[Tensor, Tensor]]
"""(live scores of a slice by view, its token indices [n]) -> of the m of them that count, the
importance ratio p / p_old [m] and whether it is clipped [m], bool."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A term of one step. Called with the live scores of a slice and its token indices [n], it
    gives the loss per token [n].

    loss     (live scores of n tokens by view, their indices [n]) -> loss per token [n]
    counts   [N] bool: the tokens whose loss can differ from 0; no others need to be scored
    reads    the views whose live scores it takes
    resolve  computes the pre-update scores it requested, once all terms are bound
    ratios   how far its tokens have moved from the policy that sampled them; None without a ratio
    """

    loss: Loss
    counts: Tensor
    reads: tuple[str, ...]
    resolve: Callable[[], object] = lambda: None
    ratios: Ratios | None = None

    def __call__(self, live: Mapping[str, Scores], i: Tensor) -> Tensor:
        return self.loss(live, i)


Gate = Callable[[Scores, Scores], Tensor]
"""(student's scores, teacher's scores) of n tokens -> a weight for each [n], without gradient. It
is recomputed in each minibatch, since the student moves; the teacher stays as before the step."""


class Term(Protocol):
    """A part of the loss: `bind` reads the whole step once; what it returns works on any slice."""

    @property
    def name(self) -> str: ...

    @property
    def trains(self) -> str: ...  # the view whose scores carry the gradient

    def bind(self, step: Step) -> Bound: ...


def _check(term: Any) -> None:
    """Raises ConfigError for fields of another kind. What stands where a signal belongs is refused by
    `Step.weight`, for terms of others too."""
    for name in ("name", "trains", "teacher"):
        kind(name, getattr(term, name, ""), str, "a text")
    for name in ("surrogate", "divergence", "estimate"):
        function(name, getattr(term, name, callable), "a function of log-probabilities")
    for name in ("gate", "baseline"):
        if getattr(term, name, None) is not None:
            function(name, getattr(term, name), "a function, or None")
    for name in ("live", "corrected"):
        kind(name, getattr(term, name, False), bool, "True or False")
    if getattr(term, "old", "sampler") not in ("sampler", "recomputed"):
        raise ConfigError(f'old is {term.old!r:.40}; give "sampler" or "recomputed"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """Policy gradient: surrogate(log p, log p_old, advantage), 0 where the advantage is 0.

    advantage  [N] per sampled token
    surrogate  (log p, log p_old, advantage), [n] each -> loss [n], such as `ppo_clip()`
    trains     the view whose scores carry the gradient
    old        what log p_old is: as recorded when sampling, or scored again by the trainer with
               the same weights before the first update

    Raises ConfigError for values of another kind.
    """

    advantage: Signal
    surrogate: Surrogate = field(default_factory=ppo_clip)
    trains: str = STUDENT
    old: Literal["sampler", "recomputed"] = "sampler"
    name: str = "reinforce"

    def __post_init__(self) -> None:
        _check(self)

    def bind(self, step: Step) -> Bound:
        advantage, old = step.weight(self.advantage), step.batch.logp
        counts = advantage != 0
        if self.old == "recomputed":
            recomputed = step.within(counts).scores[self.trains].logp.detach()
            old = torch.where(counts, recomputed, old)

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            return self.surrogate(live[self.trains].logp, old[i], advantage[i])

        def ratios(live: Mapping[str, Scores], i: Tensor) -> tuple[Tensor, Tensor]:
            on = counts[i]
            r = ratio(live[self.trains].logp.detach()[on], old[i][on])
            if isinstance(self.surrogate, Clipped):
                return r, self.surrogate.clips(r, advantage[i][on])
            return r, torch.zeros_like(r, dtype=torch.bool)

        return Bound(_corrected(step, loss), counts, (self.trains,), ratios=ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """Full-vocabulary distillation: weight * gate * divergence(student, teacher), exact gradient.

    divergence  (log p, log q), [n, V] each -> [n]; such as `reverse_kl`
    teacher     the view that teaches, read without gradient
    trains      the view that learns
    weight      [N] per sampled token; tokens of weight 0 are not computed
    gate        a weight that follows the student through the minibatches of a step, or None
    live        the teacher under the current weights, instead of those before the step: for two
                views of one policy

    Raises ConfigError for values of another kind.
    """

    divergence: Divergence
    teacher: str = "teacher"
    trains: str = STUDENT
    weight: Signal = ONE
    gate: Gate | None = None
    live: bool = False
    name: str = "distill"

    def __post_init__(self) -> None:
        _check(self)

    def bind(self, step: Step) -> Bound:
        weight = step.where_covered(self.teacher, step.weight(self.weight), single=True)
        counts = weight != 0
        before = None if self.live else step.request(self.teacher, counts)
        note_gate(self, step, counts)

        def resolve() -> None:
            # refuse a teacher without distributions here, not in the middle of the update
            if before is not None and counts.any():
                before().check()

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            # a token of weight 0 would still cost a forward and a backward pass over V
            on = counts[i].nonzero().squeeze(-1)
            if len(on) == 0:
                return torch.zeros_like(weight[i])
            teacher = live[self.teacher].at(on) if before is None else before().at(i[on])
            student = live[self.trains]
            value = diverge(self.divergence, student.distribution[on], teacher.distribution)
            scale = weight[i[on]] * (self.gate(student.at(on), teacher) if self.gate else 1.0)
            return _spread(scale * value, on, len(i))

        reads = (self.trains, self.teacher) if self.live else (self.trains,)
        return Bound(loss, counts, reads, resolve)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSampled:
    """Distillation from the sampled tokens alone: weight * gate * estimate(log p, log q).

    estimate   (log p, log q) of the sampled tokens, [n] each -> [n]; such as `k3`
    teacher    the view that teaches, as it was before the step
    trains     the view that learns
    weight     [N] per sampled token
    gate       a weight that follows the student through the minibatches of a step, or None
    corrected  multiply by p / p_old with gradient: k3's expected gradient is then that of reverse
               KL; without it, on the student's own samples, that of forward KL
    baseline   a divergence, (log p, log q) [n, V] each -> [n], that is subtracted from the estimate
               without gradient, or None: a control variate of `corrected`, which needs the
               teacher's whole distribution

    Raises ConfigError for values of another kind.
    """

    estimate: Callable[[Tensor, Tensor], Tensor]
    teacher: str = "teacher"
    trains: str = STUDENT
    weight: Signal = ONE
    gate: Gate | None = None
    corrected: bool = False
    baseline: Divergence | None = None
    name: str = "distill_sampled"

    def __post_init__(self) -> None:
        _check(self)

    def bind(self, step: Step) -> Bound:
        whole = self.baseline is not None
        weight = step.where_covered(self.teacher, step.weight(self.weight), single=whole)
        counts, old = weight != 0, step.batch.logp
        before = step.request(self.teacher, counts)
        note_gate(self, step, counts)

        def resolve() -> None:
            scores = before()
            if whole and counts.any():
                scores.check()

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            student, on = live[self.trains], counts[i].nonzero().squeeze(-1)
            student_logp, teacher_logp = student.logp[on], before().logp[i[on]]
            scale = ratio(student_logp, old[i[on]]) if self.corrected else 1.0
            if self.gate is not None:
                scale = scale * self.gate(student.at(on), before().at(i[on]))
            value = self.estimate(student_logp, teacher_logp)
            if self.baseline is not None and len(on):
                one, other = student.at(on).distribution, before().at(i[on]).distribution
                value = value - diverge(self.baseline, one, other)
            return _spread(weight[i[on]] * scale * value, on, len(i))

        return Bound(_corrected(step, loss), counts, (self.trains,), resolve)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillRecorded:
    """Distillation from the likely tokens that a text-only teacher told of each token it wrote:
    weight * forward KL over those and all others pooled into one (`divergences.from_known`), and
    -weight * log p of the token where none are known.

    weight  [N] per sampled token; tokens of weight 0 are not computed
    trains  the view that learns
    """

    weight: Signal
    trains: str = STUDENT
    name: str = "distill_recorded"

    def __post_init__(self) -> None:
        _check(self)

    def bind(self, step: Step) -> Bound:
        weight, batch = step.weight(self.weight), step.batch
        counts = weight != 0
        known = counts & (batch.top_ids >= 0).any(-1)
        step.note(f"top_logprobs[{self.name}]", torch.where(counts, known.float(), torch.nan))

        def loss(live: Mapping[str, Scores], i: Tensor) -> Tensor:
            student, on = live[self.trains], known[i].nonzero().squeeze(-1)
            value = -student.logp
            if len(on):
                ids, logps = batch.top_ids[i[on]], batch.top_logps[i[on]]
                kl = diverge_known(forward_kl, student.distribution[on], ids, logps)
                value = torch.where(known[i], _spread(kl, on, len(i)), value)
            return weight[i] * value

        return Bound(loss, counts, (self.trains,))


def _corrected(step: Step, loss: Loss) -> Loss:
    """A loss over sampled tokens, times their importance weights where another engine drew them."""
    weight = step.importance
    return loss if weight is None else lambda live, i: weight[i] * loss(live, i)


def _spread(value: Tensor, on: Tensor, count: int) -> Tensor:
    """Losses of the tokens on[m] of `count`, 0 elsewhere."""
    return value.new_zeros(count).index_add(0, on, value)


def note_gate(term: Distill | DistillSampled, step: Step, counts: Tensor) -> None:
    """Record the gate of the tokens that count [N], as the first minibatch applies it."""
    if term.gate is None:
        return
    scores = step.within(counts).scores
    student, teacher = scores[term.trains], scores[term.teacher]
    # tokens that another process scored have their gate there
    on = (counts & student.here & teacher.here).nonzero().squeeze(-1)
    with torch.no_grad():
        if len(on) == len(counts):
            value = term.gate(student, teacher)
        else:
            value = torch.full_like(step.batch.logp, torch.nan)
            if len(on):
                value[on] = term.gate(student.at(on), teacher.at(on)).to(value)
    step.note(f"gate[{term.name}]", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Entropy bonus: -weight * entropy of the view's distribution over the vocabulary, in nats."""

    weight: Signal
    trains: str = STUDENT
    name: str = "entropy"

    def __post_init__(self) -> None:
        _check(self)

    def bind(self, step: Step) -> Bound:
        weight = step.weight(self.weight)
        return Bound(
            lambda live, i: -weight[i] * entropy(live[self.trains].distribution),
            weight != 0,
            (self.trains,),
        )
