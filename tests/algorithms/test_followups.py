"""The methods that followed SDAR against their papers' formulas, written as loops."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fake_steps import World, gradient, parts, world

from tutelage.algorithms import ALGORITHMS
from tutelage.maths import token_credit as maths
from tutelage.objective import Algorithm, View, bind
from tutelage.signals import (
    belief_weight,
    equal_turns,
    gap,
    group_relative,
    influence_weight,
    persistent_weight,
    relative_support,
    reliability,
    residual_weight,
    support,
    whitened,
)
from tutelage.types import Observation, Turn


@dataclass(frozen=True)
class SampledToken:
    """A token: where it stands, and its log-probabilities by view."""

    episode: int
    turn: int  # in the whole step
    old: float
    student: float
    teacher: float
    full: float
    ablated: float

    @property
    def gap(self) -> float:
        return self.teacher - self.student


def sampled_tokens(of: World) -> list[SampledToken]:
    """Every token of a step, in order."""
    logps = {view: of.step().scores[view].logp.tolist() for view in of.heads}
    result: list[SampledToken] = []
    turn = -1
    for e, episode in enumerate(of.episodes):
        for t in episode.turns:
            turn += 1
            for logp in t.logps:
                n = len(result)
                views = {v: logps[v][n] for v in ("student", "teacher", "full", "ablated")}
                result.append(SampledToken(episode=e, turn=turn, old=logp, **views))
    return result


def by_turn(tokens: Sequence[SampledToken]) -> dict[int, list[int]]:
    """Places of each turn's tokens."""
    result: dict[int, list[int]] = {}
    for n, t in enumerate(tokens):
        result.setdefault(t.turn, []).append(n)
    return result


def turns_of(tokens: Sequence[SampledToken], episode: int) -> list[list[int]]:
    """The same for one episode, in order."""
    return [places for places in by_turn(tokens).values() if tokens[places[0]].episode == episode]


def advantage(of: World) -> list[float]:
    """GRPO's, one an episode."""
    results = []
    for episode in of.episodes:
        peers = [e.total_reward for e in of.episodes if e.group == episode.group]
        spread = statistics.pstdev(peers) + 1e-6
        results.append((episode.total_reward - statistics.fmean(peers)) / spread)
    return results


def sign(x: float) -> float:
    return float(x > 0) - float(x < 0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def near(want: Sequence[float]) -> object:
    return pytest.approx(list(want), rel=1e-4, abs=1e-5)


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    result = world(request.param)
    rng = random.Random(request.param)
    won = tuple(replace(e, won=rng.random() < 0.5) for e in result.episodes)
    return replace(result, episodes=won)


# -- StepOPSD


def step_opsd_advantage(of: World, mix: float, bound: float) -> list[float]:
    tokens, a = sampled_tokens(of), advantage(of)
    shaped = []
    for t in tokens:
        w = clip(2 * sigmoid(sign(a[t.episode]) * t.gap), 1 - bound, 1 + bound)
        shaped.append((1 - mix) * a[t.episode] + mix * w * a[t.episode])
    for e in range(len(of.episodes)):
        turns = turns_of(tokens, e)
        strength = [statistics.fmean(abs(shaped[n]) for n in places) for places in turns]
        target = statistics.fmean(strength)
        for places, s in zip(turns, strength, strict=True):
            for n in places:
                shaped[n] *= clip(target / s, 0.5, 2.0) if s else 1.0
    return shaped


@pytest.mark.parametrize(("at", "mix"), [(0, 0.2), (25, 0.1), (50, 0.0), (99, 0.0)])
def test_step_opsd(of: World, at: int, mix: float) -> None:
    want = step_opsd_advantage(of, mix, 0.2)
    assert advantage_of(ALGORITHMS["step_opsd"](), of, at) == near(want)


def test_step_opsd_is_grpo_once_its_share_is_gone(of: World) -> None:
    late = parts(ALGORITHMS["step_opsd"](kl=0.0), of, 50)["step_opsd"]
    assert late == pytest.approx(parts(ALGORITHMS["grpo"](), of)["grpo"], rel=1e-6)


def advantage_of(algorithm: Algorithm, of: World, at: int = 3) -> list[float]:
    """What an algorithm's first term gives its surrogate."""
    result: list[float] = algorithm.terms[0].advantage(of.step(at)).tolist()  # type: ignore[attr-defined]
    return result


def test_equal_turns_by_hand() -> None:
    turn, episode = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1])
    x = torch.tensor([1.0, -3.0, 0.5, 7.0])
    # means 2 and .5, their mean 1.25: factors .625 and 2.5, which is bounded by 2
    got = maths.equal_turns(x, turn, episode, 2)
    assert got.tolist() == pytest.approx([0.625, -1.875, 1.0, 7.0])
    assert maths.equal_turns(torch.zeros(4), turn, episode, 2).tolist() == [0.0] * 4


