"""One training step, from episodes to an updated policy."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from tutelage.config.schema import UpdateSection
from tutelage.errors import Diverged
from tutelage.objective import Algorithm, Objective, bind
from tutelage.objective.lazy_scores import LazyScores
from tutelage.objective.scores import Cut, Scores
from tutelage.policies.base import Scorer
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.rollout.session import Clock
from tutelage.training.alternatives import Alternatives, Likeliest
from tutelage.training.layout import (
    Prompts,
    micro_batches,
    minibatches,
    needed_spans,
    prepare,
    shared_scores,
)
from tutelage.training.optimizer import leaving_no_gradient
from tutelage.training.ratios import RatioStatistics
from tutelage.training.sampler_mismatch import compare
from tutelage.training.shard import Shard, divided
from tutelage.training.usable import refuse_silence
from tutelage.training.view_scores import ViewScores, coverages, state_of
from tutelage.types import Episode

_UPDATE = UpdateSection()  # the only place of the defaults


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
    alternatives: int = 0  # likeliest tokens of every view that the report holds at each token


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a step: numbers for the log, and columns per token."""

    losses: Mapping[str, float]
    grad_norm: float
    tokens: int
    columns: Mapping[str, Tensor]
    means: Mapping[str, float] = field(default_factory=dict)
    mismatch: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by term
    alternatives: Likeliest = field(default_factory=dict)


def train_step(
    algorithm: Algorithm,
    episodes: Sequence[Episode],
    policies: Mapping[str, Scorer],
    optimizer: torch.optim.Optimizer,
    prompts: Prompts,
    update: Update,
    *,
    step: int,
    seed: int,
    clock: Clock,
    ranks: Ranks = ALONE,
    owners: Mapping[str, int] = MappingProxyType({}),
) -> Report:
    """Learn from episodes that are not broken.

    The objective is bound to all of them at once, which fixes every advantage and weight. It is
    then evaluated in micro-batches: they save memory and never change the result. Of several
    `ranks`, each evaluates the groups it owns (`owners`: group -> rank); gradients are summed.

    Raises RunError where there is nothing to learn from, or a gradient is not finite: the weights
    are then as they were after the last whole minibatch.
    """
    refuse_silence(episodes, step)
    since = time.perf_counter()
    layout = prepare(algorithm, episodes, prompts, update.device)
    clock.add("prompts", since)
    shard = Shard(
        ranks=ranks,
        layout=layout,
        owner=[owners.get(e.group, 0) for e in episodes],
        student=divided(policies.get("self")),
    )
    views = ViewScores(
        layout=layout,
        algorithm=algorithm,
        policies=policies,
        temperature=update.temperature,
        device=update.device,
        moves=update.epochs * update.minibatches > 1,
        clock=clock,
        coverage=shard.coverage(coverages(layout, algorithm, policies, update.device)),
    )
    shared = shared_scores(layout, algorithm.all_views())
    fetch = shard.gathering(views.before_update, views.beside_others)
    before = LazyScores(shared, fetch, layout.batch.token)
    state = state_of(algorithm, layout.batch, before, step, update.truncate, views.coverage)
    objective = bind(algorithm, state)
    mismatch = compare(algorithm, layout.batch, before.if_read, update.mismatch)
    since, taught = time.perf_counter(), clock.seconds.get("teacher", 0.0)
    spans = needed_spans(layout, objective, algorithm, update.device)
    losses, norms = dict.fromkeys((name for name, _ in objective.terms), 0.0), list[float]()
    ratios = RatioStatistics()
    alternatives = Alternatives(update.alternatives, algorithm.all_views(), layout.batch.token)
    counts = update.minibatches, update.epochs
    parts = minibatches(layout, objective.minibatch_weight, *counts, name=(seed, step))
    with shard.updating(), leaving_no_gradient(optimizer):
        for part, size in parts:
            own, touched = shard.own(part), False
            passes = micro_batches(own, spans, update.max_tokens_per_pass, padded=views.padded)
            for needed, chosen, every in shard.in_step(passes, views.sharing_prefixes):
                live, idle = views.live(needed, chosen, every)
                index = layout.token_index(chosen).to(update.device)
                if chosen and not norms:  # the weights are still those that sampled
                    mismatch.glimpse(layout.batch, live, index)
                alternatives.add_pass(live, index)
                scale = 1.0 / size
                touched |= _backward(objective, live, index, scale, losses, ratios, idle)
            if not norms:
                shard.gather_glimpses(mismatch)
            mismatch.check(step)
            alternatives.add_read(before)
            norms.append(_advance(optimizer, update.grad_clip, step, shard, touched=touched))
    columns = shard.columns(state.columns)
    clock.add("update", since + clock.seconds.get("teacher", 0.0) - taught)
    return Report(
        losses={name: loss / update.epochs for name, loss in shard.sum_losses(losses).items()},
        grad_norm=sum(norms) / max(1, len(norms)),
        tokens=len(layout.batch.token),
        columns=columns,
        means={name: float(x[~x.isnan()].mean()) for name, x in columns.items()},
        mismatch=mismatch.numbers(),
        ratios=shard.gathered(ratios).numbers(),
        alternatives=alternatives.recorded(shard.columns(alternatives.tensors)),
    )


def _backward(
    objective: Objective,
    live: Mapping[str, Scores],
    index: Tensor,
    scale: float,
    losses: dict[str, float],
    ratios: RatioStatistics,
    idle: Sequence[Tensor] | None,
) -> bool:
    """Add a micro-batch's gradient to the parameters' and its losses and ratios to those of the
    step. Whether any of its tokens had a gradient.

    idle  of weights that are divided over ranks: see `Cut.send`
    """
    cut, touched = Cut(live), False
    for part, scores in cut.pieces():
        terms = objective(scores, index[part])
        ratios.add(objective.ratios(scores, index[part]))
        loss = scale * torch.stack([term.sum() for term in terms.values()]).sum()
        if loss.requires_grad:  # not where every token of the piece has weight zero
            loss.backward()  # type: ignore[no-untyped-call]
            touched = True
        for name, value in terms.items():
            losses[name] += float(value.detach().sum())
    cut.send(idle)
    return touched


def _advance(
    optimizer: torch.optim.Optimizer, clip: float, step: int, shard: Shard, *, touched: bool
) -> float:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shard.sum_gradients(parameters, touched=touched)
    norm = shard.clip(parameters, clip)
    if not math.isfinite(norm):
        raise Diverged(
            f"the gradient of step {step} is not finite, so the weights were not updated with it; "
            "continue from the last checkpoint with --resume and a lower update.lr or "
            "update.grad_clip, or start again with a smaller weight of the largest loss"
        )
    optimizer.step()
    shard.updated()
    optimizer.zero_grad(set_to_none=True)
    return norm
