"""What a token counts in the loss of a step. Each may be restricted to some tokens by a weight `of`
(such as `varied()`); what it leaves out counts nothing, in the loss or in what the loss is over.

A minibatch's loss is divided by how much of the step it is: the sum of what its tokens count. Only
sums need to be told what that is instead, with `Algorithm.size` the mean over the same episodes.
"""

import torch

from tutelage.maths.segments import segment_min_max, segment_sum
from tutelage.objective import ONE, Signal, Step


def _divided(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """x / by, where x is 0 wherever `by` is: there the quotient is 0 too."""
    return x / torch.where(by == 0, 1.0, by)


def _named(name: str, of: Signal) -> str:
    return name if of is ONE else f"{name}[{of.name}]"


def token_mean(of: Signal = ONE) -> Signal:
    """Every token counts the same: w_t / sum_t w_t."""

    def share(s: Step) -> torch.Tensor:
        weight = of(s)
        return _divided(weight, weight.sum())

    return Signal(share, _named("token_mean", of))


def _by_episode(s: Step, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N] the weight of each token's whole episode, [] the number of episodes that have any."""
    whole = segment_sum(weight, s.batch.owner, len(s.batch.group))
    return whole[s.batch.owner], (whole != 0).sum()


def episode_mean(of: Signal = ONE) -> Signal:
    """Every episode counts the same, whatever its length: w_t / (sum_{t in e} w_t E)."""

    def share(s: Step) -> torch.Tensor:
        weight = of(s)
        whole, count = _by_episode(s, weight)
        return _divided(weight, whole * count)

    return Signal(share, _named("episode_mean", of))


def episode_sum(of: Signal = ONE) -> Signal:
    """An episode counts as often as it has tokens: w_t / E, the loss of whole sequences. Needs
    `size=episode_mean(of)`."""

    def share(s: Step) -> torch.Tensor:
        weight = of(s)
        return _divided(weight, _by_episode(s, weight)[1])

    return Signal(share, _named("episode_sum", of))


def varied() -> Signal:
    """1 in groups whose returns differ, 0 where all are equal and no advantage can tell them apart."""

    def of(s: Step) -> torch.Tensor:
        b = s.batch
        low, high = segment_min_max(b.outcome, b.group, int(b.group.max()) + 1)
        # returns are float64 sums: what differs by less than this differs by rounding
        return (high - low > 1e-9).float()[b.group][b.owner]

    return Signal(of, "varied")
