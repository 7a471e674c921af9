"""How much better an outcome was than its peers. No gradient, no tokens: one number per outcome."""

import torch
from torch import Tensor

from understudy.maths.segments import segment_mean, segment_std, segment_sum


def group_relative(outcome: Tensor, group: Tensor, *, std: bool = True) -> Tensor:
    """GRPO: outcome[E] minus its group's mean, over its group's std if asked. In float64, because
    equal outcomes of 9.9 have a float32 mean that is not quite 9.9, and over a standard deviation
    of the same rounding the difference would count as much as a success.

    >>> group_relative(torch.tensor([1.0, 0.0, 5.0]), torch.tensor([0, 0, 1]), std=False).tolist()
    [0.5, -0.5, 0.0]
    """
    size = int(group.max()) + 1 if len(group) else 0
    exact = outcome.double()
    centred = exact - segment_mean(exact, group, size)[group]
    scale = segment_std(exact, group, size)[group] + 1e-6 if std else 1.0
    return (centred / scale).to(outcome.dtype)


def leave_one_out(outcome: Tensor, group: Tensor) -> Tensor:
    """RLOO: outcome[E] minus the mean of the *others* in its group; 0 for a group of one."""
    size = int(group.max()) + 1 if len(group) else 0
    count = segment_sum(torch.ones_like(outcome), group, size)[group]
    return group_relative(outcome, group, std=False) * count / (count - 1).clamp(min=1)


def discounted_returns(reward: Tensor, episode: Tensor, gamma: float) -> Tensor:
    """reward[U] of consecutive turns -> discounted return from each turn to its episode's end.

    >>> discounted_returns(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0, 0, 1]), 0.5).tolist()
    [0.5, 1.0, 1.0]
    """
    out = reward.clone()
    for u in range(len(reward) - 2, -1, -1):
        if episode[u] == episode[u + 1]:
            out[u] = reward[u] + gamma * out[u + 1]
    return out
