"""Episodes that an expert begins, and turns that another view finishes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fake_policy import ANSWER, LETTERS, Table, answer, chat
from support.sessions import ALONE, TRANSCRIPT, WINDOW, pair, session

from tutelage.algorithms.adaswitch import adaswitch
from tutelage.algorithms.tcod import tcod
from tutelage.envs.doors import RULE, Doors
from tutelage.errors import ConfigError
from tutelage.maths.divergences import reverse_kl
from tutelage.objective import Acting, Algorithm, Reinforce, Step, View
from tutelage.objective.batch import collate
from tutelage.objective.scores import Scores
from tutelage.objective.takeover import Takeover
from tutelage.policies.base import Actor
from tutelage.policies.hf.turn_divergence import divergences
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.record import dump, episode_line, episode_of
from tutelage.rollout.replay import Replay
from tutelage.schedules import constant
from tutelage.seeding import seed_of
from tutelage.signals import acted_by, group_relative
from tutelage.types import Episode, Observation, Stop, Taken, Task, Turn

BOTH = pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])


def writers(episode: Episode) -> list[tuple[str, ...]]:
    return [t.writers() for t in episode.turns]


# -- somebody else begins


@BOTH
@pytest.mark.parametrize(
    ("step", "mine"), [(0, 1), (1, 1), (2, 2), (5, 3), (6, 4), (8, 4), (99, 4)]
)
def test_the_expert_takes_all_turns_but_the_last_ones(
    context: Context, step: int, mine: int
) -> None:
    suite = Doors(4)
    policies = pair()
    on = session(suite, context=context, policies=policies)
    episodes = play(
        on, suite.tasks("train")[:9], tcod(direction="b2f"), seed=1, step=step, group_size=2
    )
    for e in episodes:
        assert [t.actor for t in e.turns] == ["expert"] * (4 - mine) + ["student"] * mine
        for t, letter in zip(e.turns, e.task.data["path"], strict=True):
            if t.actor == "expert":
                assert t.tokens == answer(RULE[letter])
                assert t.logps == (0.0,) * ANSWER
        # whoever acted, what was shown is what the plain student would have been shown
        samples = on.prompter(View(), e.task).samples(e)
        ids: tuple[int, ...] = ()
        for t, s in zip(e.turns, samples, strict=True):
            ids = t.prompt if t.fresh else ids + t.prompt
            assert s.prompt == ids
            ids += t.tokens
    student, teacher = policies["self"], policies["teacher"]
    assert isinstance(student, Table)
    assert isinstance(teacher, Table)
    assert len(student.asked) == 18 * mine
    assert teacher.asked == []


def test_an_opening_changes_nothing_of_what_is_sampled_after_it() -> None:
    """Every turn is drawn under its own name, whoever took the ones before."""
    suite = Doors(4)
    tasks = suite.tasks("train")[:12]
    on = session(suite, policies=pair())
    opened = play(on, tasks, tcod(direction="b2f"), seed=4, step=2)
    plain = play(session(suite, policies=pair()), tasks, ALONE, seed=4, step=2)
    for a, b in zip(opened, plain, strict=True):
        # of a door, the table knows nothing but the letter: equal seeds, equal words
        assert [t.text for t in a.turns[2:]] == [t.text for t in b.turns[2:]]
    one = play(session(suite, policies=pair()), tasks[5:6], tcod(direction="b2f"), seed=4, step=2)
    assert one == opened[5:6]


def test_the_student_goes_on_to_the_end_and_not_only_for_the_turns_that_are_left() -> None:
    class Longer(Doors):
        def demonstrate(self, task: Task) -> Sequence[str]:
            return super().demonstrate(task)[:2]

    suite = Longer(4)
    episodes = play(
        session(suite, policies=pair()), suite.tasks("train")[:3], tcod(direction="b2f"), seed=0
    )
    for e in episodes:
        assert [t.actor for t in e.turns] == ["expert", "student", "student", "student"]
        assert e.stop is Stop.DONE


def test_actors_share_the_turns_that_are_left() -> None:
    suite = Doors(4)
    algorithm = Algorithm(
        terms=(),
        views={"teacher": View(policy="teacher")},
        actors={"teacher": constant(0.5)},
        acting=Acting(student_turns=constant(2.0)),
    )
    episodes = play(session(suite, policies=pair()), suite.tasks("train"), algorithm, seed=0)
    assert {t.actor for e in episodes for t in e.turns[:2]} == {"expert"}
    assert {t.actor for e in episodes for t in e.turns[2:]} == {"student", "teacher"}


def test_an_opening_is_spoken_aloud_where_the_student_thinks() -> None:
    class Thinking(Doors):
        def thoughts(self, task: Task) -> Sequence[str]:
            return [f"now {letter}" for letter in task.data["path"]]

    suite = Thinking(3)
    (result,) = play(
        session(suite, policies=pair()),
        suite.tasks("train")[:1],
        tcod(direction="b2f", thoughts=True),
        seed=0,
    )
    assert ["now a" in t.text for t in result.turns] == [True, True, False]
    with pytest.raises(ValueError, match=r'thoughts are those of an expert.*direction = "b2f"'):
        tcod(thoughts=True)


class Silent:
    """A suite that knows no solutions."""

    def tasks(self, split: str) -> list[Task]:
        return Doors(2).tasks(split)

    def make(self) -> object:
        return Doors(2).make()


def test_without_an_expert_or_a_record_there_is_no_opening() -> None:
    suite = Silent()
    with pytest.raises(ConfigError, match=r"Silent has no `demonstrate`"):
        play(
            session(suite, policies=pair()),
            suite.tasks("train")[:1],  # type: ignore[arg-type]
            tcod(direction="b2f"),
            seed=0,
        )


def recorded(folder: Path, suite: Doors, group_size: int = 1) -> tuple[Path, list[Episode]]:
    """Won episodes of a teacher, and lost ones between them, as `collect` writes them."""
    alone = Algorithm(
        terms=(), views={"teacher": View(policy="teacher")}, actors={"teacher": constant(1.0)}
    )
    policies: dict[str, Actor] = {"self": Table(), "teacher": Table(knows=1.5)}
    episodes = play(
        session(suite, policies=policies),
        suite.tasks("train"),
        alone,
        seed=3,
        group_size=group_size,
    )
    path = folder / "episodes.jsonl"
    path.write_text("".join(dump(episode_line(e, 0)) + "\n" for e in episodes))
    won = [e for e in episodes if e.won]
    assert 3 < len(won) < len(episodes)
    return path, won


def test_recorded_episodes_stand_for_the_experts(tmp_path: Path) -> None:
    suite = Doors(3)
    path, won = recorded(tmp_path, suite)
    replay, on = Replay(path), session(suite, policies=pair())
    begun = replay.choose(
        4, lambda task: on.prompter(View(), task), suite, seed=0, step=7, once=True
    )
    episodes = play(
        on,
        [e.task for e in begun],
        tcod(direction="b2f"),
        seed=0,
        step=2,
        group_size=2,
        recorded={e.task.id: e.turns for e in begun},
    )
    by_task = {e.task.id: e for e in won}
    assert len(episodes) == 8
    for e in episodes:
        assert [t.actor for t in e.turns] == ["expert", "student", "student"]
        source = by_task[e.task.id].turns[0]
        assert (e.turns[0].tokens, e.turns[0].logps) == (source.tokens, source.logps)
        assert source.logps != (0.0,) * ANSWER


def test_no_task_is_begun_twice_in_a_step(tmp_path: Path) -> None:
    suite = Doors(2)
    path, won = recorded(tmp_path, suite, group_size=6)
    replay, on = Replay(path), session(suite, policies=pair())

    def chosen(count: int, step: int, *, once: bool) -> list[str]:
        result = replay.choose(
            count, lambda task: on.prompter(View(), task), suite, seed=0, step=step, once=once
        )
        return [e.task.id for e in result]

    tasks = {e.task.id for e in won}
    for step in range(20):
        some = chosen(3, step, once=True)
        assert len(set(some)) == len(some) == min(3, len(tasks))
    assert set(chosen(99, 0, once=True)) == tasks
    assert len(chosen(99, 0, once=False)) == len(won)
    assert any(len(set(chosen(4, s, once=False))) < 4 for s in range(20))
    assert len({tuple(chosen(3, s, once=True)) for s in range(20)}) > 1


# -- the rule


def at_by_hand(d: Sequence[float], factor: float, ema: float, floor: float) -> int | None:
    means = [d[0]]
    for x in d[1:]:
        means.append(ema * means[-1] + (1 - ema) * x)
    return next(
        (i for i in range(1, len(d)) if d[i] > factor * means[i - 1] and d[i] > floor), None
    )


@given(
    d=st.lists(st.floats(0, 5), min_size=1, max_size=12),
    factor=st.floats(0.1, 4),
    ema=st.floats(0, 0.99),
    floor=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_a_turn_is_taken_where_the_divergence_leaves_its_running_mean(
    d: list[float], factor: float, ema: float, floor: float
) -> None:
    rule = Takeover(view="teacher", factor=factor, ema=ema, floor=floor)
    assert rule.at(d) == at_by_hand(d, factor, ema, floor)


def test_the_rule_at_its_edges() -> None:
    rule = Takeover(view="t", factor=2.0, ema=0.5)
    assert rule.at([]) is None
    assert rule.at([9.0]) is None  # of the first token there is no mean before it
    assert rule.at([1.0, 2.0]) is None  # beyond, not at, the threshold
    assert rule.at([1.0, 2.1]) == 1
    assert rule.at([0.0, 0.0, 1e-9]) == 2
    assert Takeover(view="t", factor=2.0, ema=0.5, floor=0.1).at([0.0, 0.05, 0.2]) == 2
    # the mean follows: what stood out at first no longer does
    assert rule.at([1.0, 1.5, 2.0, 2.6, 3.2]) is None
    assert Takeover(view="t", factor=2.0, ema=0.99).at([1.0, 1.5, 2.0, 2.6, 3.2]) == 3
    for bad in ({"factor": 0.0}, {"ema": 1.0}, {"ema": -0.1}, {"floor": -1.0}):
        with pytest.raises(ValueError, match=r"a takeover needs factor > 0"):
            Takeover(view="t", **bad)


def test_divergences_are_of_each_turn_after_its_own_prompts() -> None:
    actual, reference = Table(knows=0.5), Table(knows=3.0)
    talk = chat()
    turns = []
    for letter, other, digit in (("a", "a", "3"), ("b", "c", "1"), ("c", "c", "7")):
        ids = answer(digit)[: 2 if digit == "7" else ANSWER]
        turns.append(
            (
                Sample(prompt=tuple(talk.content(letter)), tokens=ids),
                Sample(prompt=tuple(talk.content(other)), tokens=ids),
            )
        )
    got = divergences(actual, reference, turns, 0.7)
    assert [len(d) for d in got] == [ANSWER, ANSWER, 2]
    for d, (own, other) in zip(got, turns, strict=True):
        for k, x in enumerate(d):
            p = (actual.logits[actual.row(own.prompt), k] / 0.7).log_softmax(-1)
            q = (reference.logits[reference.row(other.prompt), k] / 0.7).log_softmax(-1)
            assert x == pytest.approx(float(reverse_kl(p, q).detach()), rel=1e-4, abs=1e-6)


# -- somebody else ends


def apart(**more: object) -> dict[str, Actor]:
    """They agree on the form of a turn and part at the digit, which the teacher knows."""
    return {"self": Table(knows=0.0, **more), "teacher": Table(knows=30.0, **more)}  # type: ignore[arg-type]


FLOOR = adaswitch(floor=0.1)


@BOTH
def test_a_turn_that_strays_is_ended_by_the_teacher(context: Context) -> None:
    suite = Doors(3)
    policies = apart()
    on = session(suite, context=context, policies=policies)
    episodes = play(on, suite.tasks("train"), FLOOR, seed=0)
    alone = play(
        session(suite, context=context, policies=apart()), suite.tasks("train"), ALONE, seed=0
    )
    # one token in 500 is none of the form's
    assert sum(e.won for e in episodes) > 24 > 3 > sum(e.won for e in alone)
    student, teacher = policies["self"], policies["teacher"]
    assert isinstance(student, Table)
    assert isinstance(teacher, Table)
    for e in episodes:
        for t in e.turns:
            assert t.actor == "student"
            assert t.taken == Taken(at=1, by="teacher")
            assert t.writers() == ("student", *["teacher"] * (len(t.tokens) - 1))
            assert t.text == chat().text(t.tokens)
            # each token has the log-probability of whoever wrote it
            row = LETTERS.index(t.observation.text)
            if t.tokens[0] != answer("3")[0]:
                continue  # what the tables do not take for the beginning of an answer
            for k, who in enumerate(t.writers()):
                table = student if who == "student" else teacher
                want = float(
                    table.logits[row, min(k, ANSWER - 1)].detach().log_softmax(-1)[t.tokens[k]]
                )
                assert t.logps[k] == pytest.approx(want, abs=1e-5)
    # the teacher goes on from its own prompt and the student's head, with what room is left
    assert sum(r.prompt[-1] == answer("3")[0] for r in teacher.asked) > 78
    for request in teacher.asked:
        assert request.max_new == 12 - 1
        assert request.temperature == 1.0
    assert len(teacher.asked) == len(student.asked) == 81
    samples = on.prompter(View(), episodes[0].task).samples(episodes[0])
    for t, s in zip(episodes[0].turns, samples, strict=True):
        assert s.tokens == t.tokens
        assert s.prompt[-len(t.prompt) :] == t.prompt


def test_a_turn_that_does_not_stray_stays_the_students() -> None:
    suite = Doors(3)
    policies: dict[str, Actor] = {"self": Table(knows=1.0), "teacher": Table(knows=1.0)}
    on = session(suite, policies=policies)
    episodes = play(on, suite.tasks("train"), FLOOR, seed=0)
    assert episodes == play(session(suite), suite.tasks("train"), ALONE, seed=0)
    assert all(t.taken is None for e in episodes for t in e.turns)


@BOTH
def test_no_order_of_events_changes_a_turn_that_changes_hands(context: Context) -> None:
    suite = Doors(3)
    tasks = suite.tasks("train")[:8]
    some = replace(adaswitch(floor=0.05, factor=1.2), actors={"teacher": constant(0.3)})

    def run(live: int, width: int, order: int) -> list[Episode]:
        policies: dict[str, Actor] = {
            "self": Table(knows=1.0, clumsy=10.0, width=width, seed=order),
            "teacher": Table(knows=3.0, clumsy=10.5, width=width, seed=order + 1),
        }
        on = session(suite, context=context, policies=policies, concurrency=live)
        return play(on, tasks, some, seed=3, step=4, group_size=2)

    want = run(64, 10_000, 0)
    kinds = {(t.actor, t.taken is None) for e in want for t in e.turns}
    assert ("student", False) in kinds
    assert ("teacher", True) in kinds
    assert ("teacher", False) not in kinds
    for live, width, order in ((1, 1, 1), (3, 1, 2), (64, 7, 5)):
        assert run(live, width, order) == want


def test_what_the_teacher_writes_is_drawn_apart_from_what_it_replaces() -> None:
    """With one seed for both, the teacher's first number would be the student's."""
    suite = Doors(3)
    policies = apart()
    play(session(suite, policies=policies), suite.tasks("train")[:5], FLOOR, seed=0)
    student, teacher = policies["self"], policies["teacher"]
    assert isinstance(student, Table)
    assert isinstance(teacher, Table)
    seeds = [r.seed for r in (*student.asked, *teacher.asked)]
    assert len(set(seeds)) == len(seeds) == 30
    name = repr((0, 0, "doors/aaa", 0, 0))
    assert seed_of("taken", name, 1) in seeds


def test_a_student_may_be_finished_by_itself_with_a_hint() -> None:
    """Teacher and student are one policy under two prompts, and share its cache's key."""

    class ReadsHint(Table):
        """Sure of its digits where its prompt holds privileged text."""

        def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
            episodes = super().score(samples, temperature).distribution
            mark = chat().content("Information that only you")
            texts = [
                any(s.prompt[i : i + len(mark)] == mark for i in range(len(s.prompt)))
                for s in samples
            ]
            heat = [
                3.0 if t else 1.0 for s, t in zip(samples, texts, strict=True) for _ in s.tokens
            ]
            hidden = episodes.hidden * torch.tensor(heat)[:, None]
            return Scores(distribution=replace(episodes, hidden=hidden), token=torch.tensor([0]))

    suite = Doors(3)
    tasks = suite.tasks("train")[:9]
    for hint, taken in (("plan", Taken(at=1, by="hinted")), ("", None)):
        policy = ReadsHint(knows=2.0)
        algorithm = Algorithm(
            terms=(),
            views={"hinted": View(policy="self", hint=hint)},
            acting=Acting(takeover=Takeover(view="hinted", floor=0.1)),
        )
        episodes = play(session(suite, policies={"self": policy}), tasks, algorithm, seed=0)
        # told nothing, it differs from itself nowhere and keeps every turn
        assert {t.taken for e in episodes for t in e.turns} == {taken}
        assert len(policy.scored) == 2 * 27
        assert len(policy.asked) == (27 if taken is None else 54)


