"""The losses of OPD and Guided-OPD against loops and by enumeration."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from algorithms.test_formulas import Token, clipped, mean, tokens
from hypothesis import given
from hypothesis import strategies as st
from support.enumeration import V as WORDS
from support.enumeration import expected, forward, logits, near, reverse, scores
from support.fake_steps import V, World, gradient, parts, total, world
from support.turn_formulas import written
from torch.testing import assert_close

from tutelage.algorithms.guided_opd import guided_opd
from tutelage.algorithms.opd import opd
from tutelage.maths.divergences import forward_kl, jensen_shannon, reverse_kl, top_k
from tutelage.objective import Step, Term, bind
from tutelage.objective.scores import Scores
from tutelage.types import Episode

SEEDS = st.integers(0, 2**31 - 1)


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return world(request.param)


def pooled(t: Token, k: int, support: str) -> tuple[list[float], list[float]]:
    """Both distributions over the k likeliest words and one for the rest."""
    rows = {"student": t.student, "teacher": t.teacher}
    saved = sorted(range(V), key=lambda v: -rows[support][v])[:k]
    rest = [v for v in range(V) if v not in saved]

    def short(row: list[float]) -> list[float]:
        return [row[v] for v in saved] + [math.log(sum(math.exp(row[v]) for v in rest))]

    return short(t.student), short(t.teacher)


def kl(p: list[float], q: list[float]) -> float:
    return sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


# -- OPD


@pytest.mark.parametrize("support", ["student", "teacher"])
@pytest.mark.parametrize("k", [1, 2, V - 1])
def test_opd_over_the_likeliest_words(of: World, k: int, support: str) -> None:
    want = mean([kl(*pooled(t, k, support)) for t in tokens(of)])
    got = total(opd(vocabulary="topk", k=k, support=support), of)
    assert got == pytest.approx(want, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("k", [V - 1, V, 1000])
def test_with_every_word_top_k_is_the_whole_vocabulary(of: World, k: int) -> None:
    step = of.step()
    everything = [torch.arange(len(step.batch.token))]
    want = gradient(bind(opd(vocabulary="full"), step), of, step, everything)
    got = gradient(bind(opd(vocabulary="topk", k=k), step), of, step, everything)
    assert got[0] == pytest.approx(want[0], rel=1e-5)
    assert_close(got[1], want[1], atol=1e-6, rtol=1e-4)


@given(seed=SEEDS, k=st.integers(1, 7), support=st.sampled_from(["student", "teacher"]))
@pytest.mark.parametrize("divergence", [reverse_kl, forward_kl, jensen_shannon])
def test_pooling_never_adds_to_a_divergence(
    divergence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    seed: int,
    k: int,
    support: str,
) -> None:
    gen = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 4, 8, generator=gen, dtype=torch.float64).mul(3).log_softmax(-1)
    full, part = divergence(p, q), top_k(divergence, k, support)(p, q)  # type: ignore[arg-type]
    assert (part >= -1e-12).all()
    assert (part <= full + 1e-12).all()
    finer = top_k(divergence, min(k + 1, 8), support)(p, q)  # type: ignore[arg-type]
    assert (part <= finer + 1e-12).all()
    assert_close(top_k(divergence, k, support)(p, p), torch.zeros(4, dtype=p.dtype))  # type: ignore[arg-type]


def test_opd_says_what_its_settings_need() -> None:
    with pytest.raises(ValueError, match="at least one entry, got k = 0"):
        opd(vocabulary="topk", k=0)
    for extra in ({"gamma_kl": 0.5}, {"clip": 0.2}, {"dual_clip": 3.0}):
        with pytest.raises(ValueError, match='vocabulary = "full" has none'):
            opd(vocabulary="full", **extra)
    with pytest.raises(ValueError, match="set clip as well"):
        opd(dual_clip=3.0)


def test_opd_clipped(of: World) -> None:
    want = mean([clipped(t.ratio, t.gap, 0.3, 0.3, 2.0) for t in tokens(of)])
    assert total(opd(clip=0.3, dual_clip=2.0), of) == pytest.approx(want, rel=1e-4, abs=1e-6)


@given(seed=SEEDS)
def test_a_discount_of_one_is_the_gradient_of_reverse_kl_of_whole_sequences(seed: int) -> None:
    """Two words in a row, the second's distribution depending on the first: the advantage of the first
    must hold what it leads to, which gamma_kl = 0 leaves out."""
    gen = torch.Generator().manual_seed(seed)
    results = [torch.randn(4, 3, generator=gen, dtype=torch.float64) for _ in range(2)]
    x, q = results[0].requires_grad_(), results[1].log_softmax(-1)
    p = x.log_softmax(-1)  # row 0 is the first word's distribution, row 1 + a that after word a

    pairs = [(a, b) for a in range(3) for b in range(3)]
    chance = torch.stack([p[0, a] + p[1 + a, b] for a, b in pairs])
    goal = torch.stack([q[0, a] + q[1 + a, b] for a, b in pairs])
    want = torch.autograd.grad((chance.exp() * (chance - goal)).sum(), x, retain_graph=True)[0]

    # an episode for every pair; its words in two turns, which is no border for the advantage
    step = written([[[(-1.0, -1.0)], [(-1.0, -1.0)]] for _ in pairs])
    words = torch.stack([row[k] for a, b in pairs for row, k in ((p[0], a), (p[1 + a], b))])
    reference = torch.stack([row[k] for a, b in pairs for row, k in ((q[0], a), (q[1 + a], b))])
    own = words.detach()
    before = {"student": Scores(logp=own), "teacher": Scores(logp=reference)}
    step = replace(step, batch=replace(step.batch, logp=own), scores=before)
    for gamma, exact in ((1.0, True), (0.0, False)):
        bound = opd(gamma_kl=gamma).terms[0].bind(step)
        loss = bound({"student": Scores(logp=words)}, torch.arange(len(own)))
        by = chance.detach().exp().repeat_interleave(2)
        got = torch.autograd.grad((by * loss).sum(), x, retain_graph=True)[0]
        assert torch.allclose(got, want, atol=1e-5) == exact


# -- Guided-OPD

SETTINGS = [
    (ours, mine, theirs, his)
    for ours in ("sampled", "full", "topk")
    for mine in ("reverse", "forward")
    for theirs in ("sampled", "full")
    for his in ("reverse", "forward")
]


@pytest.mark.parametrize(("ours", "mine", "theirs", "his"), SETTINGS)
def test_guided_opd_in_every_direction(
    of: World, ours: str, mine: str, theirs: str, his: str
) -> None:
    student: dict[tuple[str, str], Callable[[Token], float]] = {
        ("sampled", "reverse"): lambda t: clipped(t.ratio, t.gap, 0.3, 0.3, 2.0),
        ("sampled", "forward"): lambda t: math.exp(t.gap) - 1 - t.gap,
        ("full", "reverse"): lambda t: t.reverse_kl,
        ("full", "forward"): lambda t: t.forward_kl,
        ("topk", "reverse"): lambda t: kl(*pooled(t, 3, "student")),
        ("topk", "forward"): lambda t: kl(*reversed(pooled(t, 3, "student"))),
    }
    teacher: dict[tuple[str, str], Callable[[Token], float]] = {
        ("sampled", "forward"): lambda t: -t.logp,
        ("sampled", "reverse"): lambda t: -t.gap * t.ratio,
        ("full", "forward"): lambda t: t.forward_kl,
        ("full", "reverse"): lambda t: t.reverse_kl,
    }
    algorithm = guided_opd(
        total_steps=10,
        student_turns=ours,
        student_kl=mine,
        teacher_turns=theirs,
        teacher_kl=his,
        k=3,
        clip=0.3,
        dual_clip=2.0,
    )
    result, every = parts(algorithm, of), tokens(of)
    own = [student[ours, mine](t) for t in every if t.actor == "student"]
    led = [teacher[theirs, his](t) for t in every if t.actor == "teacher"]
    assert own
    assert led
    want = {"student_turns": sum(own) / len(every), "teacher_turns": sum(led) / len(every)}
    assert result == pytest.approx(want, rel=1e-3, abs=1e-6)


def test_likely_tokens_of_the_teacher_are_its_distribution_where_they_are_known(
    of: World,
) -> None:
    """Two of seven entries at some tokens, all of them at others, and none elsewhere."""
    rng, every = random.Random(0), tokens(of)
    known = [tuple(enumerate(t.teacher))[: rng.choice((0, 2, 7))] for t in every]
    left, episodes = iter(known), list[Episode]()
    for episode in of.episodes:
        turns = [
            replace(turn, top_logprobs=tuple(next(left) for _ in turn.tokens))
            for turn in episode.turns
        ]
        episodes.append(replace(episode, turns=tuple(turns)))
    result = parts(
        guided_opd(total_steps=10, teacher_turns="topk"), replace(of, episodes=tuple(episodes))
    )

    def one(t: Token, row: tuple[tuple[int, float], ...]) -> float:
        if len(row) == 7:
            return t.forward_kl
        if not row:
            return -t.logp
        q = [x for _, x in row]
        r, p_r = (math.log(sum(map(math.exp, of_[2:]))) for of_ in (t.teacher, t.student))
        pairs = zip([*q, r], [*t.student[:2], p_r], strict=True)
        return sum(math.exp(a) * (a - b) for a, b in pairs)

    want = sum(one(t, row) for t, row in zip(every, known, strict=True) if t.actor == "teacher")
    assert result["teacher_turns"] == pytest.approx(want / len(every), rel=1e-3, abs=1e-6)
    lost = parts(guided_opd(total_steps=10, teacher_turns="topk"), of)
    sampled = parts(guided_opd(total_steps=10, teacher_turns="sampled"), of)
    assert lost == sampled != result


def test_likely_tokens_cannot_be_a_reverse_kl() -> None:
    with pytest.raises(ValueError, match='set teacher_kl = "forward"'):
        guided_opd(total_steps=9, teacher_turns="topk", teacher_kl="reverse")


def the(turns: str, **settings: str) -> Term:
    (term,) = (t for t in guided_opd(total_steps=9, **settings).terms if t.name == turns)
    return term


@given(seed=SEEDS, how=st.sampled_from(["sampled", "full"]))
def test_student_turns_teach_the_divergence_they_are_named_after(seed: int, how: str) -> None:
    x = logits(seed)
    q = near(x, seed + 1, 1.0)
    for kl_, want in (("reverse", reverse), ("forward", forward)):
        got = expected(the("student_turns", student_turns=how, student_kl=kl_), x, q)
        assert_close(got, want(x, q), atol=1e-5, rtol=1e-4)


@given(seed=SEEDS, how=st.sampled_from(["sampled", "full"]))
def test_teacher_turns_teach_the_divergence_they_are_named_after(seed: int, how: str) -> None:
    """On words that the teacher sampled."""
    x = logits(seed)
    q = near(x, seed + 1, 1.0)
    for kl_, want in (("reverse", reverse), ("forward", forward)):
        term = the("teacher_turns", teacher_turns=how, teacher_kl=kl_)
        assert_close(
            expected(term, x, q, sampler=q, actor="teacher"), want(x, q), atol=1e-5, rtol=1e-4
        )


def test_each_role_is_left_out_of_the_others_loss() -> None:
    x = logits(0)
    q = near(x, 1, 1.0)
    for how in ("sampled", "full"):
        for kl_ in ("reverse", "forward"):
            own = the("student_turns", student_turns=how, student_kl=kl_)
            led = the("teacher_turns", teacher_turns=how, teacher_kl=kl_)
            for term, stranger in ((own, "teacher"), (led, "student")):
                step_loss = _loss(term, x, q, stranger)
                assert (step_loss == 0).all()


def _loss(term: Term, x: torch.Tensor, q: torch.Tensor, actor: str) -> torch.Tensor:
    batch = replace(
        written([[[(-1.0, -1.0)] * WORDS]]).batch, token=torch.arange(WORDS), actors=(actor,)
    )
    step = Step(batch, {"student": scores(x.detach()), "teacher": scores(q)}, 0)
    return term.bind(step)({"student": scores(x)}, torch.arange(WORDS)).detach()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_fixed_curriculum_never_moves(share: float) -> None:
    chance = guided_opd(total_steps=10, curriculum="fixed", start=share).actors["teacher"]
    assert [chance(s) for s in (0, 5, 9, 10, 10**6)] == [share] * 5


def test_curricula_at_their_start_middle_end_and_beyond() -> None:
    """Section 3.3: 250 steps, of which the first 200 fall."""
    at = (0, 50, 100, 150, 200, 249, 10**6)
    want = {
        "cosine": [1, 0.854, 0.5, 0.146, 0, 0, 0],
        "linear": [1, 0.75, 0.5, 0.25, 0, 0, 0],
        "exponential": [1, 0.316, 0.1, 0.032, 0, 0, 0],
    }
    for name, values in want.items():
        beta = guided_opd(total_steps=250, curriculum=name).actors["teacher"]
        assert [beta(s) for s in at] == pytest.approx(values, abs=1e-3)
        assert [beta(s) for s in at[4:]] == [0.0] * 3
    mean_of = guided_opd(total_steps=250).actors["teacher"]
    assert sum(mean_of(s) for s in range(250)) / 250 == pytest.approx(0.4, abs=0.005)