# -- AgentOPSD


def beliefs_advantage(of: World, gamma: float, band: float, strength: float) -> list[float]:
    tokens, a = sampled_tokens(of), advantage(of)
    results = [0.0] * len(tokens)
    for e, episode in enumerate(of.episodes):
        peers = [p.won for p in of.episodes if p.group == episode.group]
        prior = clip(sum(peers) / len(peers), 1e-4, 1 - 1e-4)
        turns, q, before = turns_of(tokens, e), list[float](), prior
        for k in range(len(turns)):
            grown = sum(
                gamma ** (k - j) * sum(tokens[n].gap for n in turns[j]) for j in range(k + 1)
            )
            after = sigmoid(math.log(prior / (1 - prior)) + grown)
            q.append(sign(a[e]) * (after - before))
            before = after
        middle, spread = statistics.fmean(q), statistics.pstdev(q)
        for places, x in zip(turns, q, strict=True):
            w = clip(1 + band * (x - middle) / (spread + 1e-6), 1 - band, 1 + band)
            for n in places:
                results[n] = a[e] * ((1 - strength) + strength * w)
    return results


@pytest.mark.parametrize(("gamma", "band", "strength"), [(0.95, 0.2, 0.5), (1.0, 0.6, 1.0)])
def test_agent_opsd(of: World, gamma: float, band: float, strength: float) -> None:
    algorithm = ALGORITHMS["agent_opsd"](gamma=gamma, band=band, strength=strength)
    assert advantage_of(algorithm, of) == near(beliefs_advantage(of, gamma, band, strength))


def test_belief_starts_at_the_groups_rate_and_never_quite_arrives() -> None:
    after, before = maths.beliefs(
        torch.tensor([0.0, 2.0, 0.0, 50.0]),
        torch.tensor([0.25, 1.0]),
        torch.tensor([0, 0, 0, 1]),
        gamma=0.5,
    )
    odds = math.log(1 / 3)
    want = [0.25, sigmoid(odds + 2), sigmoid(odds + 1)]
    assert after[:3].tolist() == pytest.approx(want)
    assert before.tolist() == pytest.approx([0.25, *want[:2], 1 - 1e-4])
    assert torch.isfinite(after).all()


def test_a_single_turn_keeps_its_advantage() -> None:
    result = world(0)
    single = tuple(replace(e, turns=e.turns[:1], won=k == 0) for k, e in enumerate(result.episodes))
    n = [len(e.turns[0].tokens) for e in single]
    hidden = {
        v: tuple(r[:k] for r, k in zip(rows, n, strict=True)) for v, rows in result.hidden.items()
    }
    of = replace(result, episodes=single, hidden=hidden)
    assert belief_weight()(of.step()).tolist() == [1.0] * sum(n)
    assert advantage_of(ALGORITHMS["agent_opsd"](), of) == near(
        group_relative()(of.step()).tolist()
    )


