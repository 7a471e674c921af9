"""Gradients taken piece by piece equal the full ones, and nothing is computed twice."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tutelage.maths import distributions
from tutelage.maths.distributions import Distribution, Pieces, diverge, entropy, sampled_logps
from tutelage.maths.divergences import forward_kl, jensen_shannon, reverse_kl, top_k

V, N, WIDTH, OTHER = 11, 9, 4, 6
Loss = Callable[[Distribution, Distribution, Tensor, Tensor], Tensor]
"""(student, teacher, token [n], weight [n]) -> [n]"""


def gated(s: Distribution, t: Distribution, token: Tensor, w: Tensor) -> Tensor:
    """A weight that follows the student, and tokens left out: what an algorithm does."""
    on = (w > 0).nonzero().squeeze(-1)
    gate = torch.sigmoid(sampled_logps(s[on].detach(), token[on]) + entropy(s[on].detach()))
    value = gate * w[on] * diverge(reverse_kl, s[on], t[on])
    return torch.zeros_like(w).index_add(0, on, value)


LOSSES: dict[str, Loss] = {
    "forward": lambda s, t, token, w: w * diverge(forward_kl, s, t),
    "reverse": lambda s, t, token, w: w * diverge(reverse_kl, s, t),
    "jensen_shannon": lambda s, t, token, w: w * diverge(jensen_shannon, s, t),
    "top_k": lambda s, t, token, w: w * diverge(top_k(reverse_kl, 3), s, t),
    "sampled": lambda s, t, token, w: w * sampled_logps(s, token),
    "entropy": lambda s, t, token, w: w * entropy(s),
    "ratio": lambda s, t, token, w: w * sampled_logps(s, token).exp().clamp(max=0.1),
    "gated": gated,
    "all": lambda s, t, token, w: (
        gated(s, t, token, w - 0.5)
        + w * sampled_logps(s, token)
        - entropy(s)
        + gated(s, t, token, w)
    ),
}


def tensors(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    gen = torch.Generator().manual_seed(seed)
    shapes = (N, WIDTH), (V, WIDTH), (N, OTHER), (V, OTHER)
    results = [torch.randn(*shape, generator=gen).to(dtype) for shape in shapes]
    token = torch.randint(V, (N,), generator=gen)
    weights = torch.randn(N, generator=gen).to(dtype)
    weights[0] = weights[0].abs()  # `gated` leaves out the others: one token at least has a loss
    return *results, token, weights


def whole(loss: Loss, seed: int, heat: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The slow twin: one backward pass, in which every chunk is computed again."""
    hidden, head, far, far_head, token, w = tensors(seed, dtype)
    hidden.requires_grad_()
    head.requires_grad_()
    actual = Distribution(hidden=hidden, head=head, temperature=heat)
    reference = Distribution(hidden=far, head=far_head, temperature=heat)
    value = loss(actual, reference, token, w)
    return (value.detach(), *torch.autograd.grad(value.sum(), (hidden, head)))


