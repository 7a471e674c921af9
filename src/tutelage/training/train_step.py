"""One training step, from episodes to an updated policy."""

import math
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.errors import RunError
from tutelage.objective import Algorithm, Objective, Step, View, bind
from tutelage.objective.batch import TokenBatch, collate
from tutelage.objective.lazy_scores import LazyScores, kept
from tutelage.objective.scores import Cut, Scores
from tutelage.policies.base import Foresees, Sample, Scorer, Shares
from tutelage.policies.packing import extends
from tutelage.prompts.prompter import Prompter
from tutelage.rollout.session import Clock
from tutelage.seeding import seed_of
from tutelage.training.sampler_mismatch import compare, corrected
from tutelage.types import Episode, Task

Prompts = Callable[[View, Task], Prompter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How a step's data become optimiser steps."""

    tokens: int = 16_384  # of one forward and backward pass
    minibatches: int = 1  # optimiser steps per pass over the data
    epochs: int = 1
    grad_clip: float = 1.0
    temperature: float = 1.0  # of sampling; every score is taken at it
    device: str = "cpu"  # the student's
    mismatch: float = math.inf  # of sampler and trainer on average, in nats, before a step stops
    truncate: float | None = None  # importance weights are cut here; None: the trainer samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a step did: numbers for the log and the columns behind them."""

    losses: Mapping[str, float]
    grad_norm: float
    tokens: int
    columns: Mapping[str, Tensor]
    means: Mapping[str, float] = field(default_factory=dict)
    mismatch: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A step's episodes laid out: the flat batch, and each view's prompts by episode."""

    batch: TokenBatch
    samples: Mapping[str, Sequence[Sequence[Sample]]]  # view -> episode -> turn
    starts: Sequence[Sequence[int]]  # episode -> turn -> its first token on the flat axis

    def cut(self, view: str, row: "Stretch") -> list[Sample]:
        """A stretch as a view reads it."""
        e, first, end, until = row
        made = list(self.samples[view][e][first:end])
        last = made[-1].tokens[: until - self.starts[e][end - 1]]
        made[-1] = Sample(prompt=made[-1].prompt, tokens=last)
        return made


class Stretch(NamedTuple):
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
) -> Prepared:
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
    return Prepared(batch=collate(episodes).to(device), samples=samples, starts=starts)


def train_step(
    algorithm: Algorithm, episodes: Sequence[Episode], policies: Mapping[str, Scorer],
    optimizer: torch.optim.Optimizer, prompts: Prompts, update: Update, *,
    step: int, seed: int, clock: Clock,
) -> Report:  # fmt: skip
    """Learn from episodes that are not broken. Credits are computed on all of them at once; slices
    only ever see parts of what was computed.

    Raises RunError where there is nothing to learn from, or a gradient is not finite: the weights
    are then as they were after the last whole minibatch.
    """
    _refuse_silence(episodes, step)
    ready = prepare(algorithm, episodes, prompts, update.device)
    views, heads = algorithm.all_views(), list[Tensor]()

    def score(name: str, chosen: Sequence[Stretch]) -> Scores:
        flat = [sample for row in chosen for sample in ready.cut(name, row)]
        return policies[views[name].policy].score(flat, update.temperature)

    def take(name: str, tokens: Tensor) -> tuple[Scores, Tensor]:
        since, view = time.perf_counter(), views[name]
        # who was told beforehand of whole rows has begun with those
        foreseen = isinstance(policies[view.policy], Foresees) and view.hindsight is None
        rows = _asked(ready, name, tokens.tolist(), whole=foreseen)
        with torch.no_grad():
            made = score(name, rows).to(update.device)
        if view.policy == "self" and update.epochs * update.minibatches > 1:
            made = kept(made, heads)
        clock.add("teacher", since)
        return made, _index(ready, rows).to(update.device)

    before = LazyScores(_twins(ready, views), take, ready.batch.token)
    state = _state(algorithm, ready.batch, before, step, update.truncate)
    objective = bind(algorithm, state)
    apart = compare(algorithm, ready.batch, before.made, update.mismatch)
    since, taught = time.perf_counter(), clock.seconds.get("teacher", 0.0)
    followed, read = algorithm.followed(), algorithm.trained() | algorithm.followed()
    rows = _needed(ready, objective, read, update.device)
    padded = any(getattr(policies[views[name].policy], "padded", False) for name in read)
    totals, norms = dict.fromkeys((name for name, _ in objective.terms), 0.0), list[float]()
    for part, size in _parts(ready, episodes, objective, update, (seed, step)):
        slices = _slices(part, rows, update.tokens, padded=padded)
        for needed, slice_ in _sharing(ready, views, policies, slices, followed):
            live = _live(ready, views, score, needed, followed, slice_, update.device)
            where = _index(ready, slice_).to(update.device)
            if not norms:  # the weights are still those that sampled
                apart.glimpse(ready.batch, live, where)
            _learn(objective, live, where, 1.0 / size, totals)
        apart.check(step)
        norms.append(_advance(optimizer, update.grad_clip, step))
    clock.add("update", since + clock.seconds.get("teacher", 0.0) - taught)
    return Report(
        losses={name: total / update.epochs for name, total in totals.items()},
        grad_norm=sum(norms) / max(1, len(norms)),
        tokens=len(ready.batch.token),
        columns=state.columns,
        means={name: float(x[~x.isnan()].mean()) for name, x in state.columns.items()},
        mismatch=apart.numbers(),
    )


def _refuse_silence(episodes: Sequence[Episode], step: int) -> None:
    if not any(turn.tokens for episode in episodes for turn in episode.turns):
        raise RunError(
            f"no episode of step {step} has a single sampled token, so there is nothing to learn "
            "from; lower rollout.new_tokens or shorten the prompts, so that a first turn fits"
        )


def _state(
    algorithm: Algorithm, batch: TokenBatch, before: LazyScores, step: int, truncate: float | None
) -> Step:
    """What terms are bound to: the batch as it was sampled, or as if the trainer had."""
    if truncate is None:
        return Step(batch, before, step)
    batch, importance = corrected(algorithm, batch, before, truncate)
    made = Step(batch, before, step, importance=importance)
    made.note("importance", importance)
    return made


def _learn(
    objective: Objective, live: Mapping[str, Scores], index: Tensor, scale: float,
    totals: dict[str, float],
) -> None:  # fmt: skip
    """Add a slice's gradient to the parameters' and its losses to the totals."""
    cut = Cut(live)
    for part, scores in cut.pieces():
        parts = objective(scores, index[part])
        loss = scale * torch.stack([p.sum() for p in parts.values()]).sum()
        if loss.requires_grad:  # not where every token of the piece has weight zero
            loss.backward()  # type: ignore[no-untyped-call]
        for name, value in parts.items():
            totals[name] += float(value.detach().sum())
    cut.send()


def _index(ready: Prepared, stretches: Sequence[Stretch]) -> Tensor:
    """Places of the stretches' tokens on the flat axis, in their order."""
    return torch.cat([torch.arange(ready.starts[e][a], until) for e, a, _, until in stretches])


def _parts(
    ready: Prepared, episodes: Sequence[Episode], objective: Objective, update: Update,
    name: tuple[int, ...],
) -> Iterator[tuple[list[int], float]]:  # fmt: skip
    """The minibatches of every epoch in which a token counts, and what of the step each is."""
    for epoch in range(update.epochs):
        for part in _minibatches(episodes, update.minibatches, (*name, epoch)):
            whole = [_whole(ready, e) for e in part]
            size = float(objective.size[_index(ready, whole).to(update.device)].sum())
            if size:
                yield part, size


def _minibatches(episodes: Sequence[Episode], parts: int, name: tuple[int, ...]) -> list[list[int]]:
    """Episodes dealt into parts: shuffled, as evenly as can be, no episode twice or left out but
    those in which nothing was said."""
    order = [e for e, episode in enumerate(episodes) if any(t.tokens for t in episode.turns)]
    if parts > 1:
        random.Random(seed_of("minibatches", *name)).shuffle(order)
    return [sorted(order[i::parts]) for i in range(min(parts, len(order)))]


Slice = tuple[tuple[str, ...], list[Stretch]]
"""Rows of one pass, and the views that they need."""


class Row(NamedTuple):
    """A stretch to be scored, with the views that its tokens need and its length under them."""

    needed: tuple[str, ...]
    length: int
    stretch: Stretch


def _needed(
    ready: Prepared, objective: Objective, live: Collection[str], device: str
) -> list[list[Row]]:
    """Each episode's rows up to the last token that counts, without those in which none does."""
    made: list[list[Row]] = []
    counting = objective.counting.tolist()
    for e in range(len(ready.starts)):
        made.append([])
        for whole in _rows(ready, e, live):
            if row := _until(ready, whole, counting):
                needed = tuple(sorted(objective.reads(_index(ready, [row]).to(device))))
                ends = [ready.cut(name, row)[-1] for name in needed]
                made[-1].append(Row(needed, max(map(_length, ends)), row))
    return made


def _asked(ready: Prepared, view: str, tokens: Sequence[bool], *, whole: bool) -> list[Stretch]:
    """A view's rows up to the last of some tokens [N], or the whole of them, without those that
    hold none."""
    made = []
    for e in range(len(ready.starts)):
        for row in _rows(ready, e, [view]):
            if cut := _until(ready, row, tokens):
                made.append(row if whole else cut)
    return made


def _until(ready: Prepared, row: Stretch, counts: Sequence[bool]) -> Stretch | None:
    """A stretch up to the last of its tokens that counts; None where none does."""
    starts = ready.starts[row.episode]
    until = next((t + 1 for t in range(row.until - 1, starts[row.first] - 1, -1) if counts[t]), 0)
    return Stretch(row.episode, row.first, bisect_left(starts, until), until) if until else None


def _whole(ready: Prepared, episode: int) -> Stretch:
    starts = ready.starts[episode]
    return Stretch(episode, 0, len(starts) - 1, starts[-1])


def _twins(ready: Prepared, views: Mapping[str, View]) -> dict[str, list[tuple[str, Tensor]]]:
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


def _slices(
    part: Sequence[int], rows: Sequence[Sequence[Row]], budget: int, *, padded: bool = False
) -> list[Slice]:
    """Rows that need the same views together, each slice within the budget of tokens (a row longer
    than that is alone), and of like length, so that one that pads them wastes little. Where rows
    are `padded` to the longest of a slice, which is the last, that counts too."""
    made: list[Slice] = []
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


def _rows(ready: Prepared, episode: int, views: Collection[str]) -> list[Stretch]:
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
    return [Stretch(episode, a, b, starts[b]) for a, b in zip(begins, ends, strict=True)]


def _live(
    ready: Prepared, views: Mapping[str, View], score: Callable[[str, Sequence[Stretch]], Scores],
    needed: Collection[str], followed: Collection[str], rows: Sequence[Stretch], device: str,
) -> dict[str, Scores]:  # fmt: skip
    """Scores of a slice as the weights are now, with gradient but for views that are followed. One
    of these that reads what a trained view of its policy reads takes that view's pass."""
    live = {name: score(name, rows) for name in sorted(set(needed) - set(followed))}
    for name in sorted(set(needed) & set(followed)):
        mine = [ready.cut(name, row) for row in rows]
        alike = (other for other in live if views[other].policy == views[name].policy)
        twin = next((o for o in alike if [ready.cut(o, row) for row in rows] == mine), None)
        with torch.no_grad():
            live[name] = live[twin] if twin else score(name, rows).to(device)
    return live


def _sharing(
    ready: Prepared, views: Mapping[str, View], policies: Mapping[str, Scorer],
    slices: Sequence[Slice], followed: Collection[str],
) -> Iterator[Slice]:  # fmt: skip
    """The slices of a minibatch, whose rows' common heads are computed before the first of them:
    gradients are whole after the last. Trained views come first, since others of their policy may
    read the same."""
    names = {name for needed, _ in slices for name in needed}
    with ExitStack() as stack:
        for name in sorted(names, key=lambda name: (name in followed, name)):
            policy = policies[views[name].policy]
            if isinstance(policy, Shares):
                rows = [row for needed, part in slices if name in needed for row in part]
                samples = [sample for row in rows for sample in ready.cut(name, row)]
                with torch.set_grad_enabled(name not in followed):
                    stack.enter_context(policy.sharing(samples))
        yield from slices


def _advance(optimizer: torch.optim.Optimizer, clip: float, step: int) -> float:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    if not math.isfinite(norm):
        raise RunError(
            f"the gradient of step {step} is not finite, so the weights were left as they were; "
            "lower the learning rate or the weight of the largest loss, then resume from the last "
            "checkpoint"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
