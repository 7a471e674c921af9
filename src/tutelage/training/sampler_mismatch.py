"""Sampler-trainer mismatch: its measurement, and truncated importance weights that correct it.

The same weights give other numbers in another engine: kernels, dtypes, batch sizes. With
p the trainer's and q the sampler's probability of a sampled token, both before the step's update,

    mismatch   |log p - log q|: its mean, 99th percentile and largest
    weight     min(p / q, C), which multiplies the loss of that token

The weight is that of truncated importance sampling (IMPALA, arXiv:1802.01561, section 4.1, whose
rho is cut in the same way); ratios of the update are then taken to p and not to q.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tutelage.errors import RunError
from tutelage.objective import STUDENT, Algorithm
from tutelage.objective.batch import TokenBatch
from tutelage.objective.scores import Scores

SHARE = 0.99
ENOUGH = 1024
"""Tokens to score if the trainer's probabilities are not available already."""


def own_tokens(algorithm: Algorithm, batch: TokenBatch) -> Iterator[tuple[str, Tensor]]:
    """The views of the student that sampled tokens, and which [n] those are."""
    if algorithm.acting.expert:  # recorded with other weights, if they were sampled at all
        return
    for name in sorted({STUDENT, *algorithm.all_actors()} & set(batch.actors)):
        if (
            algorithm.all_views()[name].policy == "self"
            and name not in algorithm.acting.hinted_share
        ):
            where = (batch.writer == batch.actors.index(name)).nonzero().squeeze(-1)
            if len(where):
                yield name, where


@dataclass(slots=True, kw_only=True)
class Mismatch:
    """Collects |log p - log q| of a step's tokens until the first update.

    limit   of the mean, in nats
    unseen  by view: which tokens [N] it sampled, where nothing has scored them yet
    """

    limit: float = math.inf
    unseen: dict[str, Tensor] = field(default_factory=dict)
    found: list[Tensor] = field(default_factory=list)
    glimpsed: list[Tensor] = field(default_factory=list)  # in the first passes of the update

    def add(self, trainer: Tensor, sampler: Tensor) -> None:
        """Log-probabilities [n] of the same tokens."""
        self.found.append(_apart(trainer, sampler))

    @torch.no_grad()
    def glimpse(self, batch: TokenBatch, live: Mapping[str, Scores], index: Tensor) -> None:
        """Compare some sampled tokens with live scores of the tokens index[n], taken before the
        first update: no extra pass, and the LM head on a few tokens only."""
        for name in self.unseen.keys() & live.keys():
            room = max(0, ENOUGH - self.count)
            here = self.unseen[name][index].nonzero().squeeze(-1)[:room]
            if len(here):
                self.glimpsed.append(_apart(live[name].at(here).logp, batch.logp[index[here]]))

    @property
    def count(self) -> int:
        return sum(map(len, (*self.found, *self.glimpsed)))

    def numbers(self) -> dict[str, float]:
        """Mean, 99th percentile and largest; nothing where nothing was compared."""
        if not self.count:
            return {}
        apart = torch.cat([*self.found, *self.glimpsed]).sort().values
        at = max(0, math.ceil(SHARE * len(apart)) - 1)
        return {"mean": float(apart.mean()), "p99": float(apart[at]), "max": float(apart[-1])}

    def check(self, step: int) -> None:
        """Raises RunError where the mean is above the limit, or no number."""
        numbers = self.numbers()
        if numbers and not numbers["mean"] <= self.limit:
            raise RunError(
                f"in step {step} the sampler's log-probabilities differ from the trainer's by "
                f"{numbers['mean']:.3g} nats a token on average (99th percentile {numbers['p99']:.3g}, "
                f"largest {numbers['max']:.3g}; at most policy.sampler.max_mismatch = "
                f"{self.limit:g}), so it does not sample from the trained model: check that "
                "it has the weights and computes in the same dtype, or raise "
                "policy.sampler.max_mismatch"
            )


def _apart(trainer: Tensor, sampler: Tensor) -> Tensor:
    return (trainer.detach().float() - sampler.float()).abs().cpu()


def compare(
    algorithm: Algorithm, batch: TokenBatch, if_read: Callable[[str], Scores | None], limit: float
) -> Mismatch:
    """Compare sampled tokens with the scores that a view has already, if they have been read."""
    mismatch = Mismatch(limit=limit)
    for name, where in own_tokens(algorithm, batch):
        scores = if_read(name)
        seen = where[:0] if scores is None else where[scores.scored[where]]
        if scores is None or not len(seen):
            empty = torch.zeros_like(batch.token, dtype=torch.bool)
            mismatch.unseen[name] = empty.index_fill(0, where, True)
        else:
            mismatch.add(scores.at(seen).logp, batch.logp[seen])
    return mismatch


def corrected(
    algorithm: Algorithm, batch: TokenBatch, before: Mapping[str, Scores], cap: float
) -> tuple[TokenBatch, Tensor]:
    """The batch as if the trainer had sampled it, and each token's importance weight [N]."""
    logp, weight = batch.logp.clone(), torch.ones_like(batch.logp)
    for name, where in own_tokens(algorithm, batch):
        logp[where] = before[name].logp[where].detach().to(logp)
        # clamped before the exponential, so that the ratio is never infinite
        weight[where] = (logp[where] - batch.logp[where]).clamp(max=math.log(cap)).exp()
    return replace(batch, logp=logp), weight
