"""Penalties: formulas as loops, and agreement of log, return and batch."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_policy import Table
from support.sessions import ALONE, pair, session

from tutelage.algorithms.grpo import grpo
from tutelage.envs.doors import Doors
from tutelage.errors import ConfigError
from tutelage.objective.batch import collate
from tutelage.objective.penalties import LEAKED, leakage, length
from tutelage.rollout.play import play
from tutelage.rollout.record import episode_line, episode_of
from tutelage.types import Episode, Observation, Stop, Task, Turn


def episode(*texts: str, won: bool = True, tokens: int = 1) -> Episode:
    turns = tuple(
        Turn(
            observation=Observation(text=""),
            prompt=(),
            text=text,
            tokens=(7,) * tokens,
            logps=(0.0,) * tokens,
        )
        for text in texts
    )
    return Episode(task=Task(id="t"), group="t", turns=turns, won=won)


def long(*sizes: int, won: bool = True) -> Episode:
    result = episode(*("" for _ in sizes), won=won)
    turns = tuple(
        replace(turn, tokens=(7,) * n, logps=(0.0,) * n)
        for turn, n in zip(result.turns, sizes, strict=True)
    )
    return replace(result, turns=turns)


# -- leakage


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ((), 0),
        (("go to fridge 1",), 0),
        (("The Secret says", "a HINT"), 2),
        (("a hint, a hint", "the hint"), 1),
        (("a shinty secretary has unprivileged access",), 0),
        (("privileged; 'secret'! I was told so",), 3),
        (("<think>secret</think><action>look</action>",), 1),
    ],
)
def test_each_leaked_word_costs_once(texts: tuple[str, ...], count: int) -> None:
    assert leakage()(episode(*texts)) == pytest.approx(0.1 * count)
    assert leakage(each=0.25)(episode(*texts, won=False)) == pytest.approx(0.25 * count)


def test_words_are_the_callers_and_never_patterns() -> None:
    assert leakage(["a.c"])(episode("abc")) == 0
    assert leakage(["a.c"])(episode("A.C")) == pytest.approx(0.1)
    assert leakage(["go to"])(episode("go", "to")) == 0
    assert all(leakage()(episode(f"well, {word}")) > 0 for word in LEAKED)
    for words in ((), ("secret", " ")):
        with pytest.raises(ValueError, match="words to look for"):
            leakage(words)
    with pytest.raises(ValueError, match="each must be at least 0"):
        leakage(each=-0.1)


# -- length


def by_hand(sizes: list[int]) -> float:
    total = 0.0
    for n in sizes:
        if n <= 2000:
            total += 0.0
        elif n <= 5000:
            total += 0.1 * 0.5 * (1 - math.cos(math.pi * (n - 2000) / 3000))
        elif n < 8000:
            total += 0.1 + 0.1 * 0.5 * (1 - math.cos(math.pi * (n - 5000) / 3000))
        else:
            total += 0.2
    return min(0.3, total / len(sizes))


@given(sizes=st.lists(st.integers(0, 12_000), min_size=1, max_size=4))
def test_length_as_loops(sizes: list[int]) -> None:
    assert length()(long(*sizes)) == pytest.approx(by_hand(sizes), abs=1e-12)
    assert length()(long(*sizes, won=False)) == 0.0


def test_length_at_its_marks() -> None:
    at = {n: length()(long(n)) for n in (0, 2000, 3500, 5000, 6500, 8000, 20_000)}
    assert list(at.values()) == pytest.approx([0, 0, 0.05, 0.1, 0.15, 0.2, 0.2])
    assert length()(long(0, 8000)) == pytest.approx(0.1)
    assert length()(episode()) == 0.0
    assert length(free=0, middle=1, end=2, full=0.9)(long(5, 5)) == pytest.approx(0.3)
    assert length(free=0, middle=1, end=2, full=0.9, most=0.7)(long(5)) == pytest.approx(0.7)


@pytest.mark.parametrize(
    "bad",
    [
        {"free": -1},
        {"free": 5000},
        {"end": 5000},
        {"half": -0.1},
        {"full": 0.05},
        {"most": math.nan},
    ],
)
def test_thresholds_rise(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        length(**bad)  # type: ignore[arg-type]


# -- where they are taken off


def test_log_return_and_batch_agree() -> None:
    suite = Doors(3)
    algorithm = replace(
        ALONE,
        penalties={
            "threes": lambda e: 0.25 * sum(t.action == "3" for t in e.turns),
            "always": lambda e: 0.5,
        },
    )
    policies = {"self": Table(knows=1.0, clumsy=10.0)}
    on = session(suite, policies=policies, invalid_penalty=0.125)  # type: ignore[arg-type]
    free = play(on, suite.tasks("train"), ALONE, seed=0)
    episodes = play(on, suite.tasks("train"), algorithm, seed=0)
    assert any(not t.valid for e in episodes for t in e.turns)
    for bare, cost in zip(free, episodes, strict=True):
        off = 0.5 + 0.25 * sum(t.action == "3" for t in cost.turns)
        assert dict(cost.penalties) == {"threes": off - 0.5, "always": 0.5}
        assert dict(bare.penalties) == {}
        assert cost.total_reward == pytest.approx(bare.total_reward - off)
        assert [t.reward for t in cost.turns] == [t.reward for t in bare.turns]
        assert [t.penalty for t in cost.turns[:-1]] == [t.penalty for t in bare.turns[:-1]]
        line = episode_line(cost, 0)
        assert line["return"] == cost.total_reward
        read = episode_of({**line, "turns": []})
        assert read.penalties == cost.penalties
    assert collate(episodes).outcome.tolist() == pytest.approx([e.total_reward for e in episodes])


def test_a_broken_episode_is_not_fined() -> None:
    class Broken(Doors):
        def make(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            env = super().make()
            env.step = None  # type: ignore[method-assign,assignment]
            return env

    algorithm = replace(ALONE, penalties={"always": lambda e: 0.5})
    suite = Broken(2)
    episodes = play(session(suite, retries=0), suite.tasks("train")[:2], algorithm, seed=0)
    assert [e.stop for e in episodes] == [Stop.ERROR] * 2
    assert all(not e.penalties and e.total_reward == 0 for e in episodes)


@pytest.mark.parametrize("amount", [-0.1, math.nan, math.inf])
def test_a_penalty_is_an_amount(amount: float) -> None:
    algorithm = replace(ALONE, penalties={"odd": lambda e: amount})
    with pytest.raises(ConfigError, match="the penalty 'odd' is"):
        play(session(Doors(1)), Doors(1).tasks("train")[:1], algorithm, seed=0)


def test_there_are_none_unless_asked_for() -> None:
    assert dict(grpo().penalties) == {}
    episodes = play(session(Doors(1), policies=pair()), Doors(1).tasks("train"), grpo(), seed=0)
    assert all(not e.penalties for e in episodes)
