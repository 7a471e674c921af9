"""Advantages and segment reductions against plain Python."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tutelage.maths.advantages import group_relative, leave_one_out
from tutelage.maths.segments import (
    future_sum,
    segment_mean,
    segment_min_max,
    segment_std,
    segment_sum,
)

VALUES = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.integers(0, 4)), min_size=1, max_size=25
)


@given(rows=VALUES)
def test_segments_as_loops(rows: list[tuple[float, int]]) -> None:
    x = torch.tensor([v for v, _ in rows], dtype=torch.float64)
    index = torch.tensor([k for _, k in rows])
    of = [[v for v, k in rows if k == s] for s in range(6)]  # segment 5 is always empty
    total = torch.tensor([math.fsum(s) for s in of], dtype=torch.float64)
    mean = torch.tensor([statistics.fmean(s) if s else 0.0 for s in of], dtype=torch.float64)
    std = torch.tensor([statistics.pstdev(s) if s else 0.0 for s in of], dtype=torch.float64)
    assert_close(segment_sum(x, index, 6), total, atol=1e-9, rtol=1e-9)
    assert_close(segment_mean(x, index, 6), mean, atol=1e-9, rtol=1e-9)
    assert_close(segment_std(x, index, 6), std, atol=1e-6, rtol=1e-6)
    low, high = segment_min_max(x, index, 6)
    assert low.tolist() == [min(s, default=math.inf) for s in of]
    assert high.tolist() == [max(s, default=-math.inf) for s in of]


@given(rows=VALUES, std=st.booleans())
def test_group_relative_as_a_loop(rows: list[tuple[float, int]], std: bool) -> None:
    result = group_relative(
        torch.tensor([v for v, _ in rows], dtype=torch.float64),
        torch.tensor([k for _, k in rows]),
        std=std,
    ).tolist()
    for value, (v, k) in zip(result, rows, strict=True):
        peers = [w for w, j in rows if j == k]
        centred = v - statistics.fmean(peers)
        want = centred / (statistics.pstdev(peers) + 1e-6) if std else centred
        assert value == pytest.approx(want, rel=1e-6, abs=1e-6)


@given(seed=st.integers(0, 2**31 - 1), shift=st.floats(-5, 5), scale=st.floats(0.1, 9))
def test_group_relative_ignores_shift_and_scale_and_sums_to_zero(
    seed: int, shift: float, scale: float
) -> None:
    gen = torch.Generator().manual_seed(seed)
    r = torch.rand(12, generator=gen, dtype=torch.float64)
    g = torch.arange(12) % 3
    a = group_relative(r, g)
    assert_close(group_relative(r + shift, g), a, atol=1e-6, rtol=1e-4)
    assert_close(group_relative(r * scale, g), a, atol=1e-3, rtol=1e-3)
    assert_close(segment_sum(a, g, 3), torch.zeros(3, dtype=a.dtype), atol=1e-9, rtol=0)
    order = torch.randperm(12, generator=gen)
    assert_close(group_relative(r[order], g[order]), a[order])


@given(value=st.floats(-50, 50, width=32), size=st.integers(1, 40), std=st.booleans())
def test_equal_outcomes_earn_nothing(value: float, size: int, std: bool) -> None:
    """Seven returns of 9.9 in float32 have a mean a rounding away from 9.9; divided by a standard
    deviation of the same rounding that would be an advantage of half a unit."""
    result = group_relative(
        torch.full((size,), value), torch.zeros(size, dtype=torch.long), std=std
    )
    assert float(result.abs().max()) < 1e-6


@given(rows=VALUES)
def test_leave_one_out_as_a_loop(rows: list[tuple[float, int]]) -> None:
    result = leave_one_out(
        torch.tensor([v for v, _ in rows], dtype=torch.float64), torch.tensor([k for _, k in rows])
    ).tolist()
    for i, (v, k) in enumerate(rows):
        others = [w for j, (w, key) in enumerate(rows) if key == k and j != i]
        want = v - statistics.fmean(others) if others else 0.0
        assert result[i] == pytest.approx(want, rel=1e-6, abs=1e-6)


@given(
    rewards=st.lists(
        st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6), min_size=1, max_size=5
    ),
    gamma=st.floats(0, 1),
)
def test_discounted_returns_as_a_loop(rewards: list[list[float]], gamma: float) -> None:
    flat = torch.tensor([r for episode in rewards for r in episode], dtype=torch.float64)
    owner = torch.tensor([e for e, episode in enumerate(rewards) for _ in episode])
    want = [
        sum(gamma**i * r for i, r in enumerate(episode[k:]))
        for episode in rewards
        for k in range(len(episode))
    ]
    assert future_sum(flat, owner, gamma).tolist() == pytest.approx(want, abs=1e-9)
    assert flat.tolist() == [r for episode in rewards for r in episode]  # the input is kept


def test_nothing_at_all_has_no_advantage() -> None:
    none, index = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    for result in (group_relative(none, index), leave_one_out(none, index)):
        assert result.shape == (0,)
    assert future_sum(none, index, 0.9).shape == (0,)
