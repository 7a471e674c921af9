"""Each algorithm against its paper's formula, written as loops over tokens."""

import math
import statistics
from dataclasses import dataclass

import pytest
import torch
from support.fake_steps import World, parts, total, world

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.guided_opd import guided_opd
from tutelage.algorithms.opd import opd
from tutelage.algorithms.sft import sft
from tutelage.maths.estimators import k3
from tutelage.objective import ONE, Algorithm, DistillSampled, View
from tutelage.objective.scores import Scores


@dataclass(frozen=True)
class Token:
    """What a paper's formula may look at, for one token."""

    episode: int
    actor: str
    token: int
    old: float  # log-probability when it was sampled
    student: list[float]  # log-probabilities over the vocabulary
    teacher: list[float]
    reference: list[float]

    @property
    def logp(self) -> float:
        return self.student[self.token]

    @property
    def gap(self) -> float:
        return self.teacher[self.token] - self.student[self.token]

    @property
    def ratio(self) -> float:
        return math.exp(self.logp - self.old)

    @property
    def reverse_kl(self) -> float:
        return sum(math.exp(p) * (p - q) for p, q in zip(self.student, self.teacher, strict=True))

    @property
    def forward_kl(self) -> float:
        return sum(math.exp(q) * (q - p) for p, q in zip(self.student, self.teacher, strict=True))

    @property
    def entropy(self) -> float:
        return -sum(math.exp(p) * p for p in self.student)


def tokens(of: World) -> list[Token]:
    rows = {view: of.distribution(view).logps().tolist() for view in of.heads}
    flat = [
        (e, turn.actor, token, logp)
        for e, episode in enumerate(of.episodes)
        for turn in episode.turns
        for token, logp in zip(turn.tokens, turn.logps, strict=True)
    ]
    return [
        Token(e, actor, token, logp, *(rows[v][n] for v in ("student", "teacher", "reference")))
        for n, (e, actor, token, logp) in enumerate(flat)
    ]


def advantages(of: World, *, std: bool = True) -> list[float]:
    """GRPO's, one per episode."""
    results = []
    for episode in of.episodes:
        peers = [e.total_reward for e in of.episodes if e.task.id == episode.task.id]
        centred = episode.total_reward - statistics.fmean(peers)
        results.append(centred / (statistics.pstdev(peers) + 1e-6) if std else centred)
    return results


def clipped(ratio: float, advantage: float, low: float, high: float, dual: float | None) -> float:
    loss = max(-advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high))
    return min(loss, -advantage * dual) if dual is not None and advantage < 0 else loss


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return world(request.param)


@pytest.mark.parametrize("std", [True, False])
@pytest.mark.parametrize("dual", [None, 3.0, 1.5])
@pytest.mark.parametrize(("low", "high"), [(0.2, None), (0.2, 0.28), (0.05, 0.9)])
def test_grpo(of: World, std: bool, dual: float | None, low: float, high: float | None) -> None:
    a = advantages(of, std=std)
    want = mean(
        [
            clipped(t.ratio, a[t.episode], low, low if high is None else high, dual)
            for t in tokens(of)
        ]
    )
    got = total(grpo(clip=low, clip_high=high, dual_clip=dual, std=std), of)
    assert got == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_grpo_with_the_denominator_recomputed_starts_at_a_ratio_of_one(of: World) -> None:
    a = advantages(of)
    want = mean([-a[t.episode] for t in tokens(of)])
    assert total(grpo(old="recomputed"), of) == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_grpo_pulls_to_the_reference_and_is_paid_for_entropy(of: World) -> None:
    result = parts(grpo(kl=0.3, entropy=0.07), of)
    assert set(result) == {"grpo", "kl", "entropy"}
    gaps = [t.reference[t.token] - t.logp for t in tokens(of)]
    assert result["kl"] == pytest.approx(0.3 * mean([math.exp(d) - 1 - d for d in gaps]), rel=1e-4)
    assert result["entropy"] == pytest.approx(
        -0.07 * mean([t.entropy for t in tokens(of)]), rel=1e-4
    )
    assert result["grpo"] == pytest.approx(total(grpo(), of), rel=1e-6)


