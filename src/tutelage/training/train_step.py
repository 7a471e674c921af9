"""One training step, from episodes to an updated policy."""

import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.config.schema import UpdateSection
from tutelage.errors import Diverged, RunError
from tutelage.objective import Algorithm, Objective, Step, View, bind
from tutelage.objective.batch import TokenBatch
from tutelage.objective.lazy_scores import LazyScores, with_frozen_head
from tutelage.objective.scores import Cut, Scores
from tutelage.policies.base import Prefetches, Scorer, SharesPrefix
from tutelage.rollout.session import Clock
from tutelage.seeding import seed_of
from tutelage.training.layout import (
    Layout,
    MicroBatch,
    Prompts,
    Span,
    micro_batches,
    prepare,
    rows_holding,
    rows_needed,
    shared_scores,
    token_index,
    whole_episode,
)
from tutelage.training.sampler_mismatch import compare, corrected
from tutelage.types import Episode

_UPDATE = UpdateSection()  # the one home of the defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How a step's data become optimiser steps."""

    max_tokens_per_pass: int = _UPDATE.max_tokens_per_pass  # of one forward and backward pass
    minibatches: int = _UPDATE.minibatches  # optimiser steps per pass over the data
    epochs: int = _UPDATE.epochs
    grad_clip: float = _UPDATE.grad_clip
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


def train_step(
    algorithm: Algorithm, episodes: Sequence[Episode], policies: Mapping[str, Scorer],
    optimizer: torch.optim.Optimizer, prompts: Prompts, update: Update, *,
    step: int, seed: int, clock: Clock,
) -> Report:  # fmt: skip
    """Learn from episodes that are not broken. Advantages are computed on all of them at once;
    slices only ever see parts of what was computed.

    Raises RunError where there is nothing to learn from, or a gradient is not finite: the weights
    are then as they were after the last whole minibatch.
    """
    _refuse_silence(episodes, step)
    ready = prepare(algorithm, episodes, prompts, update.device)
    views, heads = algorithm.all_views(), list[Tensor]()

    def score(name: str, chosen: Sequence[Span]) -> Scores:
        flat = [sample for row in chosen for sample in ready.cut(name, row)]
        return policies[views[name].policy].score(flat, update.temperature)

    def take(name: str, tokens: Tensor) -> tuple[Scores, Tensor]:
        since, view = time.perf_counter(), views[name]
        # who was told beforehand of whole rows has begun with those
        foreseen = isinstance(policies[view.policy], Prefetches) and view.hindsight is None
        rows = rows_holding(ready, name, tokens.tolist(), whole=foreseen)
        with torch.no_grad():
            made = score(name, rows).to(update.device)
        if view.policy == "self" and update.epochs * update.minibatches > 1:
            made = with_frozen_head(made, heads)
        clock.add("teacher", since)
        return made, token_index(ready, rows).to(update.device)

    before = LazyScores(shared_scores(ready, views), take, ready.batch.token)
    state = _state(algorithm, ready.batch, before, step, update.truncate)
    objective = bind(algorithm, state)
    apart = compare(algorithm, ready.batch, before.if_read, update.mismatch)
    since, taught = time.perf_counter(), clock.seconds.get("teacher", 0.0)
    followed, read = algorithm.followed(), algorithm.trained() | algorithm.followed()
    rows = rows_needed(ready, objective, read, update.device)
    padded = any(getattr(policies[views[name].policy], "padded", False) for name in read)
    totals, norms = dict.fromkeys((name for name, _ in objective.terms), 0.0), list[float]()
    for part, size in _parts(ready, episodes, objective, update, (seed, step)):
        slices = micro_batches(part, rows, update.max_tokens_per_pass, padded=padded)
        for needed, slice_ in _sharing(ready, views, policies, slices, followed):
            live = _live(ready, views, score, needed, followed, slice_, update.device)
            where = token_index(ready, slice_).to(update.device)
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
            "from; lower rollout.max_new_tokens or shorten the prompts, so that a first turn fits"
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


def _parts(
    ready: Layout, episodes: Sequence[Episode], objective: Objective, update: Update,
    name: tuple[int, ...],
) -> Iterator[tuple[list[int], float]]:  # fmt: skip
    """The minibatches of every epoch in which a token counts, and what of the step each is."""
    for epoch in range(update.epochs):
        for part in _minibatches(episodes, update.minibatches, (*name, epoch)):
            whole = [whole_episode(ready, e) for e in part]
            size = float(
                objective.minibatch_weight[token_index(ready, whole).to(update.device)].sum()
            )
            if size:
                yield part, size


def _minibatches(episodes: Sequence[Episode], parts: int, name: tuple[int, ...]) -> list[list[int]]:
    """Episodes dealt into parts: shuffled, as evenly as can be, no episode twice or left out but
    those in which nothing was said."""
    order = [e for e, episode in enumerate(episodes) if any(t.tokens for t in episode.turns)]
    if parts > 1:
        random.Random(seed_of("minibatches", *name)).shuffle(order)
    return [sorted(order[i::parts]) for i in range(min(parts, len(order)))]


def _live(
    ready: Layout, views: Mapping[str, View], score: Callable[[str, Sequence[Span]], Scores],
    needed: Collection[str], followed: Collection[str], rows: Sequence[Span], device: str,
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
    ready: Layout, views: Mapping[str, View], policies: Mapping[str, Scorer],
    slices: Sequence[MicroBatch], followed: Collection[str],
) -> Iterator[MicroBatch]:  # fmt: skip
    """The slices of a minibatch, whose rows' common heads are computed before the first of them:
    gradients are whole after the last. Trained views come first, since others of their policy may
    read the same."""
    names = {name for needed, _ in slices for name in needed}
    with ExitStack() as stack:
        for name in sorted(names, key=lambda name: (name in followed, name)):
            policy = policies[views[name].policy]
            if isinstance(policy, SharesPrefix):
                rows = [row for needed, part in slices if name in needed for row in part]
                samples = [sample for row in rows for sample in ready.cut(name, row)]
                with torch.set_grad_enabled(name not in followed):
                    stack.enter_context(policy.shared_prefix(samples))
        yield from slices


def _advance(optimizer: torch.optim.Optimizer, clip: float, step: int) -> float:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    if not math.isfinite(norm):
        raise Diverged(
            f"the gradient of step {step} is not finite, so the weights were left as they were; "
            "continue from the last checkpoint with --resume and a lower update.lr or "
            "update.grad_clip, or start anew with a smaller weight of the largest loss"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