def pieces(loss: Loss, seed: int, heat: float, dtype: torch.dtype, size: int) -> tuple[Tensor, ...]:
    hidden, head, far, far_head, token, w = tensors(seed, dtype)
    hidden.requires_grad_()
    head.requires_grad_()
    reference = Distribution(hidden=far, head=far_head, temperature=heat)
    # a head is a parameter, or computed from one, as where a vocabulary is padded
    cut = Pieces(Distribution(hidden=hidden, head=head[:] if size % 2 else head, temperature=heat))
    values = []
    for start in range(0, N, size):
        part = slice(start, min(N, start + size))
        value = loss(cut[part], reference[part], token[part], w[part])
        if value.requires_grad:
            value.sum().backward()
        values.append(value.detach())
    sent = list(cut.send())
    torch.autograd.backward([to for to, _ in sent], [gradient for _, gradient in sent])
    assert hidden.grad is not None
    assert head.grad is not None
    return torch.cat(values), hidden.grad, head.grad


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10**6), size=st.integers(1, N), heat=st.sampled_from([1.0, 0.4, 2.5]))
def test_pieces_give_the_loss_and_the_gradient_of_the_whole(
    name: str, seed: int, size: int, heat: float
) -> None:
    result = pieces(LOSSES[name], seed, heat, torch.float64, size)
    assert_close(result, whole(LOSSES[name], seed, heat, torch.float64), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_pieces_agree_with_finite_differences(name: str) -> None:
    loss, step = LOSSES["all" if name == "gated" else name], 1e-6
    if name in ("gated", "all"):  # whose gates pass no gradient
        loss = LOSSES["reverse"]
    _, d_hidden, d_head = pieces(loss, 3, 0.7, torch.float64, 4)
    hidden, head, far, far_head, token, w = tensors(3)
    reference = Distribution(hidden=far, head=far_head, temperature=0.7)

    def total() -> Tensor:
        return loss(
            Distribution(hidden=hidden, head=head, temperature=0.7), reference, token, w
        ).sum()

    for x, d in ((hidden, d_hidden), (head, d_head)):
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                x[i, j] += step
                up = total()
                x[i, j] -= 2 * step
                down = total()
                x[i, j] += step
                assert float((up - down) / (2 * step)) == pytest.approx(float(d[i, j]), abs=1e-7)


def test_in_single_precision_pieces_are_as_near_as_the_whole() -> None:
    for name, loss in LOSSES.items():
        result = pieces(loss, 5, 1.0, torch.float32, 2)
        exact = whole(loss, 5, 1.0, torch.float64)
        for a, b in zip(result, exact, strict=True):
            assert a.dtype == torch.float32, name
            assert_close(a.double(), b, atol=2e-5, rtol=1e-4)


def test_the_heads_gradient_is_added_up_in_float32_where_the_head_is_not() -> None:
    """In bfloat16, a sum over many pieces would stop growing."""
    n = 600
    hidden = torch.ones(n, 1, dtype=torch.bfloat16).requires_grad_()
    head = torch.zeros(2, 1).requires_grad_().bfloat16()
    cut = Pieces(Distribution(hidden=hidden, head=head))
    for k in range(n):
        sampled_logps(cut[slice(k, k + 1)], torch.zeros(1, dtype=torch.long)).sum().backward()
    (_, _), (to, gradient) = cut.send()
    assert to is head
    assert gradient.dtype == torch.bfloat16
    assert gradient.flatten().tolist() == [n / 2, -n / 2]


def test_what_has_no_gradient_is_sent_none() -> None:
    hidden, head, _, _, token, _ = tensors(0)
    for frozen in (hidden, head):
        for x in (hidden, head):
            x.requires_grad_(x is not frozen)
        rows = head[:]
        cut = Pieces(Distribution(hidden=hidden, head=rows))
        sampled_logps(cut[slice(0, N)], token).sum().backward()
        ((to, _),) = cut.send()
        assert to is (rows if frozen is hidden else hidden)
    frozen_leaf = head.detach()
    cut = Pieces(Distribution(hidden=hidden.requires_grad_(), head=frozen_leaf))
    sampled_logps(cut[slice(0, N)], token).sum().backward()
    assert [to is hidden for to, _ in cut.send()] == [True]
    assert frozen_leaf.grad is None
    cut = Pieces(Distribution(hidden=hidden.detach(), head=head.detach()))
    assert not sampled_logps(cut[slice(0, N)], token).requires_grad
    assert list(cut.send()) == []
    # a piece whose tokens all have weight zero takes part with zeros
    hidden.requires_grad_()
    cut = Pieces(Distribution(hidden=hidden, head=head))
    assert len(cut[slice(0, 4)]) == 4
    sampled_logps(cut[slice(4, N)], token[4:]).sum().backward()
    sent = {id(to): gradient for to, gradient in cut.send()}
    assert not sent[id(hidden)][:4].any()
    assert sent[id(hidden)][4:].any(-1).all()


def test_the_gradient_of_a_parameter_is_added_to_what_it_has() -> None:
    """From passes before, and from another view of the same weights."""
    hidden, head, _, _, token, _ = tensors(0)
    hidden.requires_grad_()
    head.requires_grad_()
    sampled_logps(Distribution(hidden=hidden, head=head), token).sum().backward()
    assert head.grad is not None
    once = head.grad.clone()
    for before in (0, 1):  # with a gradient at the start, and without
        if not before:
            head.grad = None
        both = [Pieces(Distribution(hidden=hidden, head=head)) for _ in range(2)]
        for cut in both:
            sampled_logps(cut[slice(0, N)], token).sum().backward()
        for cut in both:
            assert [to is hidden for to, _ in cut.send()] == [True]
        assert_close(head.grad, once * 2 * (1 + before))


def test_terms_that_read_one_piece_share_its_product_with_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result: list[int] = []
    inner = distributions.log_softmax

    def counted(hidden: Tensor, head: Tensor, temperature: float, cap: float = 0.0) -> Tensor:
        result.append(len(hidden))
        return inner(hidden, head, temperature, cap)

    monkeypatch.setattr(distributions, "log_softmax", counted)
    hidden, head, far, far_head, token, _ = tensors(0)
    hidden.requires_grad_()
    piece = Pieces(Distribution(hidden=hidden, head=head))[slice(0, 5)]
    reference = Distribution(hidden=far, head=far_head)[:5]
    loss = sampled_logps(piece, token[:5]) + entropy(piece)
    loss = loss + diverge(reverse_kl, piece[torch.arange(5)], reference)
    some = torch.tensor([0, 3])
    loss = loss + diverge(forward_kl, piece[some], reference[some]).sum()
    loss = loss + entropy(piece.detach())
    loss.sum().backward()
    assert result == [5, 5, 2]  # the student's once, the teacher's for each divergence
