"""Advantages: outcomes relative to those of other episodes, as tensors without gradient."""

import torch
from torch import Tensor

from tutelage.maths.segments import segment_mean, segment_std, segment_sum

EQUAL_RETURNS = 1e-9
"""Returns closer than this are equal: they are float64 sums and differ by rounding only."""


def group_relative(outcome: Tensor, group: Tensor, *, std: bool = True) -> Tensor:
    """GRPO: outcome[E] minus its group's mean, divided by its group's std if `std`.

    In float64: the float32 mean of equal outcomes 9.9 is not exactly 9.9, and divided by a std of
    the same rounding error, that difference would weigh as much as a success.

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


def row_relative(score: Tensor, group: Tensor, *, std: bool = True) -> Tensor:
    """GRPO over turns, as agent frameworks compute it: score[U] of single turns minus the mean of
    all turns of their group, divided by the turns' sample standard deviation (n - 1) if `std`. A
    group of one turn has mean 0 and deviation 1, so that its advantage is its score.

    >>> row_relative(torch.tensor([1.0, 0.0, 5.0]), torch.tensor([0, 0, 1]), std=False).tolist()
    [0.5, -0.5, 5.0]
    """
    size = int(group.max()) + 1 if len(group) else 0
    exact = score.double()
    count = segment_sum(torch.ones_like(exact), group, size)
    alone = count == 1
    mean = segment_mean(exact, group, size).masked_fill(alone, 0.0)
    centred = exact - mean[group]
    if not std:
        return centred.to(score.dtype)
    variance = segment_sum(centred**2, group, size) / (count - 1).clamp(min=1)
    return (centred / (variance.sqrt().masked_fill(alone, 1.0) + 1e-6)[group]).to(score.dtype)


def normalised(x: Tensor) -> Tensor:
    """x[N] minus its mean, divided by its standard deviation (REINFORCE++, arXiv:2501.03262: over the
    tokens of a whole batch). All equal gives 0.

    >>> normalised(torch.tensor([1.0, 3.0])).tolist()
    [-1.0, 1.0]
    """
    exact = x.double()
    centred = exact - exact.mean() if len(x) else exact
    return (centred / (centred.square().mean().sqrt() + 1e-8)).to(x.dtype) if len(x) else x.clone()


def sum_to_end(x: Tensor, index: Tensor) -> Tensor:
    """x[N] of consecutive segments -> the sum from each entry to its segment's end.

    >>> sum_to_end(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1])).tolist()
    [3.0, 2.0, 4.0]
    """
    exact = x.double()
    after = exact.flip(0).cumsum(0).flip(0)  # to the end of everything
    size = int(index.max()) + 1 if len(index) else 0
    total = segment_sum(exact, index, size)
    later = total.flip(0).cumsum(0).flip(0) - total  # after the segment
    return (after - later[index]).to(x.dtype)