def test_grpo_scores_no_reference_that_it_does_not_pull_to() -> None:
    assert grpo().views == {}
    assert grpo(kl=0.1).views["reference"].policy == "reference"
    assert [term.name for term in grpo(kl=0.1).terms] == ["grpo", "kl"]


def test_opd_sampled_is_a_policy_gradient_on_the_gap(of: World) -> None:
    want = mean([-t.gap * t.ratio for t in tokens(of)])
    assert total(opd(), of) == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_opd_full_is_reverse_kl(of: World) -> None:
    want = mean([t.reverse_kl for t in tokens(of)])
    assert total(opd(vocabulary="full"), of) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("student_turns", ["sampled", "full"])
@pytest.mark.parametrize("teacher_turns", ["sampled", "full"])
@pytest.mark.parametrize("curriculum", ["cosine", "linear", "exponential"])
def test_guided_opd_uses_the_divergence_of_the_actor(
    of: World, student_turns: str, teacher_turns: str, curriculum: str
) -> None:
    algorithm = guided_opd(
        total_steps=10,
        student_turns=student_turns,
        teacher_turns=teacher_turns,
        curriculum=curriculum,
        clip=0.3,
        dual_clip=2.0,
    )
    all_tokens = tokens(of)
    reverse = [t for t in all_tokens if t.actor == "student"]
    forward = [t for t in all_tokens if t.actor == "teacher"]
    assert reverse
    assert forward
    actual = {
        "full": lambda t: t.reverse_kl,
        "sampled": lambda t: clipped(t.ratio, t.gap, 0.3, 0.3, 2.0),
    }[student_turns]
    reference = {"full": lambda t: t.forward_kl, "sampled": lambda t: -t.logp}[teacher_turns]
    result = parts(algorithm, of)
    # one mean over all tokens, so each part is its share of it
    n = len(all_tokens)
    assert result["student_turns"] == pytest.approx(
        sum(map(actual, reverse)) / n, rel=1e-4, abs=1e-6
    )
    assert result["teacher_turns"] == pytest.approx(
        sum(map(reference, forward)) / n, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("source", ["expert", "teacher"])
def test_sft_is_cross_entropy_on_every_sampled_token(of: World, source: str) -> None:
    want = mean([-t.logp for t in tokens(of)])
    assert total(sft(source=source), of) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("corrected", [False, True])
def test_k3_of_sampled_tokens_with_and_without_the_ratio(of: World, corrected: bool) -> None:
    term = DistillSampled(estimate=k3, corrected=corrected, weight=0.5 * ONE)
    terms = [
        (t.ratio if corrected else 1.0) * 0.5 * (math.exp(t.gap) - 1 - t.gap) for t in tokens(of)
    ]
    assert total(Algorithm(terms=(term,), views={"teacher": View()}), of) == pytest.approx(
        mean(terms), rel=1e-4
    )
    # the ratio carries gradient: d/dlogp of r (e^gap - 1 - gap) is -r gap, else 1 - e^gap
    step = of.step()
    logp = step.scores["student"].logp.detach().clone().requires_grad_()
    everything = torch.arange(len(logp))
    term.bind(step)({"student": Scores(logp=logp)}, everything).sum().backward()
    want = [0.5 * (-t.ratio * t.gap if corrected else 1 - math.exp(t.gap)) for t in tokens(of)]
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx(want, rel=1e-3, abs=1e-5)


def test_who_plays_under_each_algorithm() -> None:
    assert sft().acting.expert
    assert sft().actors == {}
    by_teacher = sft(source="teacher", teacher="big")
    assert not by_teacher.acting.expert
    assert by_teacher.views["teacher"].policy == "big"
    assert [by_teacher.actors["teacher"](s) for s in (0, 99)] == [1.0, 1.0]
    for alone in (grpo(), opd(), opd(vocabulary="full")):
        assert not alone.actors
        assert not alone.acting.expert
    guided = guided_opd(total_steps=10, teacher="big")
    assert set(guided.actors) == {"teacher"}
    assert guided.views["teacher"].policy == "big"
    assert opd(teacher="big").views["teacher"].policy == "big"
