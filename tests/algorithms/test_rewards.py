"""Methods with rewards against their papers' formulas, written as loops over episodes and tokens."""

import math
import statistics
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from algorithms.test_formulas import Token, advantages, clipped, mean, tokens
from hypothesis import given
from hypothesis import strategies as st
from support.fake_steps import World, gradient, parts, total, world

from tutelage.algorithms.dapo import dapo
from tutelage.algorithms.dr_grpo import dr_grpo
from tutelage.algorithms.gigpo import gigpo
from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.reinforce_pp import reinforce_pp
from tutelage.algorithms.rloo import rloo
from tutelage.maths.advantages import normalised, row_relative, sum_to_end
from tutelage.maths.estimators import k1, k2
from tutelage.objective import Algorithm, Step, bind
from tutelage.objective.penalties import overlong
from tutelage.objective.scores import Scores
from tutelage.signals import (
    batch_normalised,
    drift,
    episode_return,
    leave_one_out,
    state_relative,
    to_come,
    turn_relative,
    varied,
)
from tutelage.types import Episode, Observation, Task, Turn


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return world(request.param)


def turn(
    *, reward: float = 0.0, penalty: float = 0.0, state: str | None = None, n: int = 1
) -> Turn:
    return Turn(
        observation=Observation(text="", state=state),
        prompt=(1,),
        text="",
        tokens=(0,) * n,
        logps=(-0.5,) * n,
        reward=reward,
        penalty=penalty,
    )


def group(name: str, *episodes: tuple[Turn, ...]) -> list[Episode]:
    return [
        Episode(task=Task(id=name), group=name, copy=c, turns=turns)
        for c, turns in enumerate(episodes)
    ]


def step_of(episodes: list[Episode]) -> Step:
    """A step without views."""
    from tutelage.objective.batch import collate

    return Step(collate(episodes), {}, 0)


def by_turn(of: World) -> list[tuple[Episode, int, Turn]]:
    return [(e, k, t) for e in of.episodes for k, t in enumerate(e.turns)]


def spread(of: World, per_turn: list[float]) -> list[float]:
    """A number per turn -> per token."""
    return [x for x, (_, _, t) in zip(per_turn, by_turn(of), strict=True) for _ in t.tokens]


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-4, abs=1e-5)


# -- GRPO over turn rows


def turn_advantages(of: World, *, std: bool) -> list[float]:
    """Per turn, with the standard deviation of a sample, as agent frameworks take it."""
    rows = [
        (e.group, sum(t.reward for t in e.turns) - actual.penalty) for e, _, actual in by_turn(of)
    ]
    results = []
    for name, score in rows:
        peers = [s for other, s in rows if other == name]
        if len(peers) == 1:
            centre, scale = 0.0, 1.0
        else:
            centre, scale = statistics.fmean(peers), statistics.stdev(peers)
        results.append((score - centre) / (scale + 1e-6) if std else score - centre)
    return results


@pytest.mark.parametrize("std", [True, False])
def test_grpo_over_turns(of: World, std: bool) -> None:
    a = spread(of, turn_advantages(of, std=std))
    want = mean([clipped(t.ratio, x, 0.2, 0.2, 3.0) for t, x in zip(tokens(of), a, strict=True)])
    assert total(grpo(statistics="turn", std=std), of) == near(want)


def test_the_two_statistics_differ_and_episodes_are_the_default(of: World) -> None:
    assert total(grpo(statistics="turn"), of) != near(total(grpo(), of))
    assert total(grpo(statistics="episode"), of) == total(grpo(), of)


def test_a_penalty_is_its_own_turns_alone() -> None:
    """The score of a row is the return before penalties: one invalid turn does not mark others."""
    step = step_of(group("g", (turn(penalty=0.1), turn(reward=1.0)), (turn(), turn(reward=1.0))))
    assert turn_relative(std=False)(step).tolist() == pytest.approx([-0.075, 0.025, 0.025, 0.025])


def test_long_episodes_weigh_more_in_a_mean_over_turns() -> None:
    lost, won = tuple(turn() for _ in range(9)), (turn(reward=1.0),)
    step = step_of(group("g", lost, won))
    assert turn_relative(std=False)(step).tolist() == pytest.approx([-0.1] * 9 + [0.9])


