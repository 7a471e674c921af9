"""The sampler's probabilities against the trainer's: measured without a pass more, bounded before
anything is learnt, and made up for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from support.fake_policy import Table
from torch import Tensor
from torch.testing import assert_close
from training.test_train_step import MAKE, Recorder, step, world

from tutelage.algorithms import ALGORITHMS
from tutelage.errors import RunError
from tutelage.maths.estimators import k3
from tutelage.objective import ONE, Algorithm, DistillSampled, View
from tutelage.rollout.play import play
from tutelage.rollout.session import Session
from tutelage.training.sampler_mismatch import Mismatch
from tutelage.types import EXPERT, Episode

Shift = Callable[[int], float]


def played(
    algorithm: Algorithm, shift: Shift = lambda k: 0.0, *, actor: str = "student"
) -> tuple[Session, dict[str, Table], list[Episode]]:
    """Episodes whose k-th token of an actor was sampled with a log-probability that is `shift(k)`
    less than the trainer's."""
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:6], algorithm, seed=0, step=9, group_size=2)
    result, k = [], 0
    for episode in episodes:
        turns = []
        for turn in episode.turns:
            logps = list(turn.logps)
            if turn.actor == actor:
                logps = [x - shift(k + i) for i, x in enumerate(logps)]
                k += len(logps)
            turns.append(replace(turn, logps=tuple(logps)))
        result.append(replace(episode, turns=tuple(turns)))
    return on, policies, result


def tokens(episodes: Sequence[Episode]) -> int:
    return sum(len(turn.tokens) for e in episodes for turn in e.turns)


@pytest.mark.parametrize("name", MAKE)
def test_the_trainer_that_samples_has_none_and_is_asked_nothing_more(name: str) -> None:
    algorithm = MAKE[name]()
    on, policies, episodes = played(algorithm)
    recorder = Recorder(list(policies["self"].parameters()))
    report = step(on, policies, algorithm, episodes, recorder, at=9, mismatch=1e-3)
    if name == "sft":
        assert {t.actor for e in episodes for t in e.turns} == {EXPERT}
        assert report.mismatch == {}
    else:
        assert 0 <= report.mismatch["mean"] <= report.mismatch["max"] < 1e-5
    # a pass before the update for those that ask for one, and one to learn
    passes = {"sft": 1, "opd full": 1}.get(name, 2)
    assert sum(len(s.tokens) for s in policies["self"].scored) <= passes * tokens(episodes)


@pytest.mark.parametrize("name", ["grpo", "opd", "opd full"])
def test_the_numbers(name: str) -> None:
    algorithm = MAKE[name]()
    on, policies, episodes = played(algorithm, lambda k: -0.75 if k == 3 else 0.25)
    recorder = Recorder(list(policies["self"].parameters()))
    # the limit is for the mean, not for the largest
    found = step(on, policies, algorithm, episodes, recorder, at=9, mismatch=0.5).mismatch
    count = tokens(episodes)
    assert found["mean"] == pytest.approx(0.25 + 0.5 / count, abs=1e-5)
    assert found["max"] == pytest.approx(0.75, abs=1e-5)
    assert found["p99"] == pytest.approx(0.25 if count >= 100 else 0.75, abs=1e-5)


def test_percentiles_are_of_what_was_found() -> None:
    found = Mismatch()
    assert found.numbers() == {}
    found.check(0)
    found.add(torch.arange(100.0, 200.0), torch.full((100,), 100.0))
    found.add(torch.arange(-100.0, 0.0), torch.zeros(100))
    # 0 to 99, and 1 to 100
    assert found.numbers() == {"mean": 50.0, "p99": 99.0, "max": 100.0}
    alone = Mismatch()
    alone.add(torch.tensor([2.0]), torch.tensor([5.0]))
    assert alone.numbers() == {"mean": 3.0, "p99": 3.0, "max": 3.0}


@pytest.mark.parametrize("name", ["grpo", "opd", "opd full", "guided_opd sampled"])
@pytest.mark.parametrize("wrong", [0.3, math.nan])
def test_too_much_stops_before_anything_is_learnt(name: str, wrong: float) -> None:
    algorithm = MAKE[name]()
    on, policies, episodes = played(algorithm, lambda k: wrong)
    recorder = Recorder(list(policies["self"].parameters()))
    with pytest.raises(
        RunError, match=r"in step 9 the sampler's .* policy\.sampler\.max_mismatch$"
    ):
        step(on, policies, algorithm, episodes, recorder, at=9, mismatch=0.2)
    assert not recorder.seen
    if wrong == 0.3:
        step(on, policies, algorithm, episodes, recorder, at=9, mismatch=0.31)
        assert recorder.seen


def test_what_a_teacher_sampled_is_its_own_affair() -> None:
    algorithm = ALGORITHMS["guided_opd"](total_steps=30, student_turns="sampled")
    on, policies, episodes = played(algorithm, lambda k: 9.0, actor="teacher")
    assert any(t.actor == "teacher" for e in episodes for t in e.turns)
    recorder = Recorder(list(policies["self"].parameters()))
    report = step(on, policies, algorithm, episodes, recorder, at=9, truncate=2.0)
    assert report.mismatch["max"] < 1e-5
    assert_close(report.columns["importance"], torch.ones(report.tokens), atol=1e-5, rtol=0)


