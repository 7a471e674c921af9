"""Bind an algorithm to one step: everything that needs the whole step is computed here, once."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.objective.algorithm import Algorithm
from tutelage.objective.scores import Scores
from tutelage.objective.step import Step
from tutelage.objective.terms import Bound


@dataclass(frozen=True, slots=True)
class Objective:
    """The whole loss of a step, still per token: sum it over slices in any partition and it is
    the same."""

    terms: tuple[tuple[str, Bound], ...]
    share: Tensor  # [N]: what a token counts, sums to 1 in a mean
    size: Tensor  # [N], sums to 1: what of the step a token is; all 0 where nothing counts

    def __call__(self, live: Mapping[str, Scores], i: Tensor) -> dict[str, Tensor]:
        """Live scores of a slice and its token indices [n] -> each term's part of the loss [n]."""
        share = self.share[i]
        return {
            name: share * term(live, i) if self._counts(term, i) else torch.zeros_like(share)
            for name, term in self.terms
        }

    def reads(self, i: Tensor) -> frozenset[str]:
        """The views whose live scores the tokens i[n] need: none where nothing counts."""
        return frozenset(
            view for _, term in self.terms if self._counts(term, i) for view in term.reads
        )

    @property
    def counting(self) -> Tensor:
        """[N] bool: the tokens at which any term counts."""
        none = torch.zeros_like(self.share, dtype=torch.bool)
        return sum((term.counts for _, term in self.terms), none) & (self.share != 0)

    def _counts(self, term: Bound, i: Tensor) -> bool:
        return bool((term.counts[i] & (self.share[i] != 0)).any())


def bind(algorithm: Algorithm, step: Step) -> Objective:
    """Look at the whole step once: advantages, weights and reductions are fixed from here on."""
    share = algorithm.reduction(step)
    counting = step.within(share != 0)
    terms = tuple((term.name, term.bind(counting)) for term in algorithm.terms)
    for _, bound in terms:
        bound.settle()
    return Objective(terms, share, share if algorithm.size is None else algorithm.size(step))
