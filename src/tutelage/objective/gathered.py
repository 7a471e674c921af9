"""Scores of a step whose passes are shared between processes."""

import torch
from torch import Tensor

from tutelage.errors import ConfigError
from tutelage.maths.distributions import Distribution
from tutelage.objective.aligned import Aligned
from tutelage.objective.scores import Scores, concatenated


class Gathered(Scores):
    """Log-probabilities of n tokens, and the distributions of those that this process scored.

    A loss reads distributions of tokens whose passes are this process's; signals, which compare
    tokens of the whole step, read log-probabilities.

    logp  [n] of every token
    own   scores of the tokens that this process scored; None where there are none
    row   [n] the index of each token among those, or -1
    full  whether whoever scored a token has its distribution
    """

    __slots__ = ("_full", "_own", "_row")

    def __init__(self, *, logp: Tensor, own: Scores | None, row: Tensor, full: bool) -> None:
        super().__init__(logp=logp)
        self._own, self._row, self._full = own, row, full

    @property
    def here(self) -> Tensor:
        return self._row >= 0

    @property
    def has_distribution(self) -> bool:
        return self._full

    def at(self, i: Tensor) -> Scores:
        row = self._row[i]
        here = row >= 0
        if self._own is not None and len(row) and here.all():
            return self._own.at(row)
        own = self._own.at(row[here]) if self._own is not None and here.any() else None
        row = torch.where(here, here.cumsum(0) - 1, -1)
        return Gathered(logp=self.logp[i].detach(), own=own, row=row, full=self._full)

    @property
    def distribution(self) -> Distribution:
        self.check()
        if self._own is None or not self.here.all():
            raise ConfigError(
                "with several processes (torchrun) each has the distributions of its own episodes "
                "alone, but a signal reads those of the whole step: let it read log-probabilities "
                "(`logp`), or train in one process"
            )
        return self._own.distribution[self._row]

    def with_more(self, other: "Gathered") -> "Gathered":
        """Together with the scores of other tokens of the same view."""
        owns = [own for own in (self._own, other._own) if own is not None]
        start = 0 if self._own is None else len(self._own)
        row = torch.where(other.here, other._row + start, -1)
        own = next(iter(owns), None)
        if len(owns) == 2:
            one, more = owns
            own = one.with_more(more) if isinstance(one, Aligned) else concatenated(one, more)
        return Gathered(
            logp=torch.cat([self.logp, other.logp]),
            own=own,
            row=torch.cat([self._row, row]),
            full=self._full,
        )