# -- OCSD


def residual_advantage(of: World, strength: float, share: float) -> list[float]:
    tokens, a = sampled_tokens(of), advantage(of)
    results = [a[t.episode] for t in tokens]
    for e in range(len(of.episodes)):
        turns = turns_of(tokens, e)
        unsure = [statistics.fmean(-tokens[n].old for n in places) for places in turns]
        count = math.ceil(share * len(turns) - 1e-9)
        for k in sorted(range(len(turns)), key=lambda k: -unsure[k])[:count]:
            for n in turns[k]:
                q = math.tanh((tokens[n].full - tokens[n].ablated) / 2)
                results[n] = a[e] * (1 + strength * sign(a[e]) * q)
    return results


@pytest.mark.parametrize(("strength", "share"), [(0.5, 0.2), (0.9, 0.6), (0.5, 0.0), (0.5, 1.0)])
def test_ocsd(of: World, strength: float, share: float) -> None:
    algorithm = ALGORITHMS["ocsd"](strength=strength, share=share)
    assert advantage_of(algorithm, of) == near(residual_advantage(of, strength, share))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=20),
    st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]),
)
def test_the_most_uncertain_turns(rows: list[tuple[int, int]], share: float) -> None:
    index, values = [i for i, _ in rows], [float(x) for _, x in rows]
    got = maths.most(torch.tensor(values), torch.tensor(index, dtype=torch.long), 4, share).tolist()
    for e in range(4):
        actual = [k for k, i in enumerate(index) if i == e]
        chosen = sorted(actual, key=lambda k: -values[k])[: math.ceil(share * len(actual) - 1e-9)]
        assert [k for k in actual if got[k]] == sorted(chosen)


# -- ADRS


def support_score(of: World, scale: str) -> list[float]:
    tokens = sampled_tokens(of)
    centred = [0.0] * len(tokens)
    for places in by_turn(tokens).values():
        middle = statistics.fmean(tokens[n].teacher for n in places)
        for n in places:
            centred[n] = tokens[n].teacher - middle
    if scale == "batch":
        spread = statistics.stdev(centred)
        return [x / spread for x in centred]
    results = []
    for x, t in zip(centred, tokens, strict=True):
        own = [y for y, u in zip(centred, tokens, strict=True) if u.episode == t.episode]
        results.append(x / (statistics.pstdev(own) + 1e-8))
    return results


def gates(of: World, units: str, gamma: float = 0.95) -> list[float]:
    """The gate at each token."""
    tokens = sampled_tokens(of)
    spots = (
        by_turn(tokens)
        if units == "state"
        else {
            e: [n for n, t in enumerate(tokens) if t.episode == e] for e in range(len(of.episodes))
        }
    )
    mean = {u: statistics.fmean(tokens[n].teacher for n in places) for u, places in spots.items()}
    level = statistics.fmean((t.teacher for t in tokens) if units == "state" else mean.values())
    flat = [(e, k) for e, episode in enumerate(of.episodes) for k in range(len(episode.turns))]
    groups: dict[object, list[tuple[float, float]]] = {}
    key: dict[int, object] = {}
    batch = of.step().batch
    for u in spots:
        if units == "state":
            e, k = flat[u]
            later = of.episodes[e].turns[k:]
            earned = sum(gamma**j * (t.reward - t.penalty) for j, t in enumerate(later))
            key[u] = int(batch.state[u])
        else:
            earned, key[u] = of.episodes[u].total_reward, of.episodes[u].group
        groups.setdefault(key[u], []).append((sigmoid(mean[u] - level), earned))
    results = [0.0] * len(tokens)
    for u, places in spots.items():
        rows = groups[key[u]]
        d = 0.0
        if len(rows) > 1:
            d = sum(c * r for c, r in rows) / sum(c for c, _ in rows)
            d -= sum((1 - c) * r for c, r in rows) / sum(1 - c for c, _ in rows)
        for n in places:
            results[n] = sigmoid(2 * d)
    return results