def test_a_group_of_one_row_keeps_its_score() -> None:
    step = step_of([*group("g", (turn(reward=2.0),)), *group("h", (turn(), turn()))])
    for std in (True, False):
        assert turn_relative(std=std)(step).tolist() == pytest.approx([2.0, 0.0, 0.0], abs=1e-5)


@given(value=st.floats(-50, 50, width=32), size=st.integers(2, 40), std=st.booleans())
def test_equal_rows_earn_nothing(value: float, size: int, std: bool) -> None:
    result = row_relative(torch.full((size,), value), torch.zeros(size, dtype=torch.long), std=std)
    assert float(result.abs().max()) < 1e-6


# -- RLOO


def drift_of(t: Token, estimate: str = "k1") -> float:
    d = t.old - t.reference[t.token]
    return {"k1": d, "k2": d * d / 2, "k3": math.exp(-d) - 1 + d}[estimate]


def shaped(of: World, kl: float) -> list[float]:
    """Returns less the KL to the reference over the whole episode."""
    results = [e.total_reward for e in of.episodes]
    for t in tokens(of):
        results[t.episode] -= kl * drift_of(t)
    return results


@pytest.mark.parametrize("kl", [0.0, 0.03, 1.5])
def test_rloo(of: World, kl: float) -> None:
    r = shaped(of, kl)
    want = 0.0
    for e, episode in enumerate(of.episodes):
        others = [r[j] for j, o in enumerate(of.episodes) if j != e and o.group == episode.group]
        logp = sum(t.logp for t in tokens(of) if t.episode == e)
        want -= (r[e] - statistics.fmean(others)) * logp / len(of.episodes)
    assert total(rloo(kl=kl), of) == near(want)


def test_rloo_asks_for_a_reference_only_where_it_is_pulled_to_one() -> None:
    assert rloo(kl=0.0).views == {}
    assert rloo().views["reference"].policy == "reference"


def test_rloo_of_groups_of_one_is_nothing() -> None:
    of = world(3, groups=4, group_size=1)
    assert total(rloo(), of) == 0.0


@given(seed=st.integers(0, 50))
def test_rloo_is_the_centred_advantage_scaled_up(seed: int) -> None:
    """R_i - mean of the others = G / (G - 1) (R_i - mean of all)."""
    of = world(seed, groups=2, group_size=4)
    a = advantages(of, std=False)
    got = leave_one_out()(of.step()).tolist()
    assert got == pytest.approx([4 / 3 * a[t.episode] for t in tokens(of)], rel=1e-4, abs=1e-5)


# -- Dr. GRPO


@pytest.mark.parametrize("length", [1, 24, 3000])
def test_dr_grpo(of: World, length: int) -> None:
    a = advantages(of, std=False)
    want = sum(clipped(t.ratio, a[t.episode], 0.3, 0.3, None) for t in tokens(of))
    want /= length * len(of.episodes)
    assert total(dr_grpo(length=length, clip=0.3), of) == near(want)


def test_dr_grpo_pulls_every_token_equally_whatever_its_episodes_length() -> None:
    """Two failures of one group, one three times as long: the same push on each token."""
    of = world(1)
    long = group("t", (turn(n=9),), (turn(n=3),), (turn(reward=3.0, n=2),))
    result = World(
        tuple(long), {v: cut(rows, [9, 3, 2]) for v, rows in of.hidden.items()}, of.heads
    )
    step = result.step()
    share = bind(dr_grpo(length=10), step).token_weight
    assert share.tolist() == pytest.approx([1 / 30] * 14)
    assert bind(dr_grpo(length=10), step).minibatch_weight.tolist() == pytest.approx(
        [1 / 27] * 9 + [1 / 9] * 3 + [1 / 6] * 2
    )


def cut(rows: tuple[torch.Tensor, ...], counts: list[int]) -> tuple[torch.Tensor, ...]:
    return torch.cat(rows)[: sum(counts)].split(counts)


@pytest.mark.parametrize("length", [0, -3])
def test_dr_grpo_needs_a_length(length: int) -> None:
    with pytest.raises(ValueError, match="length is a number of tokens"):
        dr_grpo(length=length)


# -- DAPO