def test_what_was_recorded_is_not_compared() -> None:
    """The student of another day may have sampled what is imitated."""
    on, policies, episodes = played(MAKE["opd"](), lambda k: 9.0)
    recorder = Recorder(list(policies["self"].parameters()))
    report = step(on, policies, MAKE["sft"](), episodes, recorder, mismatch=1e-3)
    assert report.mismatch == {}


@pytest.mark.parametrize("name", ["grpo", "opd full"])
def test_only_weights_that_sampled_are_compared(name: str) -> None:
    algorithm = MAKE[name]()
    on, policies, episodes = played(algorithm)
    far = torch.optim.SGD(policies["self"].parameters(), lr=50.0)
    found = step(on, policies, algorithm, episodes, far, minibatches=3, epochs=2).mismatch
    assert found["max"] < 1e-5
    assert (policies["self"].logits - world()[1]["self"].logits).abs().max() > 0.01


# -- made up for


def by_hand(policies: dict[str, Table], on: Session, episodes: list[Episode]) -> Tensor:
    """sum_t min(p / q, 2) A_t grad log p / N, with OPD's A_t = log teacher - log p."""
    flat = [s for e in episodes for s in on.prompter(View(), e.task).samples(e)]
    logp = policies["self"].score(flat, 1.0).logp
    goal = policies["teacher"].score(flat, 1.0).logp
    drawn = [x for e in episodes for turn in e.turns for x in turn.logps]
    loss = torch.zeros(())
    for k, q in enumerate(drawn):
        p = logp[k].detach()
        weight = min(math.exp(float(p) - q), 2.0)
        loss = loss - weight * (goal[k].detach() - p) * logp[k] / len(drawn)
    (gradient,) = torch.autograd.grad(loss, list(policies["self"].parameters()))
    return gradient.flatten()


def noisy(k: int) -> float:
    return math.sin(5.0 * k)


def of_step(name: str, shift: Shift, **update: float) -> Tensor:
    algorithm = MAKE[name]()
    on, policies, episodes = played(algorithm, shift)
    recorder = Recorder(list(policies["self"].parameters()))
    step(on, policies, algorithm, episodes, recorder, at=9, **update)
    return recorder.seen[0]


@pytest.mark.parametrize("tokens", [60, 16_384])
def test_truncated_importance_weights(tokens: int) -> None:
    algorithm = MAKE["opd"]()
    on, policies, episodes = played(algorithm, noisy)
    recorder = Recorder(list(policies["self"].parameters()))
    report = step(
        on,
        policies,
        algorithm,
        episodes,
        recorder,
        at=9,
        truncate=2.0,
        max_tokens_per_pass=tokens,
    )
    assert_close(recorder.seen[0], by_hand(policies, on, episodes), atol=1e-7, rtol=1e-4)
    want = [min(math.exp(noisy(k)), 2.0) for k in range(report.tokens)]
    assert_close(report.columns["importance"], torch.tensor(want), atol=1e-4, rtol=1e-4)
    # what was measured is what was there before
    assert report.mismatch["max"] == pytest.approx(max(map(abs, map(noisy, range(99)))), abs=0.02)


@pytest.mark.parametrize("name", ["grpo", "opd", "guided_opd sampled"])
def test_they_are_1_where_the_sampler_is_right(name: str) -> None:
    plain, weighted = of_step(name, lambda k: 0.0), of_step(name, lambda k: 0.0, truncate=2.0)
    assert_close(weighted, plain, atol=1e-6, rtol=1e-4)


def test_they_are_not_for_divergences_over_the_vocabulary() -> None:
    """Those are no expectation over the tokens that were sampled."""
    plain, weighted = of_step("opd full", noisy), of_step("opd full", noisy, truncate=2.0)
    assert_close(weighted, plain, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("corrected", [False, True])
def test_they_are_for_estimates_of_them(corrected: bool) -> None:
    """With all shifts equal, every weight is the same number."""

    def gradient(shift: float, **update: float) -> Tensor:
        term = DistillSampled(estimate=k3, corrected=corrected, weight=ONE)
        algorithm = Algorithm(terms=(term,), views={"teacher": View(policy="teacher")})
        on, policies, episodes = played(algorithm, lambda k: shift)
        recorder = Recorder(list(policies["self"].parameters()))
        step(on, policies, algorithm, episodes, recorder, at=9, **update)
        return recorder.seen[0]

    plain = gradient(0.0)
    assert_close(gradient(0.5, truncate=9.0), math.exp(0.5) * plain, atol=1e-6, rtol=1e-4)
    assert_close(gradient(0.5, truncate=1.25), 1.25 * plain, atol=1e-6, rtol=1e-4)
    assert_close(gradient(-0.5, truncate=1.25), math.exp(-0.5) * plain, atol=1e-6, rtol=1e-4)
