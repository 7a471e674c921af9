"""Chunked computations over a vocabulary equal dense ones, in values and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.maths import distributions
from tutelage.maths.distributions import (
    Distribution,
    Pieces,
    Shared,
    diverge,
    entropy,
    sampled_logps,
)
from tutelage.maths.divergences import forward_kl, jensen_shannon, reverse_kl

V = 11
N, WIDTH, OTHER = 9, 4, 6
Numbers = tuple[Tensor, Tensor, Tensor]  # value [N], gradients for hidden and head


@pytest.fixture(params=[1, V, 2 * V, 4 * V + 3, 10**6], ids="elements={}".format)
def elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(distributions, "CHUNK_ELEMENTS", request.param)
    return int(request.param)


def leaf(seed: int, *shape: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=gen).requires_grad_()


def dense(hidden: Tensor, head: Tensor, heat: float) -> Tensor:
    return (hidden @ head.T / heat).log_softmax(-1)


def numbers(value: Tensor, hidden: Tensor, head: Tensor) -> Numbers:
    # unequal weights: a gradient that lands on the wrong token shows
    weight = torch.arange(1.0, len(value) + 1)
    return (value.detach(), *torch.autograd.grad((value * weight).sum(), (hidden, head)))


@pytest.mark.parametrize("heat", [1.0, 0.4, 2.5])
def test_sampled_logps(elements: int, heat: float) -> None:
    hidden, head = leaf(0, N, WIDTH), leaf(1, V, WIDTH)
    token = torch.arange(N) % V
    result = sampled_logps(Distribution(hidden=hidden, head=head, temperature=heat), token)
    want = dense(hidden, head, heat)[torch.arange(N), token]
    assert_close(numbers(result, hidden, head), numbers(want, hidden, head))


@pytest.mark.parametrize("heat", [1.0, 0.4, 2.5])
def test_entropy(elements: int, heat: float) -> None:
    hidden, head = leaf(0, N, WIDTH), leaf(1, V, WIDTH)
    result = entropy(Distribution(hidden=hidden, head=head, temperature=heat))
    rows = dense(hidden, head, heat)
    want = -(rows.exp() * rows).sum(-1)
    assert_close(numbers(result, hidden, head), numbers(want, hidden, head))
    assert ((result > 0) & (result <= torch.tensor(float(V)).log() + 1e-6)).all()


@pytest.mark.parametrize("heat", [1.0, 0.4])
@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
def test_diverge(
    elements: int, heat: float, divergence: Callable[[Tensor, Tensor], Tensor]
) -> None:
    hidden, head = leaf(0, N, WIDTH), leaf(1, V, WIDTH)
    # a teacher is usually wider than its student
    far, far_head = leaf(2, N, OTHER), leaf(3, V, OTHER)
    result = diverge(
        divergence,
        Distribution(hidden=hidden, head=head, temperature=heat),
        Distribution(hidden=far, head=far_head, temperature=heat),
    )
    want = divergence(dense(hidden, head, heat), dense(far, far_head, heat).detach())
    # gradients of about 10 are sums whose order differs by processor
    found, wanted = numbers(result, hidden, head), numbers(want, hidden, head)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_teacher_gets_no_gradient(elements: int) -> None:
    hidden, head = leaf(0, N, WIDTH), leaf(1, V, WIDTH)
    far, far_head = leaf(2, N, OTHER), leaf(3, V, OTHER)
    result = diverge(
        reverse_kl, Distribution(hidden=hidden, head=head), Distribution(hidden=far, head=far_head)
    )
    result.sum().backward()
    assert hidden.grad is not None
    assert head.grad is not None
    assert far.grad is None
    assert far_head.grad is None


def test_without_gradient_the_values_are_the_same(elements: int) -> None:
    hidden, head = leaf(0, N, WIDTH), leaf(1, V, WIDTH)
    of = Distribution(hidden=hidden, head=head)
    token = torch.zeros(N, dtype=torch.long)
    with torch.no_grad():
        plain = sampled_logps(of, token), entropy(of), diverge(reverse_kl, of, of)
    assert not any(p.requires_grad for p in plain)
    assert_close(plain[0], sampled_logps(of, token).detach())
    assert_close(plain[1], entropy(of).detach())
    assert_close(plain[2], torch.zeros(N), atol=1e-6, rtol=0)


def test_a_slice_is_the_distribution_of_its_tokens() -> None:
    of = Distribution(hidden=leaf(0, N, WIDTH), head=leaf(1, V, WIDTH), temperature=0.7)
    chosen = torch.tensor([5, 0, 0, 8])
    assert len(of[chosen]) == 4
    assert_close(of[chosen].logps(), of.logps()[chosen])
    assert_close(of[2:6].logps(), of.logps()[2:6])
    assert_close(of.logps().exp().sum(-1), torch.ones(N))


def test_no_tokens_at_all(elements: int) -> None:
    none = Distribution(hidden=leaf(0, 0, WIDTH), head=leaf(1, V, WIDTH))
    empty = torch.zeros(0, dtype=torch.long)
    for result in (sampled_logps(none, empty), entropy(none), diverge(forward_kl, none, none)):
        assert result.shape == (0,)
        assert result.dtype == torch.float32


def test_vocabularies_of_different_size_are_refused() -> None:
    a = Distribution(hidden=leaf(0, N, WIDTH), head=leaf(1, V, WIDTH))
    b = Distribution(hidden=leaf(0, N, WIDTH), head=leaf(1, V + 1, WIDTH))
    with pytest.raises(ValueError, match=r"11 entries and the teacher's 12.*same tokenizer"):
        diverge(forward_kl, a, b)


@pytest.mark.parametrize("rest", ["both", "student", "teacher", "neither"])
@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
def test_shared_entries_and_the_rest_of_two_vocabularies(
    divergence: Callable[[Tensor, Tensor], Tensor], rest: str
) -> None:
    """Against sums over entries that are written out."""
    ours = [4, 0, 7] if rest in ("both", "student") else list(range(V))
    wide = V + 2 if rest in ("both", "teacher") else len(ours)
    others = [3, 1, 2] if len(ours) == 3 else [(5 * k) % V for k in range(V)]
    if rest == "student":
        others = [2, 0, 1]
    shared = Shared(student=torch.tensor(ours), teacher=torch.tensor(others), rest=rest == "both")
    a = Distribution(hidden=leaf(0, N, WIDTH), head=leaf(1, V, WIDTH))
    b = Distribution(hidden=leaf(2, N, OTHER), head=leaf(3, wide, OTHER), shared=shared)
    p = a.logps().exp()[:, ours]
    q = b.logps().exp()[:, others]
    if rest == "both":
        p, q = (torch.cat([x, 1 - x.sum(-1, keepdim=True)], -1) for x in (p, q))
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    m = (p + q) / 2
    goal = {
        forward_kl: (q * (q / p).log()).sum(-1),
        reverse_kl: (p * (p / q).log()).sum(-1),
        jensen_shannon: ((q * (q / m).log()).sum(-1) + (p * (p / m).log()).sum(-1)) / 2,
    }[divergence]
    found = diverge(divergence, a, b)
    assert_close(found, goal, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), a.hidden, retain_graph=True)
    (expected,) = torch.autograd.grad(goal.sum(), a.hidden)
    assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
    pieces = Pieces(a)
    parts = [diverge(divergence, pieces[s], b[s]) for s in (slice(0, 4), slice(4, N))]
    assert_close(torch.cat(parts), goal, atol=1e-5, rtol=1e-5)


def test_low_precision_is_turned_into_probabilities_in_float32() -> None:
    hidden, head = leaf(0, N, WIDTH).bfloat16(), leaf(1, V, WIDTH).bfloat16()
    rows = Distribution(hidden=hidden, head=head).logps()
    assert rows.dtype == torch.float32
    assert_close(rows.exp().sum(-1), torch.ones(N), atol=1e-6, rtol=0)


def test_a_head_in_16_bits_sends_its_gradient_to_the_parameter_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Entries past the vocabulary get none, and what is there already is added to."""
    monkeypatch.setattr(distributions, "CHUNK_ELEMENTS", 3 * 8)
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(10, 4))
    hidden, token = torch.randn(7, 4).bfloat16(), torch.randint(8, (7,))
    for before in (None, torch.ones(10, 4)):
        weight.grad = None if before is None else before.clone()
        of = Distribution(hidden=hidden, head=weight[:8].bfloat16(), leaf=weight)
        pieces = distributions.Pieces(of)
        for start in range(0, 7, of.chunk):
            part = slice(start, start + of.chunk)
            sampled_logps(pieces[part], token[part]).sum().backward()
        assert list(pieces.send()) == []
        exact = weight.detach()[:8].bfloat16().float().requires_grad_()
        logps = (hidden.float() @ exact.T).log_softmax(-1)
        logps.gather(-1, token[:, None]).sum().backward()
        assert weight.grad is not None
        assert exact.grad is not None
        start_from = 0 if before is None else 1
        assert_close(weight.grad[:8], start_from + exact.grad, rtol=0, atol=0.05)
        assert bool((weight.grad[8:] == start_from).all())
