"""Scores by a policy whose tokens are other ones than those that were sampled.

Such a policy reads the text of a turn in its own tokens. In a chunk of text that both cut alike, its
tokens' log-probabilities have a sum Q, and the sampled tokens have a sum P. Each of the chunk's n
sampled tokens y_t is given

    log q(y_t) = log p_old(y_t) + (Q - P) / n

so that they add up to Q and share the gap to p_old evenly; where n = 1 that is Q itself. Tokens in no
chunk have log p_old, and count in no term (`Coverage`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution
from tutelage.maths.segments import segment_mean
from tutelage.objective.scores import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What another policy's tokens say of N sampled ones.

    chunk   [N] the number of each token's chunk; -1 where it is in none
    single  [N] bool: it is the same token for both, so that their distributions can be compared
    """

    chunk: Tensor
    single: Tensor

    @property
    def covered(self) -> Tensor:
        """[N] bool: the tokens in a chunk."""
        return self.chunk >= 0

    def to(self, device: str) -> "Coverage":
        return Coverage(chunk=self.chunk.to(device), single=self.single.to(device))

    def at(self, i: Tensor) -> "Coverage":
        """That of the tokens i[n], which hold whole chunks."""
        return Coverage(chunk=self.chunk[i], single=self.single[i])

    def spread(self, evenly: Tensor, recorded: Tensor) -> Tensor:
        """Q / n of each token [N] and log p_old [N] -> log q [N], as above."""
        numbers, chunk = torch.unique(self.chunk, return_inverse=True)
        size = torch.bincount(chunk, minlength=len(numbers))[chunk]
        mean = segment_mean(recorded, chunk, len(numbers))[chunk]
        among = torch.where(size == 1, evenly, recorded + (evenly - mean))
        return torch.where(self.covered, among, recorded)


class Aligned(Scores):
    """Scores of N sampled tokens in chunks: their log-probabilities are their chunks' shares, and
    their distributions those of another vocabulary, valid at single tokens."""

    __slots__ = ()

    def __init__(self, *, logp: Tensor, distribution: Distribution | None, token: Tensor) -> None:
        super().__init__(logp=logp, distribution=distribution, token=token)

    def with_logp(self, logp: Tensor) -> "Aligned":
        """The same distributions, with other log-probabilities [N]."""
        return Aligned(logp=logp, distribution=self._distribution, token=self.token)

    def to(self, device: str) -> "Aligned":
        of = self._distribution
        return Aligned(
            logp=self.logp.to(device),
            distribution=None if of is None else of.to(device),
            token=self.token.to(device),
        )

    def at(self, i: Tensor) -> "Aligned":
        of = self._distribution
        return Aligned(
            logp=self.logp[i].detach(),
            distribution=None if of is None else of[i].detach(),
            token=self.token[i],
        )

    def with_more(self, other: Scores) -> "Aligned":
        """Together with the scores of other tokens of the same view."""
        of = self._distribution
        if of is not None:
            hidden = torch.cat([of.hidden, other.distribution.hidden])
            of = replace(of, hidden=hidden)
        return Aligned(
            logp=torch.cat([self.logp, other.logp]),
            distribution=of,
            token=torch.cat([self.token, other.token]),
        )
