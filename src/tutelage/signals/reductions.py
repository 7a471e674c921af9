"""Token weights: the weight of each sampled token in a step's loss.

Each may be restricted to some tokens by a weight `of`, such as `varied()`: masked-out tokens count
neither in the loss nor in its normaliser.

A minibatch's loss is divided by its share of the step, the sum of its tokens' weights. Weights that
do not sum to 1 (`episode_sum`) need that share from elsewhere: set `Algorithm.minibatch_weight` to
the mean over the same episodes.
"""

import torch

from tutelage.maths.advantages import EQUAL_RETURNS
from tutelage.maths.segments import segment_min_max, segment_sum
from tutelage.objective import ONE, Signal, Step


def _divided(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """x / by, where x is 0 wherever `by` is: there the quotient is 0 too."""
    return x / torch.where(by == 0, 1.0, by)


def _named(name: str, of: Signal) -> str:
    return name if of.is_one else f"{name}[{of.name}]"


def token_mean(of: Signal = ONE) -> Signal:
    """Every token has the same weight: w_t / sum_t w_t."""

    def weight(s: Step) -> torch.Tensor:
        w = of(s)
        return _divided(w, w.sum())

    return of.derived(weight, _named("token_mean", of))


def _by_episode(s: Step, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N] the summed weight of each token's episode, [] the number of episodes that have any."""
    total = segment_sum(w, s.batch.owner, len(s.batch.group))
    return total[s.batch.owner], (total != 0).sum()


def episode_mean(of: Signal = ONE) -> Signal:
    """Every episode has the same weight, whatever its length: w_t / (sum_{t in e} w_t E)."""

    def weight(s: Step) -> torch.Tensor:
        w = of(s)
        total, count = _by_episode(s, w)
        return _divided(w, total * count)

    return of.derived(weight, _named("episode_mean", of))


def episode_sum(of: Signal = ONE) -> Signal:
    """An episode weighs as much as it has tokens: w_t / E, the loss of whole sequences. Needs
    `minibatch_weight=episode_mean(of)`."""

    def weight(s: Step) -> torch.Tensor:
        w = of(s)
        return _divided(w, _by_episode(s, w)[1])

    return of.derived(weight, _named("episode_sum", of))


def varied() -> Signal:
    """1 in groups whose returns differ, 0 where all are equal and every advantage is 0."""

    def of(s: Step) -> torch.Tensor:
        b = s.batch
        low, high = segment_min_max(b.outcome, b.group, int(b.group.max()) + 1)
        return (high - low > EQUAL_RETURNS).float()[b.group][b.owner]

    return Signal(of, "varied", compares_group=True)
