"""The layout of a step's episodes on the flat token axis, and the spans that each pass reads."""

import random
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.objective import Algorithm, Objective, View
from tutelage.objective.batch import TokenBatch, collate
from tutelage.policies.packing import extends, plan_passes
from tutelage.prompts.prompter import Prompter, Sample
from tutelage.seeding import seed_of
from tutelage.types import Episode, Task

Prompts = Callable[[View, Task], Prompter]


class Span(NamedTuple):
    """Turns `first` to `end` of an episode, which some views read as one sequence, up to the token
    that stands before `until` on the flat axis: in the last of them, perhaps not its last."""

    episode: int
    first: int
    end: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A step's episodes laid out: the flat batch, and each view's prompts by episode."""

    batch: TokenBatch
    samples: Mapping[str, Sequence[Sequence[Sample]]]  # view -> episode -> turn
    starts: Sequence[Sequence[int]]  # episode -> turn -> its first token; then the episode's end

    def samples_of(self, view: str, span: Span) -> list[Sample]:
        """The turns of a span as a view reads them, the last of them as far as the span goes."""
        e, first, end, until = span
        samples = list(self.samples[view][e][first:end])
        last = samples[-1].tokens[: until - self.starts[e][end - 1]]
        samples[-1] = replace(samples[-1], tokens=last)
        return samples

    def token_index(self, spans: Sequence[Span]) -> Tensor:
        """The index [n] of the spans' tokens on the flat axis, in their order."""
        parts = [torch.arange(self.starts[e][a], until) for e, a, _, until in spans]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    def whole_episode(self, episode: int) -> Span:
        starts = self.starts[episode]
        return Span(episode, 0, len(starts) - 1, starts[-1])


def read(
    view: View, prompter: Prompter, episode: Episode, group: Sequence[Episode]
) -> list[Sample]:
    """Every turn of a finished episode as a view reads it, hindsight included; `group` are the
    episodes of its task, itself among them."""
    if view.hindsight is None:
        return prompter.samples(episode)
    hints = [view.hindsight(episode, k, group) for k in range(len(episode.turns))]
    return prompter.samples(episode, hints)


def prepare(
    algorithm: Algorithm, episodes: Sequence[Episode], prompts: Prompts, device: str = "cpu"
) -> Layout:
    """Episodes -> batch and prompts."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group, []).append(episode)
    samples = {
        name: [read(view, prompts(view, e.task), e, groups[e.group]) for e in episodes]
        for name, view in algorithm.all_views().items()
    }
    starts, at = [], 0
    for episode in episodes:
        starts.append([at])
        for turn in episode.turns:
            at += len(turn.tokens)
            starts[-1].append(at)
    return Layout(batch=collate(episodes).to(device), samples=samples, starts=starts)


MicroBatch = tuple[tuple[str, ...], list[Span]]
"""The spans of one pass, and the views whose live scores they need."""


class ScoredSpan(NamedTuple):
    """A span to be scored, with the views that its tokens need and its length under them."""

    needed: tuple[str, ...]
    length: int
    span: Span


def needed_spans(
    layout: Layout, objective: Objective, algorithm: Algorithm, device: str
) -> list[list[ScoredSpan]]:
    """Each episode's spans up to the last token that counts, without those in which none does."""
    live = algorithm.trained() | algorithm.followed()
    counting = objective.counting.tolist()
    by_episode: list[list[ScoredSpan]] = []
    for e in range(len(layout.starts)):
        by_episode.append([])
        for whole in _spans(layout, e, live):
            if span := _up_to_last(layout, whole, counting):
                needed = tuple(sorted(objective.reads(layout.token_index([span]).to(device))))
                length = max(_length(layout.samples_of(name, span)[-1]) for name in needed)
                by_episode[-1].append(ScoredSpan(needed, length, span))
    return by_episode


def spans_holding(layout: Layout, view: str, tokens: Sequence[bool], *, whole: bool) -> list[Span]:
    """A view's spans up to the last of some tokens [N], or the whole of them, without those that
    hold none."""
    found = []
    for e in range(len(layout.starts)):
        for span in _spans(layout, e, [view]):
            if cut := _up_to_last(layout, span, tokens):
                found.append(span if whole else cut)
    return found