def test_the_last_token_may_be_taken_and_a_cut_turn_too() -> None:
    suite = Doors(2)
    episodes = play(
        session(suite, policies=apart(), max_new_tokens=2), suite.tasks("train")[:3], FLOOR, seed=0
    )
    for e in episodes:
        for t in e.turns:
            assert t.taken == Taken(at=1, by="teacher")
            assert len(t.tokens) == 2  # the limit is the turn's, whoever writes it


def test_a_turn_needs_room_in_both_contexts() -> None:
    suite = Doors(6)
    task = suite.tasks("train")[0]
    for small in ("self", "teacher"):
        policies: dict[str, Actor] = {
            name: Table(knows=9.0, context=50 if name == small else 4096)
            for name in ("self", "teacher")
        }
        (result,) = play(
            session(suite, policies=policies, max_new_tokens=12), [task], FLOOR, seed=0
        )
        assert result.stop is Stop.TOKENS
        assert 0 < len(result.turns) < 6


def test_both_who_wrote_are_released() -> None:
    suite = Doors(2)
    policies = apart()
    play(session(suite, policies=policies), suite.tasks("train"), FLOOR, seed=0)
    for table in policies.values():
        assert isinstance(table, Table)
        assert sorted(table.released) == sorted(f"{t.id}#0.0" for t in suite.tasks("train"))


