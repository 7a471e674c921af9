"""Bind an algorithm to one step: everything that needs all of its tokens is computed here once."""

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
    """The loss of a step per token: its sum over slices is the same for any partition.

    terms             name and bound term
    token_weight      [N] weight of each token in the loss; sums to 1 in a mean
    minibatch_weight  [N] each token's share of the step (sums to 1; zero for masked-out tokens)
    """

    terms: tuple[tuple[str, Bound], ...]
    token_weight: Tensor
    minibatch_weight: Tensor

    def __call__(self, live: Mapping[str, Scores], i: Tensor) -> dict[str, Tensor]:
        """Live scores of a slice and its token indices [n] -> each term's part of the loss [n]."""
        weight = self.token_weight[i]
        return {
            name: weight * term(live, i) if self._counts(term, i) else torch.zeros_like(weight)
            for name, term in self.terms
        }

    def ratios(self, live: Mapping[str, Scores], i: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """By policy-gradient term: the importance ratio of each token of the slice that counts, and
        whether it is clipped (see `terms.Ratios`). Call it with scores whose losses are computed."""
        weighed = self.token_weight[i] != 0
        return {
            name: _of(term.ratios(live, i), weighed[term.counts[i]])
            for name, term in self.terms
            if term.ratios is not None and self._counts(term, i)
        }

    def reads(self, i: Tensor) -> frozenset[str]:
        """The views whose live scores the tokens i[n] need; empty if no term counts there."""
        return frozenset(
            view for _, term in self.terms if self._counts(term, i) for view in term.reads
        )

    @property
    def counting(self) -> Tensor:
        """[N] bool: the tokens at which any term counts."""
        none = torch.zeros_like(self.token_weight, dtype=torch.bool)
        return sum((term.counts for _, term in self.terms), none) & (self.token_weight != 0)

    def _counts(self, term: Bound, i: Tensor) -> bool:
        return bool((term.counts[i] & (self.token_weight[i] != 0)).any())


def _of(pair: tuple[Tensor, Tensor], chosen: Tensor) -> tuple[Tensor, Tensor]:
    return pair[0][chosen], pair[1][chosen]


def bind(algorithm: Algorithm, step: Step) -> Objective:
    """Compute advantages and weights from the whole step once; they are fixed from here on.

    Raises ConfigError for names of views that the algorithm does not have.
    """
    algorithm.check_views()
    token_weight = algorithm.token_weight(step)
    counting = step.within(token_weight != 0)
    terms = tuple((term.name, term.bind(counting)) for term in algorithm.terms)
    # Every term has requested its teacher's scores by now, so that those of one view are computed
    # in one pass over the tokens of all terms
    for _, bound in terms:
        bound.resolve()
    share = algorithm.minibatch_weight
    return Objective(terms, token_weight, token_weight if share is None else share(step))
