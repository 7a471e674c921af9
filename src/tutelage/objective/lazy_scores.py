"""Scores under the pre-update weights, computed on first access and only for the tokens read.

Scores that no term reads are never computed: a reference whose KL weight is 0, teacher turns that an
`acted_by` mask excludes, a view that reads the same ids as another one. Requests of several terms
for one view are gathered first, so that they share one forward pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution
from tutelage.objective.aligned import Aligned
from tutelage.objective.gathered import Gathered
from tutelage.objective.scores import Scores, concatenated

Fetch = Callable[[str, Tensor], tuple[Scores, Tensor]]
"""(view, tokens [N] bool) -> scores of n tokens, those among them, and their indices [n]."""


class Partial(Scores):
    """Scores of some of N tokens. `row` [N] is the index of each token among those, or -1."""

    __slots__ = ("_row", "_some")

    def __init__(self, some: Scores, row: Tensor) -> None:
        self._some, self._row, self._logp = some, row, None

    @property
    def has_distribution(self) -> bool:
        return self._some.has_distribution

    @property
    def scored(self) -> Tensor:
        return self._row >= 0

    @property
    def here(self) -> Tensor:
        here = self.scored
        here[self.scored] = self._some.here[self._row[self.scored]]
        return here

    @property
    def logp(self) -> Tensor:
        """[N] log-probability of each sampled token, NaN where it was not scored."""
        if self._logp is None:
            logps = self._some.logp.new_full((len(self._row),), torch.nan)
            logps[self.scored] = self._some.logp[self._row[self.scored]]
            self._logp = logps
        return self._logp

    def at(self, i: Tensor) -> Scores:
        row = self._row[i]
        if (row < 0).any():
            raise ValueError(
                "scores were read for tokens of weight 0, which were not scored; read them "
                "only where a term counts, or leave `tokenwise` out of the signal that reads them"
            )
        return self._some.at(row)

    def check(self) -> None:
        self._some.check()

    @property
    def distribution(self) -> Distribution:
        raise ValueError(
            "only some tokens were scored; read them with `at`, or leave `tokenwise` out of the "
            "signal that reads them"
        )


class LazyScores(Mapping[str, Scores]):
    """View -> its scores under the pre-update weights, computed when something first reads them.

    same   by view, the views named before it and the tokens [N] bool at which both read the same
           ids with the same weights: such tokens are scored once
    fetch  runs the forward pass for a view's tokens
    like   [N] any tensor of the step's tokens, for its length and device
    """

    def __init__(
        self, same: Mapping[str, Sequence[tuple[str, Tensor]]], fetch: Fetch, like: Tensor
    ) -> None:
        self._same, self._fetch = same, fetch
        self._no_tokens = torch.zeros_like(like, dtype=torch.bool)
        self._requested: dict[str, Tensor] = {}
        self._parts: dict[str, Scores] = {}  # scores computed so far, in order of computation
        self._row: dict[str, Tensor] = {}  # [N] index of each token in that, or -1
        self._scores: dict[str, Scores] = {}  # the last result of `of`

    def __getitem__(self, name: str) -> Scores:
        return self.of(name, ~self._no_tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self._same)

    def __len__(self) -> int:
        return len(self._same)

    def of(self, name: str, tokens: Tensor) -> Scores:
        """A view's scores of at least the tokens [N] bool."""
        if name not in self._same:
            raise KeyError(f"the algorithm has no view {name!r}, only {', '.join(self._same)}")
        requested = tokens | self._requested.get(name, self._no_tokens)
        missing = requested & ~self._scored(name)
        if missing.any():
            for other, equal in self._same[name]:
                if (shared := missing & equal).any():
                    index = shared.nonzero().squeeze(-1)
                    self._add(name, self.of(other, shared).at(index), index)
                    missing = missing & ~equal
            if missing.any():
                self._add(name, *self._fetch(name, missing))
            self._scores.pop(name, None)
        if name not in self._scores:
            self._scores[name] = self._assembled(name)
        return self._scores[name]

    def request(self, name: str, tokens: Tensor) -> Callable[[], Scores]:
        """Announce that a view's tokens [N] bool will be read before the update. They are computed
        at the first read, in one pass with everything else requested of the view by then."""
        self._requested[name] = tokens | self._requested.get(name, self._no_tokens)
        return cache(lambda: self.of(name, tokens))

    def within(self, tokens: Tensor) -> "Narrowed":
        """The same mapping, restricted to some tokens [N] bool."""
        return Narrowed(self, tokens)

    def if_read(self, name: str) -> Scores | None:
        """A view's scores if anything has read them, else None."""
        return self._scores.get(name)

    def _scored(self, name: str) -> Tensor:
        return self._row[name] >= 0 if name in self._row else self._no_tokens

    def _add(self, name: str, more: Scores, index: Tensor) -> None:
        before = self._parts.get(name)
        start = 0 if before is None else len(before)
        self._parts[name] = more if before is None else _joined(before, more)
        row = self._row.setdefault(name, torch.where(self._no_tokens, 0, -1))
        row[index] = torch.arange(start, start + len(index), device=row.device)

    def _assembled(self, name: str) -> Scores:
        if name not in self._parts:
            none = torch.zeros(0, device=self._no_tokens.device)
            return Partial(Scores(logp=none), torch.where(self._no_tokens, 0, -1))
        row = self._row[name]
        if row.equal(torch.arange(len(row), device=row.device)):
            return self._parts[name]
        return Partial(self._parts[name], row.clone())


def _joined(before: Scores, more: Scores) -> Scores:
    """The scores of some tokens of a view, and of others."""
    if isinstance(before, Gathered) and isinstance(more, Gathered):
        return before.with_more(more)
    if isinstance(before, Aligned):
        return before.with_more(more)
    return concatenated(before, more)


class Narrowed(Mapping[str, Scores]):
    """Lazy scores restricted to some tokens [N] bool, for readers that need no others."""

    def __init__(self, scores: LazyScores, tokens: Tensor) -> None:
        self.scores, self.tokens = scores, tokens

    def __getitem__(self, name: str) -> Scores:
        return self.scores.of(name, self.tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def with_frozen_head(scores: Scores, copies: list[Tensor]) -> Scores:
    """Pre-update scores for reading in later minibatches, whose LM head must not move.

    Distributions are kept as hidden states and multiplied by the LM head when read; the optimizer
    changes that head in place. One copy of it per step, appended to `copies`, serves all views.
    """
    if not scores.has_distribution:
        return scores
    distribution = scores.distribution
    if not copies:
        copies.append(distribution.head.clone())
    return scores.like(replace(distribution, head=copies[0]), slice(None))