@pytest.mark.parametrize("scale", ["batch", "episode"])
@pytest.mark.parametrize("units", ["episode", "state", "none"])
def test_adrs(of: World, units: str, scale: str) -> None:
    tokens, a = sampled_tokens(of), advantage(of)
    m = gates(of, units) if units != "none" else [1.0] * len(tokens)
    opinion = [x * y for x, y in zip(m, support_score(of, scale), strict=True)]
    want = []
    for n, t in enumerate(tokens):
        group = of.episodes[t.episode].group
        peers = [
            x for x, u in zip(opinion, tokens, strict=True) if of.episodes[u.episode].group == group
        ]
        z = (opinion[n] - statistics.fmean(peers)) / (statistics.pstdev(peers) + 1e-6)
        want.append(a[t.episode] + 0.3 * z)
    algorithm = ALGORITHMS["adrs"](eta=0.3, units=units, scale=scale)
    assert advantage_of(algorithm, of) == near(want)


def test_the_gate_of_whole_episodes_cancels_in_the_whitening(of: World) -> None:
    """One number a group, divided by the deviation of the same group."""
    gated, plain = (advantage_of(ALGORITHMS["adrs"](units=u), of) for u in ("episode", "none"))
    assert gated == pytest.approx(plain, abs=1e-4)


def test_a_teachers_opinion_sums_to_zero_in_every_turn(of: World) -> None:
    score = relative_support()(of.step()).tolist()
    for places in by_turn(sampled_tokens(of)).values():
        assert sum(score[n] for n in places) == pytest.approx(0.0, abs=1e-5)


def test_confidence_that_goes_with_the_return_is_reliable() -> None:
    confidence, outcome = torch.tensor([0.8, 0.2, 0.6, 0.6, 0.9]), torch.tensor([1.0, 0, 1, 0, 1])
    d = maths.covariance(confidence, outcome, torch.tensor([0, 0, 1, 1, 2]), 3)
    assert d.tolist() == pytest.approx([0.6, 0.0, 0.0])
    assert maths.covariance(confidence, 1 - outcome, torch.tensor([0, 0, 1, 1, 2]), 3)[0] < 0


# -- PCSD


def persistent(
    tokens: Sequence[SampledToken], *, width: int = 8, decay: float = 0.8
) -> list[float]:
    results = []
    for places in by_turn(tokens).values():
        for k in range(len(places)):
            d = [tokens[n].gap for n in places[k : k + width]]
            weights = [decay**j for j in range(len(d))]
            wide = sum(w * x for w, x in zip(weights, d, strict=True)) / sum(weights)
            r = clip((statistics.pvariance(d) - 0.05) / (0.5 - 0.05), 0, 1)
            slope = 0.0
            if len(d) > 1:
                slope = statistics.linear_regression(range(len(d)), d).slope
            fall = -slope / statistics.fmean(abs(x) for x in d)
            trend = clip(1 - 0.3 * max(fall, 0.0), 0, 1)
            results.append(sigmoid(5 * ((1 - r) * d[0] + r * wide)) * trend)
    return results


@pytest.mark.parametrize("width", [1, 3, 8])
def test_pcsd(of: World, width: int) -> None:
    tokens = sampled_tokens(of)
    weights = persistent(tokens, width=width)
    assert persistent_weight(width=width)(of.step()).tolist() == near(weights)
    want = statistics.fmean(0.01 * w * t.gap for w, t in zip(weights, tokens, strict=True))
    result = parts(ALGORITHMS["pcsd"](width=width), of)
    assert result["pcsd"] == pytest.approx(want, rel=1e-4, abs=1e-7)
    assert set(result) == {"grpo", "kl", "pcsd"}


