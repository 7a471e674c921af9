"""A process's share of a training step: the passes over its own episodes, and what it sends.

Every process lays out the whole step, whose episodes are text, so that advantages, batch statistics,
schedules and denominators are those of the whole step, the same bytes everywhere, whatever a signal
computes. What costs time, the passes through models, each process does for its own episodes alone.
It sends one log-probability for each token and view, its losses, and the sum of its gradients.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.objective.aligned import Coverage
from tutelage.objective.gathered import Gathered
from tutelage.objective.lazy_scores import Fetch
from tutelage.objective.scores import Scores
from tutelage.policies.base import Scorer, Shards
from tutelage.rollout.ranks import Ranks
from tutelage.training.layout import Layout, MicroBatch, Span
from tutelage.training.ratios import RatioStatistics
from tutelage.training.sampler_mismatch import Mismatch

BUCKET = 1 << 24
"""Entries of gradients that are summed over processes at once: 64 MB."""


class Pass(NamedTuple):
    """A pass over a micro-batch.

    needed  the views that this rank scores
    spans   of this rank; none where only others have a pass
    every   the views that some rank scores: in a student whose weights are divided over ranks, a
            rank makes a pass of each of them
    """

    needed: tuple[str, ...]
    spans: list[Span]
    every: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What one of the ranks does of a step. Of one process alone everything, and nothing is sent.

    owner    by episode, the rank whose passes it is in
    student  where its weights are divided over ranks
    """

    ranks: Ranks
    layout: Layout
    owner: Sequence[int]
    student: Shards | None = None

    def updating(self) -> AbstractContextManager[None]:
        """The update of a step."""
        return contextlib.nullcontext() if self.student is None else self.student.updating()

    def in_step(
        self,
        passes: Sequence[MicroBatch],
        sharing: Callable[[Sequence[MicroBatch]], Iterator[MicroBatch]],
    ) -> Iterator[Pass]:
        """The passes of a minibatch: where weights are divided, as many on every rank.

        sharing  computes a common prefix of passes before them: not where weights are divided
        """
        if self.student is None:
            yield from (Pass(needed, spans, needed) for needed, spans in sharing(passes))
            return
        parts = self.ranks.gather([needed for needed, _ in passes])
        together = [
            tuple(sorted({view for needed in each for view in needed}))
            for each in zip_longest(*parts, fillvalue=())
        ]
        for k, every in enumerate(together):
            needed, spans = passes[k] if k < len(passes) else ((), [])
            yield Pass(needed, spans, every)

    @property
    def alone(self) -> bool:
        return self.ranks.size == 1

    def own(self, part: Sequence[int]) -> list[int]:
        """Those of some episodes that are this process's."""
        return [e for e in part if self.alone or self.owner[e] == self.ranks.rank]

    def tokens_of(self, rank: int) -> Tensor:
        """[N] bool: the tokens of a rank's episodes."""
        batch = self.layout.batch
        return torch.tensor(self.owner, device=batch.owner.device)[batch.owner] == rank

    def gathering(self, fetch: Fetch, beside: Callable[[str], None]) -> Fetch:
        """Scores before the update: each process computes those of its own tokens, and all get
        every log-probability.

        beside  called with a view by a rank that has no tokens of it to score
        """
        if self.alone:
            return fetch
        local, device = self.tokens_of(self.ranks.rank), self.layout.batch.logp.device

        def shared(view: str, tokens: Tensor) -> tuple[Scores, Tensor]:
            own: Scores | None = None
            index, logp, full = torch.zeros(0, dtype=torch.long), torch.zeros(0), False
            if (tokens & local).any():
                own, index = fetch(view, tokens & local)
                logp, full = own.logp, own.has_distribution
            else:
                beside(view)
            parts = self.ranks.gather((index.cpu(), logp.detach().cpu(), full))
            start = sum(len(i) for i, *_ in parts[: self.ranks.rank])
            row = torch.full((sum(len(i) for i, *_ in parts),), -1, device=device)
            row[start : start + len(index)] = torch.arange(len(index), device=device)
            scores = Gathered(
                logp=torch.cat([x for _, x, _ in parts]).to(device),
                own=own,
                row=row,
                full=any(has for *_, has in parts),
            )
            return scores, torch.cat([i for i, *_ in parts]).to(device)

        return shared

    def sum_gradients(self, parameters: Sequence[Tensor], *, touched: bool) -> None:
        """Replace gradients by their sums over ranks, in the order of parameters. One that no rank
        has stays away, so that the optimiser leaves that parameter alone. Those of divided weights
        are summed already.

        touched  whether a token of this rank has a gradient
        """
        if self.alone:
            return
        parts = self._parts()
        if self.student is not None and self.student.sharded is not None:
            self.student.sharded.collect()
            if not any(self.ranks.gather(touched)):
                for p in parameters:
                    p.grad = None
        parameters = [p for p in parameters if id(p) not in parts]
        has = self.ranks.gather([p.grad is not None for p in parameters])
        shared = [
            p for p, some in zip(parameters, zip(*has, strict=True), strict=True) if any(some)
        ]
        for p in shared:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in shared if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self.ranks.sum_([flat])
            sums = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, total in zip(bucket, sums, strict=True):
                gradient.copy_(total.view_as(gradient))

    def clip(self, parameters: Sequence[Tensor], most: float) -> float:
        """Scale gradients to a norm of at most `most`. The norm before, of all weights."""
        parts = self._parts()
        if not parts:
            return float(torch.nn.utils.clip_grad_norm_(parameters, most))
        gradients = [(id(p) in parts, p.grad) for p in parameters if p.grad is not None]
        own = sum(float(g.double().square().sum()) for part, g in gradients if part)
        whole = sum(float(g.double().square().sum()) for part, g in gradients if not part)
        norm = math.sqrt(sum(self.ranks.gather(own)) + whole)
        scale = min(1.0, most / (norm + 1e-6))  # as torch's function
        if scale < 1:
            for _, gradient in gradients:
                gradient.mul_(scale)
        return norm

    def _parts(self) -> set[int]:
        """Of a student's parameters, those that are this rank's part of divided weights."""
        divided = None if self.student is None else self.student.sharded
        return set() if divided is None else {id(p) for p in divided.parts.values()}

    def updated(self) -> None:
        """The optimiser has taken a step."""
        if self.student is not None and self.student.sharded is not None:
            self.student.sharded.put_back()

    def sum_losses(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Losses by term, summed in the order of ranks."""
        parts = self.ranks.gather(dict(losses))
        return {name: sum(part[name] for part in parts) for name in losses}

    def columns(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Columns [N] of the step, each token's values from the rank that scored it: a gate reads
        distributions, which others do not have."""
        if self.alone:
            return dict(columns)
        local = self.tokens_of(self.ranks.rank)
        parts = self.ranks.gather({name: x[local].cpu() for name, x in columns.items()})
        out = {name: x.clone() for name, x in columns.items()}
        for rank, part in enumerate(parts):
            where = self.tokens_of(rank)
            for name, values in part.items():
                out[name][where] = values.to(out[name])
        return out

    def coverage(self, of: Mapping[str, Coverage]) -> dict[str, Coverage]:
        """Coverage of the step by view, each token's from the rank that played its episode: a turn
        that a teacher wrote is known there in the teacher's own tokens."""
        if self.alone:
            return dict(of)
        numbers = {n: torch.stack([x.chunk, x.single.to(x.chunk)]) for n, x in of.items()}
        parts = self.ranks.gather({name: x.cpu() for name, x in numbers.items()})
        found = {}
        for name, own in numbers.items():
            merged = own.clone()
            for rank, part in enumerate(parts):
                where = self.tokens_of(rank)
                chunk, single = part[name].to(own)[:, where]
                chunk = torch.where(chunk < 0, chunk, chunk * len(parts) + rank)
                merged[:, where] = torch.stack([chunk, single])
            found[name] = Coverage(chunk=merged[0], single=merged[1].bool())
        return found

    def gather_glimpses(self, mismatch: Mismatch) -> None:
        """What each rank saw of sampler and trainer in its first passes, on every rank."""
        if not self.alone:
            mismatch.glimpsed = [x for part in self.ranks.gather(mismatch.glimpsed) for x in part]

    def gathered(self, ratios: RatioStatistics) -> RatioStatistics:
        """The ratios of all ranks."""
        if self.alone:
            return ratios
        every = RatioStatistics()
        for part in self.ranks.gather(ratios):
            every.merge(part)
        return every


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Gradients of one dtype and device that follow each other, in pieces of about BUCKET."""
    buckets: list[list[Tensor]] = []
    size = 0
    for gradient in gradients:
        last = buckets[-1][-1] if buckets else None
        alike = last is not None and (last.dtype, last.device) == (gradient.dtype, gradient.device)
        if not alike or size + gradient.numel() > BUCKET:
            buckets.append([])
            size = 0
        buckets[-1].append(gradient)
        size += gradient.numel()
    return buckets


def divided(policy: Scorer | None) -> Shards | None:
    """A policy whose weights are divided over ranks; None for any other."""
    return policy if isinstance(policy, Shards) and policy.sharded is not None else None


def always_divided(policy: Scorer | None) -> bool:
    """Whether all ranks make every pass of a policy together."""
    found = divided(policy)
    return found is not None and found.sharded is not None and found.sharded.always
