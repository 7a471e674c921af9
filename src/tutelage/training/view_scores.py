"""Scores of a step's tokens under each view: before the update, and under the current weights."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.objective import Algorithm, Step, View
from tutelage.objective.aligned import Aligned, Coverage
from tutelage.objective.batch import TokenBatch
from tutelage.objective.lazy_scores import LazyScores, with_frozen_head
from tutelage.objective.scores import Scores
from tutelage.policies.base import Aligns, Prefetches, Scorer, SharesPrefix
from tutelage.prompts.prompter import Sample
from tutelage.rollout.session import Clock
from tutelage.training.layout import Layout, MicroBatch, Span, spans_holding
from tutelage.training.sampler_mismatch import corrected
from tutelage.training.shard import always_divided, divided


def coverages(
    layout: Layout, algorithm: Algorithm, policies: Mapping[str, Scorer], device: str
) -> dict[str, Coverage]:
    """By view, what its policy says of the step's tokens where it has another tokenizer."""
    found: dict[str, Coverage] = {}
    for name, view in algorithm.all_views().items():
        policy = policies.get(view.policy)
        if isinstance(policy, Aligns):
            samples = [sample for episode in layout.samples[name] for sample in episode]
            found[name] = policy.coverage(samples).to(device)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewScores:
    """Asks the policies for scores of spans.

    temperature  of sampling, at which every score is taken
    device       of the student, where scores from before the update are stored
    moves        whether weights change before the last of those scores is read
    clock        measures the time of scoring before the update
    coverage     by view, what a policy with another tokenizer says of the step's tokens
    """

    layout: Layout
    algorithm: Algorithm
    policies: Mapping[str, Scorer]
    temperature: float = 1.0
    device: str = "cpu"
    moves: bool = False
    clock: Clock = field(default_factory=Clock)
    heads: list[Tensor] = field(default_factory=list)  # copies of LM heads, each made once
    coverage: Mapping[str, Coverage] = field(default_factory=dict)

    @property
    def views(self) -> dict[str, View]:
        return self.algorithm.all_views()

    @property
    def padded(self) -> bool:
        """Whether a policy that scores live pads the sequences of a pass to the longest."""
        live = self.algorithm.trained() | self.algorithm.followed()
        return any(getattr(self._policy(name), "padded", False) for name in live)

    def before_update(self, view: str, tokens: Tensor) -> tuple[Scores, Tensor]:
        """Scores without gradient of all spans that hold some of the tokens [N], and the index [n]
        of the tokens that were scored."""
        since = time.perf_counter()
        # whole episodes: a server may have begun to score them already
        begun = isinstance(self._policy(view), Prefetches) and self.views[view].hindsight is None
        # whole turns: another tokenizer would cut the text of a part of one elsewhere
        whole = begun or view in self.coverage
        spans = spans_holding(self.layout, view, tokens.tolist(), whole=whole)
        with torch.no_grad():
            scores = self._score(view, spans).to(self.device)
        if isinstance(scores, Aligned):
            index = self.layout.token_index(spans).to(self.device)
            known, recorded = self.coverage[view].at(index), self.layout.batch.logp[index]
            scores = scores.with_logp(known.spread(scores.logp, recorded))
        if self.moves and self.views[view].policy == "self":
            scores = with_frozen_head(scores, self.heads)
        self.clock.add("teacher", since)
        return scores, self.layout.token_index(spans).to(self.device)

    def beside_others(self, view: str) -> None:
        """What a rank without tokens of a view does while others score theirs before the update."""
        policy = self._policy(view)
        if always_divided(policy):
            with torch.no_grad():
                policy.score([], self.temperature)

    def live(
        self, needed: Collection[str], spans: Sequence[Span], every: Collection[str] = ()
    ) -> tuple[dict[str, Scores], list[Tensor] | None]:
        """Scores of a micro-batch under the current weights, with gradient except for views that no
        term trains. Such a view shares the pass of a trained view of its policy if both read the
        same ids.

        every  the views that some rank needs. A rank that does not makes an idle pass in their
               place, if the weights of their policy are divided over ranks; the results of the
               student's come second, None where its weights are not divided
        """
        followed, student = self.algorithm.followed(), divided(self.policies.get("self"))
        live: dict[str, Scores] = {}
        idle: list[Tensor] = []
        for name in sorted({*needed, *every} - followed):
            if name in needed:
                live[name] = self._score(name, spans)
            elif student is not None and self.views[name].policy == "self":
                idle.append(student.idle())
        for name in sorted({*needed, *every} & followed):
            own = divided(self._policy(name))
            with torch.no_grad():
                if name in needed:
                    twin = None if own else self._twin(name, live, spans)
                    live[name] = live[twin] if twin else self._score(name, spans).to(self.device)
                elif own is not None and always_divided(self._policy(name)):
                    self.beside_others(name)
                elif own is not None:
                    own.idle()
        return live, idle if student is not None else None

    def _twin(self, name: str, live: Collection[str], spans: Sequence[Span]) -> str | None:
        """A view that is scored already, of the same policy and ids."""
        samples = self._samples(name, spans)
        alike = (o for o in live if self.views[o].policy == self.views[name].policy)
        return next((other for other in alike if self._samples(other, spans) == samples), None)

    def sharing_prefixes(self, passes: Sequence[MicroBatch]) -> Iterator[MicroBatch]:
        """The micro-batches of a minibatch. The common prefix of their prompts is computed before
        the first, and gradients are complete after the last. Trained views come first, since others
        of their policy may read the same prefix."""
        names = {name for needed, _ in passes for name in needed}
        followed = self.algorithm.followed()
        with ExitStack() as stack:
            for name in sorted(names, key=lambda name: (name in followed, name)):
                policy = self._policy(name)
                if isinstance(policy, SharesPrefix):
                    spans = [span for needed, part in passes if name in needed for span in part]
                    with torch.set_grad_enabled(name not in followed):
                        stack.enter_context(policy.shared_prefix(self._samples(name, spans)))
            yield from passes

    def _policy(self, view: str) -> Scorer:
        return self.policies[self.views[view].policy]

    def _samples(self, view: str, spans: Sequence[Span]) -> list[Sample]:
        return [sample for span in spans for sample in self.layout.samples_of(view, span)]

    def _score(self, view: str, spans: Sequence[Span]) -> Scores:
        return self._policy(view).score(self._samples(view, spans), self.temperature)


def state_of(
    algorithm: Algorithm,
    batch: TokenBatch,
    before: LazyScores,
    step: int,
    truncate: float | None,
    coverage: Mapping[str, Coverage],
) -> Step:
    """What terms are bound to: the batch as it was sampled, or as if the trainer had."""
    importance = None
    if truncate is not None:
        batch, importance = corrected(algorithm, batch, before, truncate)
    state = Step(batch, before, step, importance=importance, coverage=coverage)
    if importance is not None:
        state.note("importance", importance)
    for name, known in coverage.items():
        state.note(f"covered[{name}]", known.covered.float())
        state.note(f"single[{name}]", known.single.float())
    return state
