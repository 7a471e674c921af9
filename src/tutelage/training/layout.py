"""How a step's episodes lie on the flat token axis, and which sequences a pass reads."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.objective import Algorithm, Objective, View
from tutelage.objective.batch import TokenBatch, collate
from tutelage.policies.packing import extends
from tutelage.prompts.prompter import Prompter, Sample
from tutelage.types import Episode, Task

Prompts = Callable[[View, Task], Prompter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A step's episodes laid out: the flat batch, and each view's prompts by episode."""

    batch: TokenBatch
    samples: Mapping[str, Sequence[Sequence[Sample]]]  # view -> episode -> turn
    starts: Sequence[Sequence[int]]  # episode -> turn -> its first token on the flat axis

    def cut(self, view: str, row: "Span") -> list[Sample]:
        """A stretch as a view reads it."""
        e, first, end, until = row
        made = list(self.samples[view][e][first:end])
        last = made[-1].tokens[: until - self.starts[e][end - 1]]
        made[-1] = Sample(prompt=made[-1].prompt, tokens=last)
        return made


class Span(NamedTuple):
    """Turns `first` to `end` of an episode, which some views read as one row, up to the token that
    stands before `until` on the flat axis: in the last of them, perhaps not its last."""

    episode: int
    first: int
    end: int
    until: int


def read(
    view: View, prompter: Prompter, episode: Episode, group: Sequence[Episode]
) -> list[Sample]:
    """Every turn of a finished episode as a view reads it, hindsight included; `group` are the
    episodes of its task, itself among them."""
    if view.hindsight is None:
        return prompter.samples(episode)
    told = [view.hindsight(episode, k, group) for k in range(len(episode.turns))]
    return prompter.samples(episode, told)


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


def token_index(ready: Layout, stretches: Sequence[Span]) -> Tensor:
    """Places of the stretches' tokens on the flat axis, in their order."""
    return torch.cat([torch.arange(ready.starts[e][a], until) for e, a, _, until in stretches])


MicroBatch = tuple[tuple[str, ...], list[Span]]
"""Rows of one pass, and the views that they need."""


class ScoredSpan(NamedTuple):
    """A stretch to be scored, with the views that its tokens need and its length under them."""

    needed: tuple[str, ...]
    length: int
    stretch: Span


def rows_needed(
    ready: Layout, objective: Objective, live: Collection[str], device: str
) -> list[list[ScoredSpan]]:
    """Each episode's rows up to the last token that counts, without those in which none does."""
    made: list[list[ScoredSpan]] = []
    counting = objective.counting.tolist()
    for e in range(len(ready.starts)):
        made.append([])
        for whole in _rows(ready, e, live):
            if row := _until(ready, whole, counting):
                needed = tuple(sorted(objective.reads(token_index(ready, [row]).to(device))))
                ends = [ready.cut(name, row)[-1] for name in needed]
                made[-1].append(ScoredSpan(needed, max(map(_length, ends)), row))
    return made


def rows_holding(ready: Layout, view: str, tokens: Sequence[bool], *, whole: bool) -> list[Span]:
    """A view's rows up to the last of some tokens [N], or the whole of them, without those that
    hold none."""
    made = []
    for e in range(len(ready.starts)):
        for row in _rows(ready, e, [view]):
            if cut := _until(ready, row, tokens):
                made.append(row if whole else cut)
    return made


def _until(ready: Layout, row: Span, counts: Sequence[bool]) -> Span | None:
    """A stretch up to the last of its tokens that counts; None where none does."""
    starts = ready.starts[row.episode]
    until = next((t + 1 for t in range(row.until - 1, starts[row.first] - 1, -1) if counts[t]), 0)
    return Span(row.episode, row.first, bisect_left(starts, until), until) if until else None


def whole_episode(ready: Layout, episode: int) -> Span:
    starts = ready.starts[episode]
    return Span(episode, 0, len(starts) - 1, starts[-1])


def shared_scores(ready: Layout, views: Mapping[str, View]) -> dict[str, list[tuple[str, Tensor]]]:
    """By view, which tokens [N] an earlier view of the same policy reads after the same prompt: of
    each, the first such view."""
    made: dict[str, list[tuple[str, Tensor]]] = {}
    device = ready.batch.token.device
    for name, view in views.items():
        free, made[name] = [True] * ready.starts[-1][-1], []
        for other in list(made)[:-1]:
            if views[other].policy != view.policy:
                continue
            alike = [False] * len(free)
            for e, starts in enumerate(ready.starts):
                pairs = zip(ready.samples[name][e], ready.samples[other][e], strict=True)
                for (mine, theirs), a, b in zip(pairs, starts, starts[1:], strict=False):
                    if mine.prompt == theirs.prompt:
                        alike[a:b] = free[a:b]
                        free[a:b] = [False] * (b - a)
            if any(alike):
                made[name].append((other, torch.tensor(alike, device=device)))
    return made


def micro_batches(
    part: Sequence[int], rows: Sequence[Sequence[ScoredSpan]], budget: int, *, padded: bool = False
) -> list[MicroBatch]:
    """Rows that need the same views together, each slice within the budget of tokens (a row longer
    than that is alone), and of like length, so that one that pads them wastes little. Where rows
    are `padded` to the longest of a slice, which is the last, that counts too."""
    made: list[MicroBatch] = []
    size = 0
    for needed, length, row in sorted(row for e in part for row in rows[e]):
        size = length * (len(made[-1][1]) + 1) if padded and made else size + length
        if made and needed == made[-1][0] and size <= budget:
            made[-1][1].append(row)
        else:
            made.append((needed, [row]))
            size = length
    return [(needed, sorted(stretches)) for needed, stretches in made]


def _length(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.tokens)


def _rows(ready: Layout, episode: int, views: Collection[str]) -> list[Span]:
    """An append-only episode is one row; where some view's prompt starts afresh, so does a row."""
    starts = ready.starts[episode]
    if starts[0] == starts[-1]:  # nothing was said
        return []
    read = [ready.samples[name][episode] for name in sorted(views)]
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
