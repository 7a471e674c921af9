"""Divergences: zero iff equal, non-negative, bounded, with correct directions and gradients."""

import math
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tutelage.maths.divergences import coarsen, forward_kl, from_known, jensen_shannon, reverse_kl

SEEDS = st.integers(0, 2**31 - 1)
ALL = {"forward": forward_kl, "reverse": reverse_kl, "jensen_shannon": jensen_shannon}


def logps(seed: int, n: int = 5, v: int = 7, scale: float = 2.0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return (torch.randn(n, v, generator=gen, dtype=torch.float64) * scale).log_softmax(-1)


def test_the_direction_of_each_divergence_by_hand() -> None:
    student = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log()
    forward = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert float(forward_kl(student, teacher)) == pytest.approx(forward, rel=1e-12)
    assert float(reverse_kl(student, teacher)) == pytest.approx(reverse, rel=1e-12)
    beta = 0.3
    mixed = [beta * q + (1 - beta) * 0.5 for q in (0.9, 0.1)]
    js = beta * sum(q * math.log(q / m) for q, m in zip((0.9, 0.1), mixed, strict=True))
    js += (1 - beta) * sum(0.5 * math.log(0.5 / m) for m in mixed)
    assert float(jensen_shannon(student, teacher, beta)) == pytest.approx(js, rel=1e-12)


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_a_divergence_is_zero_where_the_two_agree_and_positive_elsewhere(
    name: str, seed: int
) -> None:
    p, q = logps(seed), logps(seed + 1)
    assert_close(ALL[name](p, p), torch.zeros(5, dtype=p.dtype), atol=1e-12, rtol=0)
    assert (ALL[name](p, q) > 0).all()


@given(seed=SEEDS, beta=st.floats(0.01, 0.99))
def test_jensen_shannon_is_bounded_by_the_entropy_of_beta(seed: int, beta: float) -> None:
    bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    result = jensen_shannon(logps(seed, scale=20), logps(seed + 1, scale=20), beta)
    assert (result <= bound + 1e-12).all()


@pytest.mark.parametrize("beta", [0.0, 1.0, -1.0, 1.5, math.nan])
def test_jensen_shannon_refuses_the_ends_where_it_is_no_kl(beta: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        jensen_shannon(logps(0), logps(1), beta)


@pytest.mark.parametrize(("beta", "kl"), [(1e-5, forward_kl), (1 - 1e-5, reverse_kl)])
def test_jensen_shannon_over_beta_tends_to_the_kls(beta: float, kl: object) -> None:
    p, q = logps(0, scale=0.5), logps(1, scale=0.5)
    scaled = jensen_shannon(p, q, beta) / min(beta, 1 - beta)
    assert_close(scaled, kl(p, q), rtol=1e-3, atol=1e-6)  # type: ignore[operator]


PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward": lambda p, q: (q.exp() * (q - p)).sum(-1),
    "reverse": lambda p, q: (p.exp() * (p - q)).sum(-1),
    "jensen_shannon": lambda p, q: _plain_jensen_shannon(p, q, 0.5),
    "jensen_shannon of 0.2": lambda p, q: _plain_jensen_shannon(p, q, 0.2),
}


def _plain_jensen_shannon(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = (beta * q.exp() + (1 - beta) * p.exp()).log()
    return beta * (q.exp() * (q - m)).sum(-1) + (1 - beta) * (p.exp() * (p - m)).sum(-1)


@pytest.mark.parametrize("name", PLAIN)
@given(seed=SEEDS)
def test_gradients_are_those_of_the_formulas(name: str, seed: int) -> None:
    """Also for log-probabilities that are not normalised, as autograd may move them."""
    result = partial(jensen_shannon, beta=0.2) if "of" in name else ALL[name]
    weight = torch.linspace(-1, 2, 5, dtype=torch.float64)
    numbers = []
    for function in (result, PLAIN[name]):
        p, q = logps(seed).requires_grad_(), logps(seed + 1)
        value = function(p, q)
        numbers.append((value.detach(), *torch.autograd.grad((weight * value).sum(), p)))
    assert_close(numbers[0], numbers[1], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q = logps(1, 3, 4)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ALL[name](z.log_softmax(-1), q), (x,))


@pytest.mark.parametrize("name", ALL)
def test_the_teacher_gets_no_gradient(name: str) -> None:
    p, q = logps(0).requires_grad_(), logps(1).requires_grad_()
    ALL[name](p, q).sum().backward()
    assert p.grad is not None
    assert q.grad is None


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS, k=st.integers(1, 6), peak=st.sampled_from([0.5, 2.0, 10.0]))
def test_coarsening_never_increases_a_divergence(name: str, seed: int, k: int, peak: float) -> None:
    p, q = logps(seed, scale=peak), logps(seed + 1, scale=peak)
    ids = q.topk(k).indices
    coarse = ALL[name](coarsen(p, ids), coarsen(q, ids))
    assert (coarse <= ALL[name](p, q) + 1e-9).all()


@given(seed=SEEDS, k=st.integers(1, 6), peak=st.sampled_from([0.5, 2.0, 10.0]))
def test_a_coarsened_distribution_is_normalised_and_keeps_its_entries(
    seed: int, k: int, peak: float
) -> None:
    p = logps(seed, scale=peak)
    ids = p.topk(k).indices
    result = coarsen(p, ids)
    assert_close(result[:, :k], p.gather(-1, ids))
    assert_close(result.exp().sum(-1), torch.ones(5, dtype=p.dtype), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("k", [2, 4])
def test_coarsening_in_float32_with_nothing_left_over_is_finite_with_gradient(
    name: str, k: int
) -> None:
    x = torch.tensor([[60.0, 0.0, -5.0, -9.0]], requires_grad=True)
    q = torch.tensor([[55.0, 1.0, -5.0, -9.0]]).log_softmax(-1)
    ids = q.topk(k).indices
    result = ALL[name](coarsen(x.log_softmax(-1), ids), coarsen(q, ids))
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


# -- from a teacher's likely tokens


def pooled_by_hand(p: list[float], known: dict[int, float]) -> float:
    """sum_v q_v (log q_v - log p_v) + r (log r - log p_r) over the known v and the pooled others."""
    value, rest, others = 0.0, 1.0, 0.0
    for v, x in enumerate(p):
        if v in known:
            value += math.exp(known[v]) * (known[v] - x)
            rest -= math.exp(known[v])
        else:
            others += math.exp(x)
    return value + (rest * (math.log(rest) - math.log(others)) if rest > 0 and others else 0.0)


def padded(rows: list[dict[int, float]]) -> tuple[Tensor, Tensor]:
    """Likely entries as a batch has them."""
    k = max(map(len, rows))
    ids = [[*row, *[-1] * (k - len(row))] for row in rows]
    logs = [[*row.values(), *[-math.inf] * (k - len(row))] for row in rows]
    return torch.tensor(ids), torch.tensor(logs, dtype=torch.float64)


@given(seed=SEEDS)
def test_a_divergence_from_likely_entries_is_that_of_the_pooled_distributions(seed: int) -> None:
    rng = random.Random(seed)
    p, q = logps(seed), logps(seed + 1)
    rows = [{v: float(row[v]) for v in rng.sample(range(7), rng.randint(1, 7))} for row in q]
    ids, known = padded(rows)
    x = p.clone().requires_grad_()
    found = from_known(forward_kl, x, ids, known)
    want = [pooled_by_hand(p_.tolist(), row) for p_, row in zip(p, rows, strict=True)]
    assert found.tolist() == pytest.approx(want, rel=1e-6, abs=1e-6)
    assert (found <= forward_kl(p, q) + 1e-6).all()
    (gradient,) = torch.autograd.grad(found.sum(), x)
    for n, row in enumerate(rows):  # -q_v at a known entry, -r p_v / p_r at another
        rest = 1 - sum(map(math.exp, row.values()))
        others = sum(math.exp(float(p[n, v])) for v in range(7) if v not in row)
        by_hand = [
            -math.exp(row[v]) if v in row else -rest * math.exp(float(p[n, v])) / others
            for v in range(7)
        ]
        assert gradient[n].tolist() == pytest.approx(by_hand, rel=1e-5, abs=1e-6)


@given(seed=SEEDS)
def test_all_entries_give_the_divergence_over_the_vocabulary_exactly(seed: int) -> None:
    p, q = logps(seed), logps(seed + 1)
    for of in (forward_kl, reverse_kl):
        ids = q.argsort(-1, descending=True)
        found = from_known(of, p, ids, q.gather(-1, ids))
        assert_close(found, of(p, q), rtol=1e-12, atol=1e-12)
    # also where a server rounds so that they do not add up to 1
    rounded = (q.gather(-1, ids) * 1000).round() / 1000
    assert from_known(forward_kl, p, ids, rounded).abs().max() < 100


def test_entries_that_add_up_to_more_than_one_are_normalised() -> None:
    p = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log()
    known = torch.tensor([[0.804, 0.201]], dtype=torch.float64).log()
    found = from_known(forward_kl, p, torch.tensor([[0, 1]]), known)
    want = 0.8 * math.log(0.8 / 0.25) + 0.2 * math.log(0.2 / 0.25)
    assert float(found) == pytest.approx(want, rel=1e-12)
