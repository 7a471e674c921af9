"""Gates and self-distillation methods: formulas as loops, gradients by enumeration."""

import math
from collections.abc import Callable

import pytest
import torch
from algorithms.test_formulas import Token, advantages, clipped, mean, tokens
from hypothesis import given
from hypothesis import strategies as st
from support.enumeration import V, expected, forward, logits, near, reverse, scores
from support.fake_steps import V as WORDS
from support.fake_steps import World, parts, total, world
from torch.testing import assert_close

from tutelage.algorithms.gated_opsd import gated_opsd
from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.grpo_opsd import grpo_opsd
from tutelage.algorithms.rlsd import rlsd
from tutelage.algorithms.sdar import sdar
from tutelage.algorithms.skill_sd import skill_sd
from tutelage.objective import Algorithm, Term, bind
from tutelage.objective.scores import Scores
from tutelage.schedules import linear
from tutelage.signals import (
    entropy_gate,
    evidence,
    gap,
    gap_gate,
    group_relative,
    soft_or_gate,
)

SEEDS = st.integers(0, 2**31 - 1)
HINTED = (sdar, gated_opsd, grpo_opsd, skill_sd, rlsd)


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return world(request.param)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gate_of(t: Token, name: str, beta: float) -> float:
    if name == "gap":
        return sigmoid(beta * t.gap)
    if name == "entropy":
        return sigmoid(beta * t.entropy)
    return sigmoid(beta * (1 - (1 - t.entropy / math.log(WORDS)) * (1 - t.gap)))


def jensen_shannon(t: Token) -> float:
    m = [
        math.log((math.exp(p) + math.exp(q)) / 2) for p, q in zip(t.student, t.teacher, strict=True)
    ]
    return 0.5 * sum(
        math.exp(x) * (x - z) for xs in (t.student, t.teacher) for x, z in zip(xs, m, strict=True)
    )


LOSS: dict[str, Callable[[Token], float]] = {
    "sampled": lambda t: t.gap,
    "reverse": lambda t: t.reverse_kl,
    "forward": lambda t: t.forward_kl,
    "jsd": jensen_shannon,
}


def named(algorithm: Algorithm, name: str) -> Term:
    (term,) = (t for t in algorithm.terms if t.name == name)
    return term


# -- SDAR


@pytest.mark.parametrize("beta", [0.0, 5.0, 10.0])
@pytest.mark.parametrize("gate", ["gap", "entropy", "soft_or"])
@pytest.mark.parametrize("loss", LOSS)
def test_sdar(of: World, gate: str, loss: str, beta: float) -> None:
    want = mean([gate_of(t, gate, beta) * LOSS[loss](t) for t in tokens(of)])
    result = parts(sdar(gate=gate, loss=loss, beta=beta, coef=0.3), of)
    assert result["sdar"] == pytest.approx(0.3 * want, rel=1e-3, abs=1e-6)
    assert set(result) == {"grpo", "kl", "sdar"}


def test_the_reward_part_of_every_hinted_method_is_grpo(of: World) -> None:
    settings = {"clip": 0.1, "dual_clip": 2.0, "std": False}
    want = parts(grpo(**settings, kl=0.02, entropy=0.03), of)
    for make in (sdar, grpo_opsd):
        result = parts(make(**settings, kl=0.02, entropy=0.03), of)
        assert {name: result[name] for name in want} == pytest.approx(want, rel=1e-6)
    want = parts(grpo(**settings, clip_high=0.4, kl=0.02), of)
    result = parts(skill_sd(**settings, clip_high=0.4, kl=0.02), of)
    assert {name: result[name] for name in want} == pytest.approx(want, rel=1e-6)


def test_sdars_own_settings() -> None:
    own = sdar()
    assert (own.views["teacher"].policy, own.views["teacher"].hint) == ("self", "skills")
    assert [term.name for term in own.terms] == ["grpo", "kl", "sdar"]
    assert own.views["reference"].policy == "reference"
    assert "reference" not in sdar(kl=0.0).views
    for make in HINTED:
        asked = make(hint="plan", teacher="big").views["teacher"]
        assert (asked.policy, asked.hint) == ("big", "plan")
        assert make().views["teacher"].hint == "skills"
        assert not make().actors  # the student takes every turn


def test_coefficients_may_be_scheduled(of: World) -> None:
    for make, name in (
        (sdar, "sdar"),
        (gated_opsd, "gated_opsd"),
        (grpo_opsd, "opsd"),
        (skill_sd, "skill_sd"),
    ):
        falling = make(coef=linear(0.4, 0.0, 10))
        fixed = parts(make(coef=0.4), of)[name]
        results = [parts(falling, of, at)[name] for at in (0, 5, 10, 99)]
        assert results == pytest.approx([fixed, fixed / 2, 0, 0], rel=1e-4)