def flattened(of: World, name: str) -> World:
    """The same world, but in one group every return is equal."""
    episodes = tuple(
        replace(e, turns=tuple(replace(t, reward=0.0, penalty=0.0) for t in e.turns))
        if e.group == name
        else e
        for e in of.episodes
    )
    return World(episodes, of.hidden, of.heads)


@pytest.mark.parametrize("flat", ["", "t0", "t2"])
def test_dapo(of: World, flat: str) -> None:
    of = flattened(of, flat)
    a = advantages(of)
    saved = [t for t in tokens(of) if of.episodes[t.episode].group != flat]
    want = mean([clipped(t.ratio, a[t.episode], 0.2, 0.28, None) for t in saved])
    assert total(dapo(), of) == near(want)
    low = total(dapo(clip=0.1, clip_high=0.5, dual_clip=2.0), of)
    assert low == near(mean([clipped(t.ratio, a[t.episode], 0.1, 0.5, 2.0) for t in saved]))


def test_dapo_learns_nothing_where_no_group_has_differing_returns(of: World) -> None:
    for name in ("t0", "t1", "t2"):
        of = flattened(of, name)
    step = of.step()
    objective = bind(dapo(), step)
    assert float(objective.minibatch_weight.sum()) == 0.0
    value, slope = gradient(objective, of, step, [torch.arange(len(step.batch.token))])
    assert value == 0.0
    assert not slope.any()
    assert not varied()(step).any()


def test_dapo_samples_dynamically() -> None:
    assert dapo().acting.max_batches == 1
    assert dapo(max_batches=4).acting.max_batches == 4
    assert grpo().acting.max_batches == 0
    with pytest.raises(ValueError, match="max_batches of tasks"):
        dapo(max_batches=0)


def test_dapo_takes_its_penalty_for_length_only_if_asked() -> None:
    assert dapo().penalties == {}
    (penalty,) = dapo(overlong=0.5, limit=10, buffer=4).penalties.values()
    assert penalty(group("g", (turn(n=6), turn(n=2)))[0]) == 0.25


@given(n=st.integers(0, 60), limit=st.integers(5, 40), buffer=st.integers(1, 5))
def test_overlong_as_its_three_cases(n: int, limit: int, buffer: int) -> None:
    turns = tuple(turn(n=1) for _ in range(n))
    if n <= limit - buffer:
        want = 0.0
    elif n <= limit:
        want = -((limit - buffer) - n) / buffer
    else:
        want = 1.0
    (episode,) = group("g", turns)
    assert overlong(limit=limit, buffer=buffer)(episode) == pytest.approx(want)


@pytest.mark.parametrize(("limit", "buffer", "most"), [(4, 5, 1.0), (4, 0, 1.0), (4, 2, -1.0)])
def test_overlong_needs_thresholds_that_make_sense(limit: int, buffer: int, most: float) -> None:
    with pytest.raises(ValueError, match="must"):
        overlong(limit=limit, buffer=buffer, most=most)


# -- REINFORCE++


def whitened(values: list[float]) -> list[float]:
    centre, scale = statistics.fmean(values), statistics.pstdev(values)
    return [(v - centre) / (scale + 1e-8) for v in values]


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("estimate", ["k1", "k2", "k3"])
@pytest.mark.parametrize("kl", [0.0, 0.4])
def test_reinforce_pp(of: World, baseline: bool, estimate: str, kl: float) -> None:
    everything = tokens(of)
    centred = advantages(of, std=False)
    raw = []
    for n, t in enumerate(everything):
        earned = centred[t.episode] if baseline else of.episodes[t.episode].total_reward
        later = [u for u in everything[n:] if u.episode == t.episode]
        raw.append(earned - kl * sum(drift_of(u, estimate) for u in later))
    want = mean(
        [
            clipped(t.ratio, a, 0.2, 0.2, None)
            for t, a in zip(everything, whitened(raw), strict=True)
        ]
    )
    got = total(reinforce_pp(baseline=baseline, kl=kl, estimate=estimate), of)
    assert got == near(want)