def test_the_one_who_takes_over_must_be_a_view_that_can_act() -> None:
    with pytest.raises(ValueError, match=r"gives turns to 'nobody'.*views: teacher"):
        Algorithm(
            terms=(), views={"teacher": View()}, acting=Acting(takeover=Takeover(view="nobody"))
        )
    with pytest.raises(ValueError, match="it has none"):
        Algorithm(terms=(), acting=Acting(takeover=Takeover(view="nobody")))
    late = View(hindsight=lambda episode, turn, siblings: "")
    with pytest.raises(ValueError, match="has hindsight"):
        Algorithm(terms=(), views={"late": late}, acting=Acting(takeover=Takeover(view="late")))
    assert adaswitch().all_actors() == {"teacher"}
    assert tcod(direction="b2f").all_actors() == set()


# -- who wrote what, in records and batches


def mixed_turn(at: int | None = 1) -> Turn:
    return Turn(
        observation=Observation(text="a"),
        prompt=(9,),
        text="",
        tokens=(1, 2, 3),
        logps=(-0.1, -0.2, -0.3),
        taken=None if at is None else Taken(at=at, by="teacher"),
    )


def test_a_record_says_who_ended_a_turn() -> None:
    episode = Episode(task=Task(id="t"), group="t", turns=(mixed_turn(), mixed_turn(None)))
    line = json.loads(dump(episode_line(episode, 0)))
    assert line["turns"][0]["taken"] == [1, "teacher"]
    assert line["turns"][1]["taken"] is None
    assert episode_of(line) == episode
    for turn in line["turns"]:  # as files were written before turns changed hands
        del turn["taken"]
    assert all(turn.taken is None for turn in episode_of(line).turns)


