"""Signals: their algebra, their values, and that recorded values are the applied ones."""

from dataclasses import fields

import pytest
import torch
from support.fake_steps import World, parts, world
from torch.testing import assert_close

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.guided_opd import guided_opd
from tutelage.algorithms.opd import opd
from tutelage.errors import ConfigError
from tutelage.maths.divergences import reverse_kl
from tutelage.objective import (
    ONE,
    Algorithm,
    Distill,
    Reinforce,
    Signal,
    Step,
    Term,
    View,
    bind,
)
from tutelage.objective.batch import collate
from tutelage.objective.scores import Scores
from tutelage.schedules import linear
from tutelage.signals import (
    acted_by,
    batch_normalised,
    episode_mean,
    gap,
    group_relative,
    to_come,
    whitened,
)
from tutelage.types import Episode, Observation, Task, Turn


@pytest.fixture
def of() -> World:
    return world(0)


def test_signals_add_and_multiply_token_by_token(of: World) -> None:
    step = of.step(at=2)
    a, b = group_relative(), gap()
    schedule = linear(1.0, 0.0, 4)
    got = (schedule * (a * b) + 0.25 * a)(step)
    assert_close(got, 0.5 * a(step) * b(step) + 0.25 * a(step))
    assert_close((a + b * ONE)(step), a(step) + b(step))
    assert got.dtype == torch.float32


def test_a_schedule_is_applied_and_recorded_at_the_steps_own_number(of: World) -> None:
    """A weight that is annealed in the log and constant in the loss is a bug that was published."""
    for at in (0, 3, 9):
        step = of.step(at)
        scaled = linear(1.0, 0.0, 10) * gap()
        assert_close(scaled(step), (1 - at / 10) * gap()(step))
        assert_close(step.columns[scaled.name], (1 - at / 10) * gap()(step))
    algorithm = Algorithm(
        terms=(Distill(divergence=reverse_kl, weight=linear(1.0, 0.0, 10) * ONE),),
        views={"teacher": View()},
    )
    results = [parts(algorithm, of, at)["distill"] for at in (0, 5, 10)]
    assert results[1] == pytest.approx(results[0] / 2)
    assert results[2] == 0


def test_two_signals_of_one_name_are_both_recorded(of: World) -> None:
    step = of.step(at=1)
    falling, rising = linear(1.0, 0.0, 4) * gap(), linear(0.0, 1.0, 4) * gap()
    assert falling.name == rising.name
    (falling + rising)(step)
    saved = [value for name, value in step.columns.items() if name.startswith(falling.name)]
    assert_close(saved[0], 0.75 * gap()(step))
    assert_close(saved[1], 0.25 * gap()(step))
    # asked again, nothing new is noted
    before = len(step.columns)
    (falling + rising)(step)
    assert len(step.columns) == before


def test_what_is_recorded_is_what_was_applied(of: World) -> None:
    """Every loss computed again from nothing but the columns and the scores."""
    step = of.step()
    logp, old = step.scores["student"].logp, step.batch.logp
    everything = torch.arange(len(logp))
    r = (logp - old).exp()

    bind(opd(), step)(of.live(step, everything), everything)
    c = step.columns
    again = (c["token_mean"] * -c["gap[teacher|student]"] * r).sum()
    assert again.item() == pytest.approx(parts(opd(), of)["opd"], rel=1e-5)

    bind(grpo(), step)
    a = c["group_relative"]
    gain = torch.minimum(r * a, r.clamp(0.8, 1.2) * a)
    gain = torch.where(a < 0, torch.maximum(gain, 3 * a), gain)
    assert -(c["token_mean"] * gain).sum().item() == pytest.approx(
        parts(grpo(), of)["grpo"], rel=1e-5
    )

    bind(guided_opd(total_steps=9, teacher_turns="sampled", student_turns="sampled"), step)
    product = c["gap[teacher|student] * acted_by[student]"]
    assert_close(product, c["gap[teacher|student]"] * c["acted_by[student]"])
    assert_close(c["acted_by[student]"] + c["acted_by[teacher]"], torch.ones(len(logp)))
    assert all(column.shape == (len(logp),) for column in c.values())


def test_who_acted(of: World) -> None:
    step = of.step()
    turns = [turn for e in of.episodes for turn in e.turns]
    for who in ("student", "teacher", "nobody"):
        want = [float(turn.actor == who) for turn in turns for _ in turn.tokens]
        assert acted_by(who)(step).tolist() == want


def test_group_relative_spreads_an_episodes_advantage_over_its_tokens(of: World) -> None:
    step = of.step()
    advantage = group_relative()(step)
    outcome = [e.total_reward for e in of.episodes]
    assert_close(step.batch.outcome, torch.tensor(outcome, dtype=torch.float64))
    for e in range(len(of.episodes)):
        actual = advantage[step.batch.owner == e]
        assert (actual == actual[0]).all()
    best = max(range(3), key=lambda e: outcome[e])
    assert advantage[step.batch.owner == best][0] == advantage[step.batch.owner < 3].max()


def test_every_episode_can_count_the_same(of: World) -> None:
    step = of.step()
    share = episode_mean()(step)
    for e in range(len(of.episodes)):
        assert float(share[step.batch.owner == e].sum()) == pytest.approx(1 / len(of.episodes))