@pytest.mark.parametrize("estimate", ["k2", "k3"])
def test_reinforce_pp_with_its_kl_as_a_loss(of: World, estimate: str) -> None:
    result = parts(reinforce_pp(baseline=True, kl=0.4, kl_in="loss", estimate=estimate), of)
    a = whitened([advantages(of, std=False)[t.episode] for t in tokens(of)])
    assert result["reinforce_pp"] == near(
        mean([clipped(t.ratio, x, 0.2, 0.2, None) for t, x in zip(tokens(of), a, strict=True)])
    )
    now = [replace(t, old=t.logp) for t in tokens(of)]
    assert result["kl"] == near(0.4 * mean([drift_of(t, estimate) for t in now]))


def test_k1_is_no_loss() -> None:
    with pytest.raises(ValueError, match="expected gradient of 0"):
        reinforce_pp(kl_in="loss")
    assert reinforce_pp(kl=0.0, kl_in="loss").views == {}
    assert reinforce_pp(kl=0.0).views == {}


def test_reinforce_pp_needs_no_group() -> None:
    """One episode of each task: compared with the batch."""
    of = world(5, groups=6, group_size=1)
    assert total(reinforce_pp(), of) != 0
    assert total(grpo(), of) == 0


def test_equal_returns_earn_nothing_in_a_batch() -> None:
    episodes = [*group("g", (turn(reward=9.9, n=3),)), *group("h", (turn(reward=9.9, n=4),))]
    advantage = batch_normalised(episode_return())(step_of(episodes))
    assert float(advantage.abs().max()) < 1e-5
    assert normalised(torch.zeros(0)).shape == (0,)


@given(
    rows=st.lists(
        st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=6), min_size=1, max_size=5
    )
)
def test_sums_to_the_end_of_each_segment(rows: list[list[float]]) -> None:
    flat = torch.tensor([x for row in rows for x in row])
    index = torch.tensor([k for k, row in enumerate(rows) for _ in row])
    want = [sum(row[i:]) for row in rows for i in range(len(row))]
    assert sum_to_end(flat, index).tolist() == pytest.approx(want, abs=1e-3)