def test_tokens_belong_to_their_writer() -> None:
    teachers = replace(mixed_turn(None), actor="teacher")
    episode = Episode(
        task=Task(id="t"),
        group="t",
        turns=(mixed_turn(), mixed_turn(0), mixed_turn(None), teachers),
    )
    batch = collate([episode])
    assert batch.actors == ("student", "teacher")
    assert batch.writer.tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert batch.actor.tolist() == [0, 0, 0, 1]
    step = Step(batch, {}, 0)
    assert acted_by("student")(step).tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert torch.equal(acted_by("teacher")(step), 1 - acted_by("student")(step))
    assert not acted_by("nobody")(step).any()
    only = collate([replace(episode, turns=(replace(mixed_turn(), actor="expert"),))])
    assert only.actors == ("expert", "teacher")


def test_a_turn_cannot_change_hands_outside_itself() -> None:
    for at in (-1, 3):
        with pytest.raises(ValueError, match=r"3 tokens cannot change hands at token"):
            mixed_turn(at)


def test_advantages_do_not_mind_who_wrote() -> None:
    suite = Doors(2)
    episodes = play(
        session(suite, policies=apart()), suite.tasks("train"), FLOOR, seed=0, group_size=2
    )
    batch = collate(episodes)
    advantage = Reinforce(advantage=group_relative()).advantage(Step(batch, {}, 0))
    assert len(advantage) == len(batch.token) == len(batch.writer)
    assert [w for e in episodes for t in writers(e) for w in t] == [
        batch.actors[k] for k in batch.writer.tolist()
    ]
