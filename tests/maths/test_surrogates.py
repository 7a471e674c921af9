"""Surrogates against loops: values, clipping, and extreme ratios."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tutelage.maths.surrogates import (
    Clipped,
    Surrogate,
    importance,
    ppo_clip,
    ratio,
    score_function,
)

SEEDS = st.integers(0, 2**31 - 1)
EVERY = {
    "score_function": score_function(),
    "importance": importance(),
    "ppo_clip": ppo_clip(),
    "clip_high": ppo_clip(0.2, 0.28),
    "dual": ppo_clip(dual=3.0),
}


def sample(seed: int, n: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """log p with gradient, log p_old, advantage."""
    gen = torch.Generator().manual_seed(seed)
    old = -torch.rand(n, generator=gen, dtype=torch.float64) * 4
    moved = old + torch.randn(n, generator=gen, dtype=torch.float64)
    return moved.requires_grad_(), old, torch.randn(n, generator=gen, dtype=torch.float64)


@given(
    seed=SEEDS,
    low=st.floats(0.01, 1.0),
    high=st.none() | st.floats(0.01, 2.0),
    dual=st.none() | st.floats(1.01, 10.0),
)
def test_ppo_as_a_loop(seed: int, low: float, high: float | None, dual: float | None) -> None:
    logp, old, advantage = sample(seed)
    result = ppo_clip(low, high, dual)(logp, old, advantage).tolist()
    for value, x, o, a in zip(result, logp.tolist(), old.tolist(), advantage.tolist(), strict=True):
        r = math.exp(x - o)
        top = 1 + (low if high is None else high)
        loss = max(-a * r, -a * min(max(r, 1 - low), top))
        if dual is not None and a < 0:
            loss = min(loss, -a * dual)
        assert value == pytest.approx(loss, rel=1e-9, abs=1e-12)


@given(seed=SEEDS)
def test_ppo_stops_pushing_where_the_ratio_has_left_the_region(seed: int) -> None:
    logp, old, advantage = sample(seed)
    ppo_clip(0.2, 0.3, dual=3.0)(logp, old, advantage).sum().backward()
    r = (logp - old).exp().detach()
    left = ((advantage > 0) & (r > 1.3)) | ((advantage < 0) & ((r < 0.8) | (r > 3.0)))
    assert logp.grad is not None
    assert left.any()
    assert (logp.grad[left] == 0).all()
    assert_close(logp.grad[~left], (-r * advantage)[~left])


@given(seed=SEEDS)
def test_importance_is_unclipped(seed: int) -> None:
    logp, old, advantage = sample(seed)
    result = importance()(logp, old, advantage)
    assert_close(result, -advantage * (logp - old).exp())
    result.sum().backward()
    assert_close(logp.grad, (-advantage * (logp - old).exp()).detach())


@given(seed=SEEDS)
def test_the_score_function_reads_no_ratio(seed: int) -> None:
    logp, old, advantage = sample(seed)
    result = score_function()(logp, old + 100, advantage)
    assert_close(result, -advantage * logp)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shift", [-math.inf, -1e4, -200.0, 200.0, 1e4, math.inf])
def test_an_extreme_ratio_never_spoils_a_token_without_advantage(name: str, shift: float) -> None:
    """exp(200) is infinite in float32, and zero times infinity is not a number."""
    logp = torch.tensor([-1.0, -1.0], requires_grad=True)
    old = torch.tensor([-1.0 - shift, -1.0])
    result = EVERY[name](logp, old, torch.tensor([0.0, 1.0]))
    result.sum().backward()
    assert result[0].item() == 0
    assert torch.isfinite(result).all()
    assert logp.grad is not None
    assert float(logp.grad[0]) == 0
    assert float(logp.grad[1]) == -1


@pytest.mark.parametrize("name", [name for name in EVERY if name != "score_function"])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_an_extreme_ratio_gives_a_finite_loss_and_gradient(name: str, advantage: float) -> None:
    logp = torch.tensor([-1.0, -300.0], requires_grad=True)
    result = EVERY[name](logp, torch.tensor([-300.0, -1.0]), torch.full((2,), advantage))
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert logp.grad is not None
    assert torch.isfinite(logp.grad).all()


def test_the_dual_clip_bounds_what_one_exploded_token_can_do() -> None:
    logp, old = torch.tensor([-1.0]), torch.tensor([-11.0])
    bounded: Surrogate = ppo_clip(dual=3.0)
    assert float(bounded(logp, old, torch.tensor([-2.0]))) == pytest.approx(6.0)
    assert float(ppo_clip()(logp, old, torch.tensor([-2.0]))) == pytest.approx(2 * math.exp(10))
    # a positive advantage is bounded by the clip itself
    assert float(bounded(logp, old, torch.tensor([2.0]))) == pytest.approx(-2.4)


def test_the_ratio() -> None:
    got = ratio(torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -1.0]))
    assert_close(got, torch.tensor([math.e, 1 / math.e]))


@pytest.mark.parametrize("bad", [(-0.1, None, None), (1.1, None, None), (0.2, -0.1, None)])
def test_an_impossible_clip_range_is_refused(bad: tuple[float, float | None, None]) -> None:
    with pytest.raises(ValueError, match="clip range"):
        ppo_clip(*bad)


@pytest.mark.parametrize("dual", [1.0, 0.5, -3.0])
def test_a_dual_clip_that_would_clip_the_ratio_itself_is_refused(dual: float) -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        ppo_clip(dual=dual)


@given(seed=SEEDS)
@pytest.mark.parametrize("name", ["ppo_clip", "clip_high", "dual"])
def test_clipped_tokens_are_those_without_a_gradient(name: str, seed: int) -> None:
    logp, old, advantage = sample(seed)
    surrogate = EVERY[name]
    assert isinstance(surrogate, Clipped)
    (slope,) = torch.autograd.grad(surrogate(logp, old, advantage).sum(), logp)
    assert_close(surrogate.clips(ratio(logp, old), advantage), slope == 0)
