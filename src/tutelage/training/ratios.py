"""How far a step moved the policy from the one that sampled: importance ratios and clipped tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True, kw_only=True)
class _Sums:
    tokens: int = 0
    ratio: float = 0.0
    largest: float = 0.0
    clipped: int = 0


@dataclass(slots=True, kw_only=True)
class RatioStatistics:
    """Collects p / p_old of a step's tokens by term, over all its minibatches and epochs.

    In the first minibatch the policy is still the one that sampled, so its ratios are 1.
    """

    terms: dict[str, _Sums] = field(default_factory=dict)

    def add(self, found: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take in the ratios [m] of a slice, by term, and which of them are clipped [m]."""
        for name, (ratio, clipped) in found.items():
            if not len(ratio):
                continue
            sums = self.terms.setdefault(name, _Sums())
            sums.tokens += len(ratio)
            sums.ratio += float(ratio.double().sum())
            sums.largest = max(sums.largest, float(ratio.max()))
            sums.clipped += int(clipped.sum())

    def merge(self, other: "RatioStatistics") -> None:
        """Take in what another process collected of the same step."""
        for name, found in other.terms.items():
            sums = self.terms.setdefault(name, _Sums())
            sums.tokens += found.tokens
            sums.ratio += found.ratio
            sums.largest = max(sums.largest, found.largest)
            sums.clipped += found.clipped

    def numbers(self) -> dict[str, dict[str, float]]:
        """By term: the ratio's mean and largest value, and the share of tokens that are clipped."""
        return {
            name: {
                "mean": sums.ratio / sums.tokens,
                "max": sums.largest,
                "clipped": sums.clipped / sums.tokens,
            }
            for name, sums in self.terms.items()
        }