@pytest.mark.parametrize(
    "term",
    [
        Reinforce(advantage=acted_by("studnt")),
        Reinforce(advantage=group_relative() + 0.5 * (acted_by("studnt") * gap("student"))),
        Distill(divergence=reverse_kl, teacher="studnt"),
        Distill(divergence=reverse_kl, teacher="student", weight=acted_by("studnt")),
    ],
)
def test_a_view_that_does_not_exist_is_refused_with_the_names_of_the_views(term: Term) -> None:
    """A mask of a mistyped actor is 0 everywhere: the run would learn nothing, and say nothing."""
    algorithm = Algorithm(terms=(term,), views={"wise": View()})
    with pytest.raises(
        ConfigError, match=r"'studnt'.*did you mean student\?; its views are .*wise"
    ):
        bind(algorithm, world(0).step())


def test_the_expert_is_no_view_but_acts() -> None:
    for name in ("expert", "astray"):
        assert bind(Algorithm(terms=(Reinforce(advantage=acted_by(name)),)), world(0).step())


def test_what_is_computed_from_a_signal_declares_what_it_does() -> None:
    """A comparison within groups is recognised in a user's signal too, whatever its name."""
    custom = Signal(lambda s: 1.0, "my baseline", compares_group=True, views=("wise",))
    for signal in (
        custom + ONE,
        ONE + custom,
        ONE * custom,
        custom * ONE,
        0.5 * custom,
        linear(1, 0, 9) * custom,
        to_come(custom),
        batch_normalised(custom),
        whitened(custom),
    ):
        assert signal.compares_group, signal.name
        assert signal.views == ("wise",)
    assert not (ONE + gap()).compares_group
    assert ONE.is_one
    assert not (1.0 * ONE).is_one


def test_a_signal_is_cut_from_the_graph(of: World) -> None:
    x = torch.ones(len(of.step().batch.token), requires_grad=True)
    result = Signal(lambda s: x * 2, "x")(of.step())
    assert not result.requires_grad


def turn(*tokens: int, state: object = None, reward: float = 0.0, actor: str = "student") -> Turn:
    return Turn(
        observation=Observation(text="", state=state),  # type: ignore[arg-type]
        prompt=(9,),
        text="",
        tokens=tokens,
        logps=tuple(-0.5 for _ in tokens),
        reward=reward,
        penalty=0.25,
        actor=actor,
    )


def test_a_batch_laid_out_by_hand() -> None:
    first = turn(1, 2, state="hall", reward=1.0), turn(3, state="den", actor="teacher")
    second, third = (turn(4, state="hall"),), (turn(5, 6, 7), turn(8))
    b = collate(
        [
            Episode(task=Task(id=g), group=g, turns=turns)
            for g, turns in (("g", first), ("g", second), ("h", third))
        ]
    )
    assert b.token.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert b.turn.tolist() == [0, 0, 1, 2, 3, 3, 3, 4]
    assert b.episode.tolist() == [0, 0, 1, 2, 2]
    assert b.group.tolist() == [0, 0, 1]
    assert b.owner.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert b.actors == ("student", "teacher")
    assert b.actor.tolist() == [0, 1, 0, 0, 0]
    assert b.reward.tolist() == [0.75, -0.25, -0.25, -0.25, -0.25]
    assert b.outcome.tolist() == [0.5, -0.25, -0.5]
    # the hall of group g is one situation, whoever is in it; a turn without a state is alone
    assert b.state[0] == b.state[2]
    assert len(set(b.state.tolist())) == 4


def test_a_batch_and_its_scores_follow_the_student_whole(of: World) -> None:
    step = of.step()
    assert step.batch.to("cpu").outcome.equal(step.batch.outcome)
    moved = step.batch.to("meta")
    tensors = [f.name for f in fields(moved) if f.name != "actors"]
    assert {getattr(moved, name).device.type for name in tensors} == {"meta"}
    assert moved.actors == step.batch.actors
    full = step.scores["student"].to("meta")
    assert full.distribution.hidden.device.type == full.distribution.head.device.type == "meta"
    assert full.distribution.temperature == step.scores["student"].distribution.temperature
    assert full.logp.device.type == "meta"
    thin = Scores(logp=step.scores["student"].logp).to("meta")
    assert thin.logp.device.type == "meta"


def test_equal_situations_are_not_shared_between_groups() -> None:
    b = collate(
        [
            Episode(task=Task(id=g), group=g, turns=(turn(1, state="hall"), turn(2)))
            for g in ("g", "h")
        ]
    )
    assert len(set(b.state.tolist())) == 4


def test_a_step_with_no_episode_has_no_tokens() -> None:
    b = collate([])
    assert len(b.token) == len(b.group) == len(b.outcome) == 0


def test_a_turn_needs_a_log_probability_for_every_token() -> None:
    with pytest.raises(ValueError, match="2 tokens but 1"):
        Turn(observation=Observation(text=""), prompt=(), text="", tokens=(1, 2), logps=(0.0,))


def test_binding_twice_gives_the_same_objective(of: World) -> None:
    step = of.step()
    algorithm = Algorithm(terms=(Reinforce(advantage=group_relative()),))
    everything = torch.arange(len(step.batch.token))
    first, second = (
        bind(algorithm, Step(step.batch, step.scores, 3))(of.live(step, everything), everything)
        for _ in range(2)
    )
    assert torch.equal(first["reinforce"], second["reinforce"])
