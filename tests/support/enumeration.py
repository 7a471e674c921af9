"""A term's expected gradient, exactly: one token of the batch for every word that could have been
sampled, each counted with its probability. Logits are [V] in float64."""

from dataclasses import replace

import torch
from torch import Tensor

from support.turn_formulas import written
from tutelage.maths.distributions import Distribution
from tutelage.maths.divergences import forward_kl, reverse_kl
from tutelage.objective import Step, Term
from tutelage.objective.scores import Scores

V = 8


def logits(seed: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(V, generator=gen, dtype=torch.float64).requires_grad_()


def near(x: Tensor, seed: int, distance: float) -> Tensor:
    """Log-probabilities of a teacher at some distance from logits x."""
    return (x + distance * logits(seed)).detach().log_softmax(-1)


def scores(x: Tensor) -> Scores:
    """Logits x as a view of V tokens, one for each word; with a gradient where x has one."""
    word = torch.arange(V)
    of = Distribution(hidden=x.expand(V, V), head=torch.eye(V, dtype=x.dtype))
    return Scores(logp=x.log_softmax(-1), distribution=of, token=word)


def expected(
    term: Term, x: Tensor, q: Tensor, *, sampler: Tensor | None = None, actor: str = "student"
) -> Tensor:
    """sum_a P(a) d loss(a) / dx for a ~ sampler (the student if none is given): [V]."""
    p = x.detach().log_softmax(-1)
    by = p if sampler is None else sampler
    batch = replace(
        written([[[(-1.0, -1.0)] * V]]).batch, token=torch.arange(V), logp=by, actors=(actor,)
    )
    step = Step(batch, {"student": scores(x.detach()), "teacher": scores(q)}, 0)
    loss = term.bind(step)({"student": scores(x)}, torch.arange(V))
    return torch.autograd.grad((by.exp() * loss).sum(), x)[0]


def reverse(x: Tensor, q: Tensor) -> Tensor:
    """The gradient of KL(student || teacher)."""
    return torch.autograd.grad(reverse_kl(x.log_softmax(-1), q), x)[0]


def forward(x: Tensor, q: Tensor) -> Tensor:
    """The gradient of KL(teacher || student)."""
    return torch.autograd.grad(forward_kl(x.log_softmax(-1), q), x)[0]
