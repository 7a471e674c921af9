"""Invariances of every algorithm's loss and gradient."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.every_algorithm import MAKE
from support.fake_steps import VIEWS, V, World, gradient, total, world
from torch.testing import assert_close

from tutelage.algorithms import ALGORITHMS
from tutelage.maths import distributions
from tutelage.maths.divergences import jensen_shannon
from tutelage.maths.estimators import k3
from tutelage.objective import (
    ONE,
    Algorithm,
    Distill,
    DistillSampled,
    Reinforce,
    Signal,
    Step,
    View,
    bind,
)
from tutelage.objective.scores import Scores
from tutelage.signals import gap, group_relative


def test_every_algorithm_is_in_the_list() -> None:
    here = {name.split()[0] for name in MAKE} - {"guided", "all"}
    # Skill-GRPO is GRPO on another view
    assert here == set(ALGORITHMS) - {"guided_opd", "skill_grpo"}


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), pieces=st.integers(1, 12))
def test_the_loss_and_its_gradient_do_not_depend_on_how_the_step_is_sliced(
    name: str, seed: int, pieces: int
) -> None:
    of = world(seed % 5)
    step = of.step()
    n = len(step.batch.token)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    objective = bind(MAKE[name](), step)
    full = gradient(objective, of, step, [torch.arange(n)])
    sliced = gradient(objective, of, step, order.tensor_split(pieces))
    # a sum over whole episodes adds numbers of size 10 in float32
    assert sliced[0] == pytest.approx(full[0], rel=1e-5, abs=1e-5)
    assert_close(sliced[1], full[1], atol=1e-6, rtol=1e-4)
    assert float(full[1].abs().sum()) > 0


@pytest.mark.parametrize("name", MAKE)
def test_the_loss_does_not_depend_on_the_size_of_a_vocabulary_chunk(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = world(1)
    step = of.step()
    everything = [torch.arange(len(step.batch.token))]
    full = gradient(bind(MAKE[name](), of.step()), of, step, everything)
    monkeypatch.setattr(distributions, "CHUNK_ELEMENTS", 3 * V)
    chunked = gradient(bind(MAKE[name](), of.step()), of, step, everything)
    assert_close(chunked[1], full[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_the_order_of_episodes_does_not_matter(name: str) -> None:
    of = world(2)
    for order in ([8, 3, 0, 7, 1, 5, 2, 6, 4], list(reversed(range(9)))):
        assert total(MAKE[name](), of.reordered(order)) == pytest.approx(
            total(MAKE[name](), of), rel=1e-5, abs=1e-6
        )


@pytest.mark.parametrize("name", MAKE)
def test_only_the_student_gets_a_gradient(name: str) -> None:
    of = world(3)
    leaves = {v: torch.cat(of.hidden[v]).requires_grad_() for v in VIEWS}
    free = World(of.episodes, {v: (leaf,) for v, leaf in leaves.items()}, of.heads)
    batch = of.step().batch
    # scored with gradient on purpose: it must be cut where a term is bound
    scores = {v: Scores(distribution=free.distribution(v), token=batch.token) for v in VIEWS}
    with torch.enable_grad():
        for s in scores.values():
            assert s.logp.requires_grad
    everything = torch.arange(len(batch.token))
    leaf = leaves["student"].detach().clone().requires_grad_()
    step = Step(batch, scores, 3)
    actual = bind(MAKE[name](), step)(of.live(step, everything, leaf=leaf), everything)
    torch.stack([p.sum() for p in actual.values()]).sum().backward()
    assert {v: leaves[v].grad is None for v in VIEWS} == dict.fromkeys(VIEWS, True)
    assert leaf.grad is not None
    assert not any(column.requires_grad for column in step.columns.values())


@pytest.mark.parametrize("name", MAKE)
def test_what_a_token_counts_sums_to_one(name: str) -> None:
    for seed in range(3):
        assert float(
            bind(MAKE[name](), world(seed).step()).minibatch_weight.sum()
        ) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "zero"), [("grpo", "kl"), ("grpo", "entropy"), ("guided_opd", "reverse_kl")]
)
def test_a_coefficient_of_zero_leaves_no_trace(name: str, zero: str) -> None:
    """A term of weight zero changes the gradient by not one bit."""
    of = world(4)
    step = of.step()
    everything = [torch.arange(len(step.batch.token))]
    plain = MAKE["grpo"]()
    extra = {
        "kl": DistillSampled(teacher="reference", estimate=k3, weight=0.0 * ONE, name="kl"),
        "entropy": ALGORITHMS["grpo"](entropy=1.0).terms[1],
        "reverse_kl": Distill(divergence=jensen_shannon, weight=0.0 * ONE),
    }[zero]
    if zero == "entropy":
        extra = type(extra)(weight=0.0 * ONE)  # type: ignore[call-arg]
    views = {"teacher": View(), "reference": View(policy="reference"), **plain.views}
    both = replace(plain, terms=(*plain.terms, extra), views=views)
    alone = gradient(bind(plain, of.step()), of, step, everything)[1]
    assert torch.equal(gradient(bind(both, of.step()), of, step, everything)[1], alone)


def test_terms_of_one_name_are_refused_because_one_would_be_lost() -> None:
    twice = Reinforce(advantage=gap()), Reinforce(advantage=group_relative())
    with pytest.raises(ValueError, match=r"different names.*reinforce, reinforce"):
        Algorithm(terms=twice)


def test_a_view_scored_on_sampled_tokens_only_says_so_where_more_is_wanted() -> None:
    of = world(0)
    step = of.step()
    thin = Step(
        step.batch,
        {**step.scores, "teacher": Scores(logp=step.scores["teacher"].logp)},
        3,
    )
    assert bind(MAKE["opd"](), thin).terms
    with pytest.raises(ValueError, match="sampled-token form, or a local teacher"):
        bind(MAKE["opd full"](), thin)
    with pytest.raises(ValueError, match="scores need"):
        Scores(distribution=of.distribution("student"))


def test_a_token_of_weight_zero_is_never_turned_into_a_distribution() -> None:
    """Guided-OPD would otherwise pay for both divergences at every token."""
    of = world(0)
    step = of.step()
    seen: list[int] = []

    def watched(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        seen.append(len(student))
        return jensen_shannon(student, teacher)

    weight = Signal(lambda s: (s.batch.turn == 1).float(), "second turn")
    algorithm = Algorithm(
        terms=(Distill(divergence=watched, weight=weight),),
        views={"teacher": View(policy="teacher")},
    )
    everything = torch.arange(len(step.batch.token))
    bind(algorithm, step)(of.live(step, everything), everything)
    assert seen == [int((step.batch.turn == 1).sum())]