def test_pcsd_of_long_turns() -> None:
    """Windows of 8 that end within the turn, and windows that are cut off."""
    gen = torch.Generator().manual_seed(1)
    d = torch.randn(40, generator=gen)
    turn = torch.tensor([0] * 17 + [1] * 2 + [2] * 21)
    smooth, trend = maths.persistence(d, turn, decay=0.8, width=8, calm=0.05, wild=0.5, fall=0.3)
    tokens = [
        SampledToken(
            episode=0, turn=int(k), old=0.0, student=0.0, teacher=float(x), full=0.0, ablated=0.0
        )
        for k, x in zip(turn, d, strict=True)
    ]
    assert (torch.sigmoid(5 * smooth) * trend).tolist() == near(persistent(tokens))


# -- OPID


def test_opid(of: World) -> None:
    a = advantage(of)
    want = [a[t.episode] + 0.05 * t.gap for t in sampled_tokens(of)]
    assert advantage_of(ALGORITHMS["opid"](strength=0.05), of) == near(want)
    shown = ALGORITHMS["opid"](hint="", hindsight="peer_success").views["teacher"]
    assert shown.hindsight is not None
    assert ALGORITHMS["opid"]().views["teacher"].hindsight is None


# -- ICSD


def influence(of: World, beta: float = 5.0) -> list[float]:
    tokens, a = sampled_tokens(of), advantage(of)
    results = [0.0] * len(tokens)
    for places in by_turn(tokens).values():
        rows = [(n, a[tokens[n].episode], tokens[n]) for n in places]
        u = [x * math.exp(t.student - t.old) * t.gap for _, x, t in rows]
        g = [sigmoid(beta * t.gap) for _, _, t in rows]
        middle = statistics.median(u)
        below = [middle - x for x in u if x < middle]
        above = [x - middle for x in u if x >= middle]
        m = [
            0.5 * math.exp((x - middle) / statistics.fmean(below))
            if x < middle
            else 1 - 0.5 * math.exp(-(x - middle) / max(statistics.fmean(above), 1e-12))
            for x in u
        ]
        saved = [x < 0 and t.gap < 0 for _, x, t in rows]
        moved = [k for k in range(len(rows)) if not saved[k]]
        alpha = sum(g[k] for k in moved) / sum(g[k] * m[k] for k in moved) if moved else 0.0
        for k, (n, _, _) in enumerate(rows):
            results[n] = g[k] if saved[k] else alpha * g[k] * m[k]
    return results


def test_icsd(of: World) -> None:
    tokens, c = sampled_tokens(of), influence(of)
    assert influence_weight()(of.step()).tolist() == near(c)
    want = statistics.fmean(0.01 * w * t.gap for w, t in zip(c, tokens, strict=True))
    assert parts(ALGORITHMS["icsd"](), of)["icsd"] == pytest.approx(want, rel=1e-4, abs=1e-7)


def test_icsd_moves_weight_within_a_turn_and_adds_none(of: World) -> None:
    tokens, c = sampled_tokens(of), influence_weight()(of.step()).tolist()
    for places in by_turn(tokens).values():
        gate = sum(sigmoid(5 * tokens[n].gap) for n in places)
        assert sum(c[n] for n in places) == pytest.approx(gate, rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-9, 9, width=32)), max_size=24))
def test_medians_of_segments(rows: list[tuple[int, float]]) -> None:
    index = torch.tensor([i for i, _ in rows], dtype=torch.long)
    x = torch.tensor([v for _, v in rows], dtype=torch.float64)
    got = maths.segment_median(x, index, 4).tolist()
    for e in range(4):
        actual = [v for i, v in rows if i == e]
        assert got[e] == pytest.approx(statistics.median(actual) if actual else 0.0)


def test_the_rank_of_an_outlier_is_not_lost() -> None:
    x = torch.tensor([-1e6, *([0.0] * 300)], dtype=torch.float64)
    got = maths.rank(x, torch.zeros(301, dtype=torch.long), 1)
    assert 0 < float(got[0]) < 0.5
    assert float(got[1]) == 0.5


