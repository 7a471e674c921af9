"""Turn weights, and the methods that use them, against loops over turns."""

import math
from itertools import pairwise
from statistics import fmean

import pytest
import torch
from algorithms.test_formulas import Token, advantages, clipped, mean, tokens
from hypothesis import given
from hypothesis import strategies as st
from support.fake_steps import World, gradient, parts, total, world
from support.turn_formulas import turns_of, written

from tutelage.algorithms.atod import atod
from tutelage.algorithms.opd import opd
from tutelage.algorithms.sod import sod
from tutelage.algorithms.tcod import tcod
from tutelage.objective import bind
from tutelage.schedules import constant, linear
from tutelage.signals import (
    discounted_gap,
    first_turns,
    gap,
    sod_weight,
    t_dur,
    token_dur,
    token_mean,
)

LOGP = st.floats(-9, -0.01)
TURN = st.lists(st.tuples(LOGP, LOGP), min_size=1, max_size=4)
EPISODES = st.lists(st.lists(TURN, min_size=1, max_size=5), min_size=1, max_size=3)


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return world(request.param)


def scaled(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [0.5 if high - low < 1e-8 else (v - low) / (high - low) for v in values]


def weights_of(turns: list[list[Token]], *, guarded: bool = True) -> list[float]:
    """T-DUR of an episode."""
    d = [fmean(abs(t.gap) for t in turn) for turn in turns]
    h = [fmean(-t.logp for t in turn) for turn in turns]
    if guarded and (len(turns) < 3 or max(d) < 0.01):
        return [1.0] * len(turns)
    return [1 - (1 - a) * (1 - b) for a, b in zip(scaled(d), scaled(h), strict=True)]


# -- T-DUR


def test_t_dur_by_hand() -> None:
    turns = [[(-1.0, -1.1)], [(-1.0, -1.3), (-3.0, -3.3)], [(-3.0, -3.2)]]
    # d = .1 .3 .2 and h = 1 2 3, so scaled 0 1 .5 and 0 .5 1; two tokens in the second turn
    assert t_dur()(written([turns])).tolist() == pytest.approx([0, 1, 1, 1])
    turns = [[(-1.0, -1.1)], [(-2.0, -2.2)], [(-3.0, -3.05)], [(-1.5, -1.25)]]
    a, b = [0.25, 0.75, 0, 1], [0, 0.5, 1, 0.25]
    want = [1 - (1 - x) * (1 - y) for x, y in zip(a, b, strict=True)]
    assert t_dur()(written([turns])).tolist() == pytest.approx(want, abs=1e-5)


def test_t_dur_leaves_short_and_agreeing_episodes_alone() -> None:
    far, near = (-1.0, -2.0), (-1.0, -1.005)
    two = [[far], [(-3.0, -3.1)]]
    agreeing = [[near], [(-2.0, -2.001)], [(-0.5, -0.5)]]
    step = written([two, agreeing, [[far]]])
    assert t_dur()(step).tolist() == [1.0] * 6
    assert t_dur(min_turns=2)(step).tolist()[:2] == pytest.approx([1, 1])  # largest d; largest h
    assert t_dur(min_turns=1, min_gap=0.001)(step).tolist()[2:5] != [1.0] * 3
    # a lone turn is neither high nor low among its peers: .5 or .5
    assert t_dur(min_turns=1)(step).tolist()[5] == pytest.approx(0.75)


def test_turns_that_are_all_equal_weigh_the_same() -> None:
    same = [[(-1.0, -1.5)], [(-1.0, -1.5)], [(-1.0, -1.5)]]
    assert t_dur()(written([same])).tolist() == pytest.approx([0.75] * 3)


def test_an_empty_turn_is_no_turn() -> None:
    spoken = [[(-1.0, -1.1)], [(-2.0, -2.2)], [(-3.0, -3.05)]]
    for signal in (t_dur(), sod_weight(), first_turns(2), t_dur(balanced=True)):
        silent = [[], spoken[0], [], *spoken[1:], []]
        with_them = signal(written([silent, spoken]))
        assert with_them.tolist() == pytest.approx(signal(written([spoken, spoken])).tolist())
    # two spoken turns are two, whatever was not said between them
    assert t_dur()(written([[spoken[0], [], spoken[1]]])).tolist() == [1, 1]
    assert t_dur()(written([])).tolist() == []
    assert token_dur()(written([])).tolist() == []


@given(EPISODES)
def test_t_dur_is_bounded_and_some_turn_keeps_its_whole_weight(
    episodes: list[list[list[tuple[float, float]]]],
) -> None:
    step = written(episodes)
    w = t_dur()(step)
    assert (w >= 0).all()
    assert (w <= 1).all()
    for e, turns in enumerate(episodes):
        actual = w[step.batch.owner == e]
        gaps = [fmean(abs(p - q) for p, q in turn) for turn in turns]
        if len(turns) < 3 or max(gaps) < 0.0099 or max(gaps) - min(gaps) > 1e-4:
            assert float(actual.max()) == pytest.approx(1)
    # an episode's weights are its own affair, and rows that are there twice change nothing
    alone = torch.cat([t_dur()(written([turns])) for turns in episodes])
    assert w.tolist() == alone.tolist()
    twice = t_dur(min_turns=0)(written([[t for t in turns for _ in (0, 1)] for turns in episodes]))
    once = t_dur(min_turns=0)(step)
    want = [
        once[at : at + len(turn)].tolist() * 2
        for turn, at in zip(
            [t for turns in episodes for t in turns],
            _starts([len(t) for turns in episodes for t in turns]),
            strict=True,
        )
    ]
    assert twice.tolist() == pytest.approx([x for row in want for x in row], abs=1e-6)


def _starts(lengths: list[int]) -> list[int]:
    return [sum(lengths[:k]) for k in range(len(lengths))]


@given(EPISODES)
def test_balanced_weights_average_to_one_unless_a_bound_holds_them(
    episodes: list[list[list[tuple[float, float]]]],
) -> None:
    step = written(episodes)
    plain, w = t_dur()(step), t_dur(balanced=True)(step)
    assert (w >= 0.5).all()
    assert (w <= 2).all()
    for e in range(len(episodes)):
        actual, before = w[step.batch.owner == e], plain[step.batch.owner == e]
        free = before / before.mean()
        assert actual.tolist() == pytest.approx(free.clamp(0.5, 2).tolist(), rel=1e-4)
    tokens_ = token_dur(balanced=True)(step)
    free = token_dur()(step)
    assert tokens_.tolist() == pytest.approx((free / free.mean()).clamp(0.5, 2).tolist(), rel=1e-4)


def test_t_dur_of_random_turns(of: World) -> None:
    want = [
        w
        for turns in turns_of(of)
        for w, turn in zip(weights_of(turns), turns, strict=True)
        for _ in turn
    ]
    assert t_dur()(of.step()).tolist() == pytest.approx(want, abs=1e-4)
    assert len({round(w, 4) for w in want}) > 3


def test_single_tokens_are_compared_with_the_whole_step(of: World) -> None:
    every = tokens(of)
    d, h = [abs(t.gap) for t in every], [-t.logp for t in every]
    cut = float(torch.tensor(h).quantile(0.9))
    want = [
        1 - (1 - a) * (1 - b)
        for a, b in zip(scaled(d), scaled([min(x, cut) for x in h]), strict=True)
    ]
    assert token_dur(quantile=0.9)(of.step()).tolist() == pytest.approx(want, abs=1e-4)
    assert token_dur(quantile=1.0)(of.step()).tolist() != pytest.approx(want, abs=1e-4)


# -- ATOD


@pytest.mark.parametrize("at", [0, 1, 40, 79, 80, 81, 500])
@pytest.mark.parametrize("reweight", ["turn", "none"])
def test_atod(of: World, at: int, reweight: str) -> None:
    p = min(at / 80, 1)
    kappa, rho = max(0.1, 1 - 0.9 * p), 1 + p
    a = advantages(of)
    loss = [
        clipped(t.ratio, kappa * w * t.gap + rho * a[t.episode], 0.2, 0.2, 3.0)
        for turns in turns_of(of)
        for w, turn in zip(
            weights_of(turns) if reweight == "turn" else [1.0] * len(turns), turns, strict=True
        )
        for t in turn
    ]
    assert total(atod(reweight=reweight), of, at) == pytest.approx(mean(loss), rel=1e-3, abs=1e-5)


def test_atods_schedules_are_exact_at_their_end_and_beyond() -> None:
    step = written([[[(-1.0, -2.0)]]], at=80)
    atod(kappa_min=0.0, reweight="none").terms[0].bind(step)
    saved = [v for name, v in step.columns.items() if name.startswith("schedule")]
    assert saved[0].tolist() == [0.0]
    # nothing of the teacher is left: the loss is GRPO's at rho_max
    assert any(name.startswith("schedule * group_relative") for name in step.columns)


def test_atod_without_annealing_stays_where_it_starts(of: World) -> None:
    start = total(atod(), of, 0)
    for at in (0, 40, 1000):
        assert total(atod(anneal=False), of, at) == pytest.approx(start, rel=1e-6)
    held = total(atod(anneal=False, kappa=0.1, rho=2.0, kappa_min=0.1, rho_max=2.0), of, 7)
    assert held == pytest.approx(total(atod(), of, 99), rel=1e-6)


def test_atods_options_reach_its_weights(of: World) -> None:
    step = of.step()
    for result, want in (
        (atod(reweight="token", balanced=True), token_dur(balanced=True)),
        (atod(reweight="token"), token_dur()),
        (atod(balanced=True, min_turns=2), t_dur(balanced=True, min_turns=2)),
        (atod(min_gap=0.9), t_dur(min_gap=0.9)),
    ):
        fresh = of.step()
        result.terms[0].bind(fresh)
        assert fresh.columns[want.name].tolist() == want(step).tolist()
    with pytest.raises(ValueError, match="kappa falls"):
        atod(kappa=0.05)
    with pytest.raises(ValueError, match="rho rises"):
        atod(rho=3.0)


def test_opd_is_atod_with_the_reward_switched_off(of: World) -> None:
    bare = atod(kappa=1.0, rho=0.0, rho_max=0.0, anneal=False, reweight="none", dual_clip=None)
    want = mean([clipped(t.ratio, t.gap, 0.2, 0.2, None) for t in tokens(of)])
    assert total(bare, of) == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert total(opd(clip=0.2), of) == pytest.approx(want, rel=1e-4, abs=1e-6)


# -- SOD


def sod_weights(turns: list[list[Token]], headroom: float) -> list[float]:
    """The paper's running product."""
    d = [fmean(abs(t.gap) for t in turn) for turn in turns]
    product, result = 1.0, [1.0]
    for before, after in pairwise(d):
        product *= (before + 1e-6) / (after + 1e-6)
        result.append(min(product, 1 + headroom))
    return result


@pytest.mark.parametrize("headroom", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("coef", [1.0, 0.3])
def test_sod(of: World, headroom: float, coef: float) -> None:
    a = advantages(of)
    loss = [
        clipped(t.ratio, a[t.episode] + coef * w * t.gap, 0.2, 0.2, 3.0)
        for turns in turns_of(of)
        for w, turn in zip(sod_weights(turns, headroom), turns, strict=True)
        for t in turn
    ]
    got = total(sod(headroom=headroom, coef=coef), of)
    assert got == pytest.approx(mean(loss), rel=1e-3, abs=1e-5)


def test_sod_by_hand() -> None:
    turns = [[(-1.0, -1.2)], [(-1.0, -1.4), (-1.0, -1.4)], [(-1.0, -1.05)], [(-1.0, -1.0)]]
    lone = [[(-1.0, -1.0)]]  # a gap of zero is no trouble
    got = sod_weight()(written([turns, lone])).tolist()
    assert got == pytest.approx([1, 0.5, 0.5, 1.5, 1.5, 1], rel=1e-4)


def test_sods_teacher_may_be_annealed(of: World) -> None:
    falling = sod(coef=linear(1.0, 0.0, 4))
    assert total(falling, of, 4) == pytest.approx(total(sod(coef=0.0), of), rel=1e-6)
    assert total(falling, of, 2) == pytest.approx(total(sod(coef=0.5), of), rel=1e-5)


# -- TCOD


@pytest.mark.parametrize("vocabulary", ["sampled", "full"])
@pytest.mark.parametrize(("at", "window"), [(0, 1), (1, 1), (2, 2), (3, 2), (5, 3), (400, 201)])
def test_tcod_trains_the_first_turns(of: World, at: int, window: int, vocabulary: str) -> None:
    inside = [t for turns in turns_of(of) for turn in turns[:window] for t in turn]
    loss = [t.reverse_kl if vocabulary == "full" else -t.gap * t.ratio for t in inside]
    got = total(tcod(vocabulary=vocabulary), of, at)
    assert got == pytest.approx(mean(loss), rel=1e-3, abs=1e-6)


def test_tcod_ends_as_opd(of: World) -> None:
    assert total(tcod(start=4), of) == pytest.approx(total(opd(), of), rel=1e-6)
    step = of.step(at=0)
    everything = [torch.arange(len(step.batch.token))]
    grad = gradient(bind(tcod(), step), of, step, everything)[1]
    later = first_turns(1)(step) == 0
    assert later.any()
    assert (grad[later] == 0).all()
    assert (grad[~later] != 0).any()


def test_a_window_is_at_least_one_turn_and_counts_whole_ones(of: World) -> None:
    step = of.step()
    for count, same in ((0, 1), (1.99, 1), (2.0, 2), (constant(2.5), 2)):
        assert first_turns(count)(step).tolist() == first_turns(same)(step).tolist()
    with pytest.raises(ValueError, match="at least 1, got 0 and 2"):
        tcod(start=0)
    with pytest.raises(ValueError, match="at least 1, got 1 and 0"):
        tcod(every=0)
    share = token_mean(first_turns(2))(step)
    assert float(share.sum()) == pytest.approx(1)
    assert set((share > 0).tolist()) == {True, False}


# -- gaps that look ahead


@given(EPISODES, st.floats(0, 1))
def test_a_discounted_gap_looks_ahead_within_its_episode(
    episodes: list[list[list[tuple[float, float]]]], gamma: float
) -> None:
    want = []
    for turns in episodes:
        gaps = [q - p for turn in turns for p, q in turn]
        want += [
            math.fsum(gamma ** (u - t) * gaps[u] for u in range(t, len(gaps)))
            for t in range(len(gaps))
        ]
    step = written(episodes)
    assert discounted_gap(gamma)(step).tolist() == pytest.approx(want, rel=1e-4, abs=1e-4)
    assert discounted_gap(0.0)(step).tolist() == gap()(step).tolist()


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_a_discount_is_a_share(gamma: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        discounted_gap(gamma)


def test_opd_with_a_discount_is_a_policy_gradient_on_what_follows(of: World) -> None:
    loss = []
    for turns in turns_of(of):
        flat = [t for turn in turns for t in turn]
        for k, t in enumerate(flat):
            advantage = sum(0.9**j * after.gap for j, after in enumerate(flat[k:]))
            loss.append(-advantage * t.ratio)
    assert parts(opd(gamma_kl=0.9), of)["opd"] == pytest.approx(mean(loss), rel=1e-3, abs=1e-5)