@given(seed=st.integers(0, 2**31 - 1))
def test_batch_normalised_advantages_have_mean_0_and_deviation_1(seed: int) -> None:
    x = torch.randn(30, generator=torch.Generator().manual_seed(seed)) * 7 + 3
    result = normalised(x)
    assert float(result.mean()) == pytest.approx(0, abs=1e-5)
    assert float(result.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_k2_has_the_gradient_of_reverse_kl_and_k1_has_none() -> None:
    """By enumeration over a small vocabulary: sum_y p(y) d/dx k(log p(y), log q(y))."""
    gen = torch.Generator().manual_seed(1)
    x, q = torch.randn(5, generator=gen).requires_grad_(), torch.randn(5, generator=gen)
    q = q.log_softmax(-1)

    def slope(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, x)[0]

    p = x.log_softmax(-1)
    exact = slope((p.exp() * (p - q)).sum())
    chance = x.detach().softmax(-1)
    for estimate, want in ((k2, exact), (k1, torch.zeros(5))):
        got = slope((chance * estimate(x.log_softmax(-1), q)).sum())
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


# -- GiGPO


def step_advantages(of: World, gamma: float, *, std: bool) -> list[float]:
    """Per turn: the discounted return against those from the same state of the same group."""
    rows, peers = [], defaultdict(list)
    for e, k, t in by_turn(of):
        value = sum(
            gamma ** (j - k) * (u.reward - u.penalty) for j, u in enumerate(e.turns) if j >= k
        )
        # a turn without a state is alone
        state = t.observation.state if t.observation.state is not None else (e.copy, k)
        rows.append(((e.group, state), value))
        peers[e.group, state].append(value)
    return [
        (v - statistics.fmean(peers[key])) / ((statistics.pstdev(peers[key]) + 1e-6) if std else 1)
        for key, v in rows
    ]


@pytest.mark.parametrize("std", [True, False])
@pytest.mark.parametrize(("gamma", "weight"), [(0.95, 1.0), (0.5, 0.3), (1.0, 2.0), (0.0, 1.0)])
def test_gigpo(of: World, std: bool, gamma: float, weight: float) -> None:
    episode = advantages(of, std=std)
    step = spread(of, step_advantages(of, gamma, std=std))
    want = mean(
        [
            clipped(t.ratio, episode[t.episode] + weight * s, 0.2, 0.2, 3.0)
            for t, s in zip(tokens(of), step, strict=True)
        ]
    )
    result = parts(gigpo(gamma=gamma, weight=weight, std=std, kl=0.2), of)
    assert result["gigpo"] == near(want)
    gaps = [t.reference[t.token] - t.logp for t in tokens(of)]
    assert result["kl"] == near(0.2 * mean([math.exp(d) - 1 - d for d in gaps]))


def test_a_state_without_other_visits_has_no_advantage() -> None:
    episodes = group("g", (turn(state="a"), turn(state="b", reward=5.0)), (turn(state="a"),))
    for std in (True, False):
        actual = state_relative(0.9, std=std)(step_of(episodes)).tolist()
        assert actual[1] == 0.0
        assert actual[0] > 0 > actual[2]


def test_it_is_recorded_where_states_are_shared() -> None:
    """An environment that tells no states makes GiGPO GRPO: the log must show it."""
    output = step_of(group("g", (turn(state="a"), turn(state="b", n=2)), (turn(state="a"),)))
    state_relative()(output)
    assert output.columns["shared_state"].tolist() == [1.0, 0.0, 0.0, 1.0]
    untold = step_of(group("g", (turn(), turn(reward=1.0)), (turn(),)))
    assert not state_relative()(untold).any()
    assert not untold.columns["shared_state"].any()


def test_states_are_compared_within_a_group_only() -> None:
    episodes = [*group("g", (turn(state="a", reward=1.0),)), *group("h", (turn(state="a"),))]
    assert not state_relative()(step_of(episodes)).any()


def test_going_in_a_circle_compares_an_episode_with_itself() -> None:
    """A state visited twice by one episode is a group of two, the later visit worth more."""
    (episode,) = group("g", (turn(state="a"), turn(state="a", reward=1.0)))
    actual = state_relative(0.5, std=False)(step_of([episode])).tolist()
    assert actual == pytest.approx([-0.25, 0.25])


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_gigpo_discounts(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        gigpo(gamma=gamma)


def test_gigpo_of_single_turns_in_one_state_is_grpo_twice() -> None:
    """Where every episode is one turn from one state, both levels say the same."""
    of = world(4)
    one = tuple(
        replace(e, turns=(replace(e.turns[0], observation=Observation(text="", state="s")),))
        for e in of.episodes
    )
    counts = [len(e.turns[0].tokens) for e in one]
    small = World(one, {v: cut(rows, counts) for v, rows in of.hidden.items()}, of.heads)
    doubled = grpo(dual_clip=None)
    twice = parts(gigpo(kl=0.0, dual_clip=None), small)["gigpo"]
    assert twice == near(2 * total(doubled, small))


# -- what holds for all


EVERY: dict[str, Algorithm] = {
    "grpo turns": grpo(statistics="turn"),
    "rloo": rloo(kl=0.5),
    "dr_grpo": dr_grpo(),
    "dapo": dapo(),
    "reinforce_pp": reinforce_pp(kl=0.5),
    "reinforce_pp baseline": reinforce_pp(baseline=True, kl=0.5, kl_in="loss", estimate="k2"),
    "gigpo": gigpo(),
}


@pytest.mark.parametrize("name", EVERY)
def test_advantages_have_no_gradient_and_follow_neither_the_schedule_nor_the_student(
    name: str, of: World
) -> None:
    step = of.step(at=0)
    bind(EVERY[name], step)
    assert not any(column.requires_grad for column in step.columns.values())
    later = of.step(at=999)
    bind(EVERY[name], later)
    for column, value in step.columns.items():
        assert torch.equal(later.columns[column], value)


def test_the_pull_in_the_reward_reads_the_sampler_and_the_reference_alone(of: World) -> None:
    step = of.step()
    only = Step(step.batch, {"reference": step.scores["reference"]}, 0)
    result = drift()(only)
    assert result.tolist() == pytest.approx([drift_of(t) for t in tokens(of)], rel=1e-4, abs=1e-5)
    far = Step(step.batch, {"reference": Scores(logp=step.batch.logp)}, 0)
    assert not to_come(drift())(far).any()
