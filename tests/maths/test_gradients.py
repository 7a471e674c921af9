"""What a loss on sampled tokens teaches: its gradient averaged exactly, over every token a
six-word student could have sampled, against the gradient of the divergence it stands for."""

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tutelage.maths import surrogates
from tutelage.maths.divergences import forward_kl, reverse_kl
from tutelage.maths.estimators import k3, log_ratio

SEEDS = st.integers(0, 2**31 - 1)
Loss = Callable[[Tensor, Tensor], Tensor]  # log-probabilities of student and teacher -> loss
ON_POLICY = {
    "score_function": surrogates.score_function(),
    "importance": surrogates.importance(),
    "ppo_clip": surrogates.ppo_clip(),
    "dual_clip": surrogates.ppo_clip(dual=3.0),
}


def world(seed: int) -> tuple[Tensor, Tensor]:
    """A student's logits [6] and a teacher's log-probabilities [6]."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(6, generator=gen, dtype=torch.float64).requires_grad_()
    return x, torch.randn(6, generator=gen, dtype=torch.float64).log_softmax(-1)


def grad(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss, x)[0]


def expected(x: Tensor, by: Tensor, q: Tensor, loss: Loss) -> Tensor:
    """sum_a by(a) d loss(a) / dx: the mean gradient on tokens that `by` samples."""
    return grad((by.exp().detach() * loss(x.log_softmax(-1), q)).sum(), x)


def kls(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    p = x.log_softmax(-1)
    return grad(reverse_kl(p, q), x), grad(forward_kl(x.log_softmax(-1), q), x)


@given(seed=SEEDS)
def test_policy_gradient_on_the_gap_is_the_gradient_of_reverse_kl(seed: int) -> None:
    x, q = world(seed)
    reverse, _ = kls(x, q)
    for surrogate in ON_POLICY.values():
        got = expected(
            x, x.log_softmax(-1), q, lambda p, q, s=surrogate: s(p, p.detach(), (q - p).detach())
        )
        assert_close(got, reverse)


@given(seed=SEEDS)
def test_importance_corrects_for_another_sampler_exactly(seed: int) -> None:
    x, q = world(seed)
    sampler = world(seed + 1)[1]
    reverse, _ = kls(x, q)
    loss = surrogates.importance()
    got = expected(x, sampler, q, lambda p, q: loss(p, sampler, (q - p).detach()))
    assert_close(got, reverse)


@given(seed=SEEDS)
def test_k3_estimates_reverse_kl_and_teaches_forward_kl(seed: int) -> None:
    x, q = world(seed)
    p = x.log_softmax(-1)
    assert_close((p.exp() * k3(p, q)).sum(), reverse_kl(p, q))
    assert (k3(p, q) >= 0).all()
    assert_close(expected(x, p, q, k3), kls(x, q)[1])


@given(seed=SEEDS)
def test_k3_times_the_ratio_teaches_reverse_kl(seed: int) -> None:
    x, q = world(seed)

    def corrected(p: Tensor, q: Tensor) -> Tensor:
        return surrogates.ratio(p, p.detach()) * k3(p, q)

    assert_close(expected(x, x.log_softmax(-1), q, corrected), kls(x, q)[0])


def test_k3_never_pushes_away_from_a_teacher_who_is_far_surer() -> None:
    """Where exp(gap) is capped the gradient may vanish, but not turn round."""
    student = torch.tensor([-200.0, -40.0, -19.0, -1.0], requires_grad=True)
    result = k3(student, torch.tensor([-1.0, -1.0, -1.0, -1.0]))
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert student.grad is not None
    assert (student.grad <= 0).all()
    assert float(student.grad[2]) < -1e7
    assert float(student.grad[3]) == 0


@given(seed=SEEDS)
def test_cross_entropy_on_the_teachers_tokens_teaches_forward_kl(seed: int) -> None:
    x, q = world(seed)
    loss = surrogates.score_function()
    got = expected(x, q, q, lambda p, q: loss(p, p.detach(), torch.ones_like(p)))
    assert_close(got, kls(x, q)[1])


@given(seed=SEEDS)
def test_the_bare_log_ratio_teaches_nothing_on_policy(seed: int) -> None:
    x, q = world(seed)
    got = expected(x, x.log_softmax(-1), q, log_ratio)
    assert_close(got, torch.zeros_like(x), atol=1e-12, rtol=0)


@given(seed=SEEDS, sharpness=st.floats(0.1, 10))
def test_a_gated_log_ratio_is_a_policy_gradient_whose_advantage_is_the_gate(
    seed: int, sharpness: float
) -> None:
    x, q = world(seed)

    def gate(p: Tensor, q: Tensor) -> Tensor:
        return torch.sigmoid(sharpness * (q - p)).detach()

    p = x.log_softmax(-1)
    gated = expected(x, p, q, lambda p, q: gate(p, q) * log_ratio(p, q))
    plain = surrogates.score_function()
    assert_close(gated, expected(x, p, q, lambda p, q: plain(p, p.detach(), gate(p, q))))


@given(seed=SEEDS)
def test_estimators_pass_no_gradient_to_the_teacher(seed: int) -> None:
    student, teacher = world(seed)[1].requires_grad_(), world(seed + 1)[1].requires_grad_()
    (k3(student, teacher) + log_ratio(student, teacher)).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None
