"""Agents that keep their own loop, played, recorded and trained like every other environment."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import agents
from support.sessions import Says
from support.tiny_models import policy

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.agents.suite import Agents
from tutelage.errors import ConfigError
from tutelage.evaluation.evaluate import evaluate, panel
from tutelage.objective import Algorithm, View
from tutelage.policies.base import Policy
from tutelage.rollout.play import play
from tutelage.rollout.record import dump, episode_line, episode_of
from tutelage.rollout.session import Limits, Session, context_for
from tutelage.runs.trainer import Trainer
from tutelage.schedules import constant
from tutelage.types import Episode, Stop

pytest.importorskip("starlette")
ALONE = Algorithm(terms=())


@contextmanager
def session(
    run: Any, policies: dict[str, Policy] | None = None, **options: Any
) -> Iterator[Session]:
    suite = Agents(run=run, tasks=agents.tasks)
    pool = suite.agents(workers=0, seconds=options.pop("seconds", 30.0))
    limits = Limits(**{"max_turns": 9, "max_new_tokens": 6, **options})
    try:
        yield Session(suite, policies or {"self": policy()}, pool=pool, limits=limits)
    finally:
        pool.shutdown()


def played(of: Session, algorithm: Algorithm = ALONE, **more: Any) -> list[Episode]:
    tasks = list(of.suite.tasks("train"))[:4]
    return play(of, tasks, algorithm, **{"seed": 3, "step": 2, **more})


def complete(episode: Episode) -> list[tuple[int, ...]]:
    """The whole prompt of every turn, from what is recorded."""
    ids: tuple[int, ...] = ()
    prompts = []
    for turn in episode.turns:
        prompts.append(turn.prompt if turn.fresh else (*ids, *turn.prompt))
        ids = (*prompts[-1], *turn.tokens)
    return prompts


@pytest.mark.parametrize("run", [agents.solve, agents.compacts])
def test_what_is_recorded_is_what_was_sampled_and_what_is_scored(run: Any) -> None:
    with session(run) as of:
        student = of.policies["self"]
        asked: list[tuple[int, ...]] = []

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(student, name)

            def submit(self, request: Any) -> None:
                asked.append(request.prompt)
                student.submit(request)

        episodes = played(replace(of, policies={"self": Watched()}))
        samples = [of.prompter(View(), e.task).samples(e) for e in episodes]
    assert {e.stop for e in episodes} == {Stop.DONE}
    assert sorted(asked) == sorted(ids for e in episodes for ids in complete(e))
    for episode, read in zip(episodes, samples, strict=True):
        assert [s.prompt for s in read] == complete(episode)
    flat = [s for read in samples for s in read]
    with torch.no_grad():
        scored = student.score(flat, 1.0).logp
    sampled = torch.tensor([x for e in episodes for t in e.turns for x in t.logps])
    assert float((scored - sampled).abs().max()) < 1e-4


def test_rows_and_copied_context() -> None:
    with session(agents.compacts) as of:
        (episode, *_) = played(of)
    one, two, other, four = episode.turns
    assert [t.fresh for t in episode.turns] == [False, False, True, True]
    assert episode.counts == {"rows": 2}
    assert four.prompt[: len(one.prompt)] == one.prompt  # the first row goes on
    assert len(complete(episode)[3]) > sum(len(t.prompt) + len(t.tokens) for t in (one, two))
    text = of.policies["self"].chat.tokenizer.decode(list(other.prompt))
    assert "one, and more" in text
    assert sum(len(t.tokens) for t in episode.turns) == 24  # each sampled token once


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    lines = []
    for seed in (3, 3, 4):
        with session(agents.solve) as of:
            episodes = played(of, group_size=2, seed=seed)
        lines.append([dump(episode_line(e, 2)) for e in episodes])
        assert [episode_of(json.loads(line)).counts for line in lines[-1]] == [{"rows": 1}] * 8
    assert lines[0] == lines[1]
    assert lines[0] != lines[2]


def test_calls_beside_each_other_are_sampled_alike_whatever_their_order() -> None:
    found = []
    for _ in range(2):
        with session(agents.beside) as of:
            episodes = played(of)
        found.append([sorted((t.observation.text, t.tokens) for t in e.turns) for e in episodes])
        assert [len(e.turns) for e in episodes] == [6] * 4
    assert found[0] == found[1]


def test_episodes_that_break_are_counted_and_never_a_success() -> None:
    with session(agents.crashes) as of:
        episodes = played(of)
    assert len(episodes) == 4 * 3  # each is tried again twice
    assert {e.stop for e in episodes} == {Stop.ERROR}
    assert not any(e.won for e in episodes)
    with session(agents.hangs, seconds=0.3) as of:
        episodes = played(replace(of, limits=replace(of.limits, retries=0)))
    assert {e.stop for e in episodes} == {Stop.TIMEOUT}


def test_a_turn_limit_ends_an_agent() -> None:
    with session(agents.solve, max_turns=2) as of:
        episodes = played(of)
    assert {(e.stop, len(e.turns), e.won) for e in episodes} == {(Stop.TURNS, 2, False)}


def test_rewards_go_to_the_turns_that_they_are_for() -> None:
    with session(agents.posts) as of:
        (episode, *_) = played(of)
    assert [t.reward for t in episode.turns] == [0.25, 0.5]
    assert episode.counts == {"malformed": 1, "rows": 2}


def test_a_teacher_takes_turns_and_the_agent_does_not_notice() -> None:
    both = {"self": policy(), "teacher": policy(seed=1)}
    views = {"teacher": View(policy="teacher")}
    guided = Algorithm(terms=(), views=views, actors={"teacher": constant(0.5)})
    with session(agents.solve, both) as of:
        episodes = played(of, guided, group_size=2)
        again = played(of, guided, group_size=2)
    actors = {t.actor for e in episodes for t in e.turns}
    assert actors == {"student", "teacher"}
    assert [[t.actor for t in e.turns] for e in episodes] == [
        [t.actor for t in e.turns] for e in again
    ]
    assert all(len(e.turns) == 3 for e in episodes)
    assert all(not t.fresh for e in episodes for t in e.turns)


def test_text_that_the_model_says_reaches_the_agent() -> None:
    with session(agents.solve, {"self": Says(["it is a", "b", "a a"])}) as of:
        (episode,) = play(of, [of.suite.tasks("train")[0]], ALONE, seed=0)
    assert [t.action for t in episode.turns] == ["it is a", "b", "a a"]
    assert episode.won
    assert math.isclose(episode.total_reward, 2 / 3)


METHODS = {
    "grpo": {},
    "rloo": {},
    "reinforce_pp": {},
    "gigpo": {},
    "opd": {},
    "opsd": {"hint": "answer"},
    "sdar": {"hint": "answer"},
    "rlsd": {"hint": "answer"},
    "guided_opd": {"total_steps": 4, "start": 0.5},
    "adaswitch": {},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_through_it(name: str) -> None:
    both = {"self": policy(layers=1), "teacher": policy(seed=1, layers=1)}
    with session(agents.solve, both, max_new_tokens=4) as of:
        algorithm = ALGORITHMS[name](**METHODS[name])
        trainer = Trainer(of, algorithm, lr=1e-3)
        before = [p.detach().clone() for p in both["self"].parameters()]
        episodes = trainer.play(list(of.suite.tasks("train"))[:2], group_size=2)
        earned = [
            replace(e, turns=tuple(replace(t, reward=float(k % 2)) for t in e.turns))
            for k, e in enumerate(episodes)
        ]
        report = trainer.learn(earned)
        after = list(both["self"].parameters())
    assert math.isfinite(report.grad_norm)
    assert report.grad_norm > 0
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_an_evaluation_goes_the_same_way() -> None:
    with session(agents.solve) as of:
        tested = panel(of.suite, "dev", 3)
        assert tested.fingerprint == panel(of.suite, "dev", 3).fingerprint
        results = [
            evaluate(of, tested, seed=0, temperature=0.0, hint=hint) for hint in ("", "answer", "")
        ]
    assert [len(r.episodes) for r in results] == [3, 3, 3]
    assert results[0].episodes == results[2].episodes
    lengths = [len(r.episodes[0].turns[0].prompt) for r in results]
    assert lengths[1] > lengths[0]


def test_a_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="an agent keeps its own conversation"):
        context_for(Agents(run=agents.solve), kind="window")