def test_the_gate_follows_the_student_and_passes_no_gradient(of: World) -> None:
    """It closes as the student comes closer, while the teacher stays that of before the step."""
    step = of.step()
    term = named(sdar(coef=1.0), "sdar")
    bound = term.bind(step)
    everything = torch.arange(len(step.batch.token))
    teacher = step.scores["teacher"].logp
    for shift in (0.0, 0.7):
        logp = (step.scores["student"].logp + shift).requires_grad_()
        live = Scores(logp=logp)
        loss = bound({"student": live}, everything)
        g = torch.sigmoid(5 * (teacher - logp.detach()))
        assert_close(loss.detach(), g * (teacher - logp.detach()))
        loss.sum().backward()
        assert logp.grad is not None
        assert_close(logp.grad, -g)  # and not -(g + beta gap g (1 - g))
    assert_close(
        step.columns["gate[sdar]"], torch.sigmoid(5 * (teacher - step.scores["student"].logp))
    )


@pytest.mark.parametrize("gate", [gap_gate, entropy_gate, soft_or_gate])
@given(seed=SEEDS, beta=st.floats(0, 20))
def test_gates_are_shares(gate: Callable[[float], object], seed: int, beta: float) -> None:
    x = logits(seed).detach()
    g = gate(beta)(scores(x), scores(near(x, seed + 1, 2.0)))  # type: ignore[operator]
    assert g.shape == (V,)
    assert ((g >= 0) & (g <= 1)).all()
    if beta == 0:
        assert (g == 0.5).all()


def test_gates_open_for_what_their_names_say() -> None:
    certain, unsure = torch.zeros(V), torch.zeros(V)
    certain[0] = 12.0
    liked, disliked = torch.tensor([-0.1]), torch.tensor([-4.0])
    actual = Scores(logp=torch.tensor([-1.0]))
    assert float(gap_gate()(actual, Scores(logp=liked))) > 0.98
    assert float(gap_gate()(actual, Scores(logp=disliked))) < 0.01
    a, b = scores(certain), scores(unsure)
    assert float(entropy_gate()(a, a)[0]) == pytest.approx(0.5, abs=1e-2)
    assert float(entropy_gate()(b, b)[0]) == pytest.approx(sigmoid(5 * math.log(V)))
    # the largest entropy is 1, which opens the gate whatever the teacher says
    assert float(soft_or_gate()(b, scores(certain))[3]) == pytest.approx(sigmoid(5))
    assert float(soft_or_gate()(a, a)[0]) == pytest.approx(0.5, abs=1e-2)


# -- what the gradients are


@given(seed=SEEDS)
def test_with_beta_zero_sdars_expected_gradient_is_exactly_zero(seed: int) -> None:
    x = logits(seed)
    q = near(x, seed + 1, 1.0)
    for algorithm, name in (
        (sdar(beta=0.0, coef=1.0), "sdar"),
        (grpo_opsd(form="published", coef=1.0), "opsd"),
    ):
        assert float(expected(named(algorithm, name), x, q).abs().max()) < 1e-12
    # and so is that of a gate which does not look at the token, whatever its sharpness
    for beta in (0.0, 5.0):
        own = named(sdar(gate="entropy", beta=beta, coef=1.0), "sdar")
        assert float(expected(own, x, q).abs().max()) < 1e-12
    assert float(expected(named(sdar(coef=1.0), "sdar"), x, q).abs().max()) > 1e-6


@given(seed=SEEDS, beta=st.sampled_from([1.0, 5.0]))
def test_for_small_gaps_sdar_is_reverse_kl_times_a_quarter_of_beta(seed: int, beta: float) -> None:
    x = logits(seed)
    q = near(x, seed + 1, 0.02)
    got, want = expected(named(sdar(beta=beta, coef=1.0), "sdar"), x, q), reverse(x, q)
    assert float(torch.cosine_similarity(got, want, dim=0)) > 0.99
    assert float(got.norm() / want.norm()) == pytest.approx(beta / 4, rel=0.1)


@given(seed=SEEDS)
def test_skill_sd_and_the_honest_grpo_opsd_teach_reverse_kl_on_policy(seed: int) -> None:
    x = logits(seed)
    q = near(x, seed + 1, 1.0)
    assert_close(expected(named(skill_sd(coef=1.0), "skill_sd"), x, q), reverse(x, q))
    assert_close(expected(named(grpo_opsd(coef=1.0), "opsd"), x, q), reverse(x, q))


@given(seed=SEEDS)
def test_skill_sd_stays_exact_on_samples_of_older_weights(seed: int) -> None:
    x = logits(seed)
    q, older = near(x, seed + 1, 1.0), near(x, seed + 2, 0.3)
    got = expected(named(skill_sd(coef=1.0), "skill_sd"), x, q, sampler=older)
    assert_close(got, reverse(x, q))


@given(seed=SEEDS, loss=st.sampled_from(["reverse", "forward"]))
def test_over_the_vocabulary_sdar_is_its_divergence_times_the_expected_gate(
    seed: int, loss: str
) -> None:
    """The gate is of the sampled token, the divergence of the whole distribution."""
    x = logits(seed)
    q = near(x, seed + 1, 1.0)
    p = x.detach().log_softmax(-1)
    share = float((p.exp() * torch.sigmoid(5 * (q - p))).sum())
    want = {"reverse": reverse, "forward": forward}[loss](x, q)
    short = x.detach().float().requires_grad_()
    got = expected(named(sdar(loss=loss, coef=1.0), "sdar"), short, q.float())
    assert_close(got.double(), share * want, atol=1e-5, rtol=1e-4)