def _up_to_last(layout: Layout, span: Span, counts: Sequence[bool]) -> Span | None:
    """A span up to the last of its tokens that counts; None where none does."""
    starts = layout.starts[span.episode]
    begin = starts[span.first]
    until = next((t + 1 for t in range(span.until - 1, begin - 1, -1) if counts[t]), 0)
    return Span(span.episode, span.first, bisect_left(starts, until), until) if until else None


def shared_scores(layout: Layout, views: Mapping[str, View]) -> dict[str, list[tuple[str, Tensor]]]:
    """By view, which tokens [N] an earlier view of the same policy reads after the same prompt: of
    each, the first such view."""
    shared: dict[str, list[tuple[str, Tensor]]] = {}
    device = layout.batch.token.device
    for name, view in views.items():
        free, shared[name] = [True] * layout.starts[-1][-1], []
        for other in list(shared)[:-1]:
            if views[other].policy != view.policy:
                continue
            same = [False] * len(free)
            for e, starts in enumerate(layout.starts):
                pairs = zip(layout.samples[name][e], layout.samples[other][e], strict=True)
                for (left, right), a, b in zip(pairs, starts, starts[1:], strict=False):
                    if left.prompt == right.prompt:
                        same[a:b] = free[a:b]
                        free[a:b] = [False] * (b - a)
            if any(same):
                shared[name].append((other, torch.tensor(same, device=device)))
    return shared


def deal(layout: Layout, parts: int, name: tuple[int, ...]) -> list[list[int]]:
    """Episodes divided into minibatches: shuffled, of equal size up to 1, each episode exactly once
    except those without sampled tokens. `name` seeds the order."""
    order = [e for e, starts in enumerate(layout.starts) if starts[0] < starts[-1]]
    if parts > 1:
        random.Random(seed_of("minibatches", *name)).shuffle(order)
    return [sorted(order[i::parts]) for i in range(min(parts, len(order)))]


def minibatches(
    layout: Layout, weight: Tensor, parts: int, epochs: int, *, name: tuple[int, ...]
) -> Iterator[tuple[list[int], float]]:
    """The episodes of every epoch's minibatches in which a token counts, and the sum of those
    tokens' weights, by which the minibatch's loss is divided.

    weight  [tokens] of each token in its minibatch
    """
    for epoch in range(epochs):
        for part in deal(layout, parts, (*name, epoch)):
            index = layout.token_index([layout.whole_episode(e) for e in part])
            size = float(weight[index.to(weight.device)].sum())
            if size:
                yield part, size


def micro_batches(
    part: Sequence[int],
    spans: Sequence[Sequence[ScoredSpan]],
    budget: int,
    *,
    padded: bool = False,
) -> list[MicroBatch]:
    """The passes over a minibatch's episodes, each within the budget of tokens (a span longer than
    that is alone). Spans of one pass need the same views and are of like length, so that a pass
    which is `padded` to its longest wastes little."""
    ordered = sorted(span for e in part for span in spans[e])
    passes = plan_passes(
        [each.length for each in ordered],
        budget,
        padded=padded,
        kinds=[each.needed for each in ordered],
    )
    return [(ordered[k[0]].needed, sorted(ordered[i].span for i in k)) for k in passes]


def _length(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.tokens)


def _spans(layout: Layout, episode: int, views: Collection[str]) -> list[Span]:
    """An append-only episode is one span; where some view's prompt starts afresh, so does a
    span."""
    starts = layout.starts[episode]
    if starts[0] == starts[-1]:  # no sampled tokens
        return []
    read = [layout.samples[name][episode] for name in sorted(views)]
    begins = [
        k
        for k in range(len(starts) - 1)
        if k == 0
        or any(
            not extends(view[k].prompt, (*view[k - 1].prompt, *view[k - 1].tokens)) for view in read
        )
    ]
    ends = [*begins[1:], len(starts) - 1]
    return [Span(episode, a, b, starts[b]) for a, b in zip(begins, ends, strict=True)]