# -- all of them

NAMES = ("step_opsd", "agent_opsd", "ocsd", "adrs", "opid", "pcsd", "icsd")


@pytest.mark.parametrize("name", NAMES)
def test_the_surrogate_and_the_pull_are_grpos(of: World, name: str) -> None:
    """Without what is its own, each is GRPO with its clip range."""
    off: dict[str, dict[str, object]] = {
        "step_opsd": {"mix": 0.0},
        "agent_opsd": {"strength": 0.0},
        "ocsd": {"strength": 0.0},
        "adrs": {"eta": 0.0, "entropy": 0.0},
        "opid": {"strength": 0.0},
        "pcsd": {"coef": 0.0},
        "icsd": {"coef": 0.0},
    }
    high = {"agent_opsd": 0.24, "adrs": 0.28}
    result = parts(ALGORITHMS[name](**off[name]), of)
    plain = parts(ALGORITHMS["grpo"](kl=0.01, clip_high=high.get(name)), of)
    assert sum(result.values()) == pytest.approx(sum(plain.values()), rel=1e-5)


@pytest.mark.parametrize("name", ["step_opsd", "agent_opsd", "ocsd"])
def test_factors_keep_the_sign_of_the_advantage(of: World, name: str) -> None:
    a = group_relative()(of.step())
    assert torch.equal(torch.tensor(advantage_of(ALGORITHMS[name](), of)).sign(), a.sign())


@pytest.mark.parametrize("name", NAMES)
def test_equal_returns_leave_the_auxiliary_losses_only(name: str) -> None:
    result = world(1)
    flat = tuple(
        replace(e, turns=tuple(replace(t, reward=0.0, penalty=0.0) for t in e.turns))
        for e in result.episodes
    )
    of = replace(result, episodes=flat)
    advantage = torch.tensor(advantage_of(ALGORITHMS[name](), of))
    assert bool(advantage.any()) == (name in ("adrs", "opid"))


def test_a_gradient_reaches_only_what_the_papers_say(of: World) -> None:
    """PCSD's weight and the teacher are fixed: a token's gradient is -coef w / N."""
    step = of.step()
    term = ALGORITHMS["pcsd"](kl=0.0).terms[-1]
    only = Algorithm(terms=(term,), views={"teacher": View()})
    everything = [torch.arange(len(step.batch.token))]
    got = gradient(bind(only, step), of, step, everything)[1]
    leaf = torch.cat(of.hidden["student"]).clone().requires_grad_()
    logp = of.live(step, everything[0], leaf=leaf)["student"].logp
    w = persistent_weight()(step)
    (-(0.01 * w * logp).mean()).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert torch.allclose(got, leaf.grad, atol=1e-8)


def test_empty_turns_change_nothing(of: World) -> None:
    """A turn in which nothing was said has no token to weigh."""
    silent = Turn(observation=Observation(text=""), prompt=(), text="", tokens=(), logps=())
    longer = replace(
        of, episodes=tuple(replace(e, turns=(silent, *e.turns, silent)) for e in of.episodes)
    )
    for signal in (
        equal_turns(support()),
        belief_weight(),
        residual_weight(),
        persistent_weight(),
        influence_weight(),
        reliability(),
        whitened(gap()),
    ):
        assert signal(longer.step()).tolist() == pytest.approx(signal(of.step()).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("step_opsd", {"mix": 1.5}, "mix lies in"),
        ("agent_opsd", {"band": 1.0}, "band in"),
        ("ocsd", {"strength": 2.0}, "keep their sign"),
        ("ocsd", {"observations": 0}, "at least 1"),
        ("pcsd", {"width": 0}, "width >= 1"),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ALGORITHMS[name](**settings)


def test_a_split_at_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="strictly between"):
        influence_weight(split=1.0)