# -- its baselines


def test_gated_opsd_has_no_reward(of: World) -> None:
    bare = gated_opsd()
    assert [term.name for term in bare.terms] == ["gated_opsd", "kl"]
    assert [term.name for term in gated_opsd(kl=0.0).terms] == ["gated_opsd"]
    assert "reference" not in gated_opsd(kl=0.0).views
    full = parts(sdar(gate="soft_or", beta=2.0, loss="jsd", coef=0.1, kl=0.2), of)
    result = parts(gated_opsd(gate="soft_or", beta=2.0, loss="jsd", coef=0.1, kl=0.2), of)
    assert result == pytest.approx({"gated_opsd": full["sdar"], "kl": full["kl"]}, rel=1e-6)


def test_grpo_opsd_in_both_forms(of: World) -> None:
    honest = mean([t.gap**2 / 2 for t in tokens(of)])
    assert parts(grpo_opsd(coef=0.2), of)["opsd"] == pytest.approx(0.2 * honest, rel=1e-4)
    published = mean([t.gap / 2 for t in tokens(of)])
    result = parts(grpo_opsd(form="published", coef=0.2), of)
    assert result["opsd"] == pytest.approx(0.2 * published, rel=1e-4, abs=1e-7)
    assert result["grpo"] == parts(grpo(), of)["grpo"]


def test_skill_sd(of: World) -> None:
    want = mean([t.ratio * (math.exp(t.gap) - 1 - t.gap) for t in tokens(of)])
    result = parts(skill_sd(), of)
    assert result["skill_sd"] == pytest.approx(0.001 * want, rel=1e-4)
    a = advantages(of)
    reward = mean([clipped(t.ratio, a[t.episode], 0.2, 0.28, None) for t in tokens(of)])
    assert result["grpo"] == pytest.approx(reward, rel=1e-4, abs=1e-6)
    assert set(result) == {"grpo", "skill_sd"}


@pytest.mark.parametrize("at", [0, 1, 50, 99, 100, 101, 400])
def test_rlsd(of: World, at: int) -> None:
    s = 0.5 * (1 - min(at / 100, 1))
    a = advantages(of)
    loss = []
    for t in tokens(of):
        sign = (a[t.episode] > 0) - (a[t.episode] < 0)
        likely = min(max(math.exp(sign * t.gap), 0.8), 1.2)
        loss.append(clipped(t.ratio, a[t.episode] * (1 - s + s * likely), 0.2, 0.2, 3.0))
    assert parts(rlsd(), of, at)["rlsd"] == pytest.approx(mean(loss), rel=1e-4, abs=1e-6)
    if at >= 100:
        assert total(rlsd(), of, at) == pytest.approx(total(grpo(), of), rel=1e-6)


def test_rlsds_settings(of: World) -> None:
    a = advantages(of, std=False)
    loss = []
    for t in tokens(of):
        sign = (a[t.episode] > 0) - (a[t.episode] < 0)
        likely = min(max(math.exp(sign * t.gap), 0.5), 1.5)
        advantage = a[t.episode] * (0.1 + 0.9 * likely)
        loss.append(clipped(t.ratio, advantage, 0.2, 0.3, 2.0))
    result = rlsd(
        strength=0.9, decay_steps=10**9, width=0.5, std=False, clip_high=0.3, dual_clip=2.0
    )
    assert parts(result, of)["rlsd"] == pytest.approx(mean(loss), rel=1e-4, abs=1e-6)
    assert [term.name for term in rlsd(kl=0.1).terms] == ["rlsd", "kl"]
    assert set(rlsd(kl=0.1).views) == {"teacher", "reference"}


@given(seed=st.integers(0, 99), strength=st.floats(0, 1), width=st.floats(0.01, 0.99))
def test_evidence_scales_a_advantage_and_never_turns_it(
    seed: int, strength: float, width: float
) -> None:
    step = world(seed).step()
    a = group_relative()
    factor = evidence(a, strength, width=width)(step)
    assert ((factor > 1 - width - 1e-5) & (factor < 1 + width + 1e-5)).all()
    # what the teacher endorses counts more in a good episode and less in a bad one
    agree = a(step).sign() * gap()(step).sign()
    assert ((factor - 1) * agree >= -1e-6).all()


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for width in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="width lies between 0 and 1"):
            rlsd(width=width)
    with pytest.raises(ValueError, match="strength is a share"):
        rlsd(strength=1.5)


def test_a_group_of_one_or_of_equal_rewards_is_taught_by_the_teacher_alone() -> None:
    alone = world(3, groups=4, group_size=1)
    result = parts(sdar(coef=1.0), alone)
    assert result["grpo"] == 0
    assert result["sdar"] != 0
    assert total(rlsd(), alone) == 0
    step = alone.step()
    everything = torch.arange(len(step.batch.token))
    bind(rlsd(), step)(alone.live(step, everything), everything)
