"""Playing: who acts, when it ends, and that no order of events matters."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from support.fake_policy import ANSWER, DIGITS, Table, answer, chat
from support.sessions import ALONE, TRANSCRIPT, WINDOW, mixed, pair, session
from torch import Tensor

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.guided_opd import guided_opd
from tutelage.algorithms.sft import sft
from tutelage.envs.doors import RULE, Doors, DoorsEnv
from tutelage.envs.pool import LocalPool
from tutelage.errors import ConfigError, EnvError
from tutelage.evaluation.evaluate import evaluate, panel
from tutelage.objective import Algorithm, View
from tutelage.policies.base import Actor
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.schedules import constant, linear
from tutelage.seeding import seed_of
from tutelage.types import Episode, Stop, Task

# -- what results may depend on


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_no_order_of_events_changes_an_episode(context: Context) -> None:
    """Few or many at a time, whichever turn is finished first: the same episodes, to the bit."""
    suite = Doors(3)
    tasks = suite.tasks("train")[:6]

    def run(live: int, width: int, order: int) -> list[Episode]:
        policies: dict[str, Actor] = {
            "self": Table(knows=0.5, width=width, seed=order),
            "teacher": Table(knows=2.0, width=width, seed=order + 1),
        }
        on = session(suite, context=context, policies=policies, concurrency=live)
        return play(on, tasks, mixed(0.5), seed=3, step=4, group_size=2)

    want = run(64, 10_000, 0)
    assert [(e.task.id, e.copy) for e in want] == [(t.id, c) for t in tasks for c in (0, 1)]
    assert {t.actor for e in want for t in e.turns} == {"student", "teacher"}
    for live, width, order in ((1, 1, 1), (3, 1, 2), (3, 2, 3), (64, 1, 4), (64, 7, 5)):
        assert run(live, width, order) == want


def test_seed_step_copy_and_attempt_all_change_what_is_sampled() -> None:
    suite = Doors(3)
    tasks = suite.tasks("train")[:12]

    def texts(**more: int) -> list[tuple[str, ...]]:
        episodes = play(session(suite), tasks, ALONE, **{"seed": 0, **more})
        return [tuple(t.text for t in e.turns) for e in episodes]

    first = texts()
    assert texts() == first
    assert texts(seed=1) != first
    assert texts(step=1) != first
    two = play(session(suite), tasks, ALONE, seed=0, group_size=2)
    texts_by_copy = {(e.task.id, e.copy): tuple(t.text for t in e.turns) for e in two}
    assert any(texts_by_copy[t.id, 0] != texts_by_copy[t.id, 1] for t in tasks)
    assert [texts_by_copy[t.id, 0] for t in tasks] == first
    assert len({seed_of("turn", k) for k in range(1000)}) == 1000


def test_a_task_alone_is_played_as_it_is_among_others() -> None:
    suite = Doors(3)
    tasks = suite.tasks("train")[:6]
    together = play(session(suite), tasks, ALONE, seed=5, step=2)
    for task, episode in zip(tasks, together, strict=True):
        assert play(session(suite), [task], ALONE, seed=5, step=2) == [episode]
    back = play(session(suite), tasks[::-1], ALONE, seed=5, step=2)
    assert back[::-1] == together


def test_most_of_a_rollout_s_time_is_in_a_clock() -> None:
    """Prompts are read and answers are written and read under a clock of their own."""
    for algorithm in (ALONE, sft()):
        on = session(Doors(3))
        since = time.perf_counter()
        play(on, Doors(3).tasks("train")[:6], algorithm, seed=0)
        assert set(on.clock.seconds) == {"environment", "generate", "prompts"}
        assert sum(on.clock.seconds.values()) <= time.perf_counter() - since
        assert all(seconds > 0 for seconds in on.clock.seconds.values())


def test_turns_of_an_episode_are_sampled_apart() -> None:
    """A seed used for every turn would answer equal rooms alike."""
    suite = Doors(6)
    same = [t for t in suite.tasks("train") if set(t.data["path"]) == {"a"}]
    on = session(suite, policies={"self": Table()})
    episodes = [e for s in range(8) for e in play(on, same, ALONE, seed=s)]
    assert sum(len({t.text for t in e.turns}) == 1 for e in episodes) < len(episodes) / 2


# -- who acts


def share(episodes: Sequence[Episode], actor: str = "teacher") -> tuple[int, int]:
    turns = [t for e in episodes for t in e.turns]
    return sum(t.actor == actor for t in turns), len(turns)


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.85])
def test_each_turn_is_the_teachers_with_its_chance(chance: float) -> None:
    suite = Doors(4)
    episodes = play(
        session(suite, policies=pair()), suite.tasks("train"), mixed(chance), seed=1, group_size=3
    )
    k, n = share(episodes)
    assert n == 4 * 81 * 3
    assert abs(k - n * chance) < 3 * math.sqrt(n * chance * (1 - chance))
    # drawn for each turn: what was drawn before says nothing
    follows = [
        (a.actor, b.actor) for e in episodes for a, b in zip(e.turns, e.turns[1:], strict=False)
    ]
    after = [b == "teacher" for a, b in follows if a == "teacher"]
    m = len(after)
    assert abs(sum(after) - m * chance) < 3 * math.sqrt(m * chance * (1 - chance))


def test_at_chance_zero_never_and_at_one_always() -> None:
    suite = Doors(3)
    for chance, want in ((0.0, 0), (1.0, 81)):
        policies = pair()
        k, n = share(
            play(session(suite, policies=policies), suite.tasks("train"), mixed(chance), seed=0)
        )
        assert (k, n) == (want, 81)
        idle = policies["teacher" if not want else "self"]
        assert isinstance(idle, Table)
        assert idle.asked == []


def test_the_chance_is_that_of_the_step() -> None:
    suite = Doors(3)
    algorithm = Algorithm(
        terms=(), views={"teacher": View(policy="teacher")}, actors={"teacher": linear(1, 0, 10)}
    )
    shares = []
    for step in (0, 5, 10):
        episodes = play(
            session(suite, policies=pair()), suite.tasks("train"), algorithm, seed=0, step=step
        )
        shares.append(share(episodes)[0] / share(episodes)[1])
    assert shares[0] == 1
    assert 0.3 < shares[1] < 0.7
    assert shares[2] == 0


def test_several_actors_share_the_turns() -> None:
    suite = Doors(4)
    algorithm = Algorithm(
        terms=(),
        views={"one": View(policy="teacher"), "two": View(policy="self", hint="plan")},
        actors={"one": constant(0.2), "two": constant(0.3)},
    )
    episodes = play(
        session(suite, policies=pair()), suite.tasks("train"), algorithm, seed=0, group_size=3
    )
    for actor, chance in (("one", 0.2), ("two", 0.3), ("student", 0.5)):
        k, n = share(episodes, actor)
        assert abs(k - n * chance) < 3 * math.sqrt(n * chance * (1 - chance))


def test_who_acts_depends_on_the_turn_and_on_nobody_elses() -> None:
    suite = Doors(3)
    tasks = suite.tasks("train")

    def actors(among: list[Task]) -> dict[str, tuple[str, ...]]:
        episodes = play(session(suite, policies=pair()), among, mixed(0.5), seed=9)
        return {e.task.id: tuple(t.actor for t in e.turns) for e in episodes}

    everyone = actors(tasks)
    assert actors(tasks[::-1]) == everyone
    for task in tasks[::7]:
        assert actors([task])[task.id] == everyone[task.id]


def test_an_evaluation_is_the_student_alone() -> None:
    """Not the teacher, not a hint, whatever the algorithm; and at its own temperature."""
    suite = Doors(3)
    policies = pair()
    on = session(suite, policies=policies, temperature=1.0)
    evaluation = evaluate(on, panel(suite, "unseen", 12), seed=0, temperature=0.0)
    teacher, student = policies["teacher"], policies["self"]
    assert isinstance(teacher, Table)
    assert isinstance(student, Table)
    assert teacher.asked == []
    assert {t.actor for e in evaluation.episodes for t in e.turns} == {"student"}
    assert {r.temperature for r in student.asked} == {0.0}
    words = [chat().tokenizer.decode(list(r.prompt)) for r in student.asked]
    assert not any("Information that only you" in w for w in words)
    assert [e.task.id for e in evaluation.episodes] == [t.id for t in evaluation.panel.tasks]
    # the likeliest digit of every letter is the right one
    assert all(evaluation.won)
    assert (
        evaluate(on, evaluation.panel, policy="teacher", seed=0, temperature=0.0).won
        == evaluation.won
    )
    assert teacher.asked


def test_an_algorithm_that_wants_a_policy_there_is_not() -> None:
    suite = Doors(2)
    with pytest.raises(ConfigError, match=r"wants a policy 'teacher'.*there are self"):
        play(session(suite), suite.tasks("train"), mixed(1.0), seed=0)


# -- when it ends


def test_an_episode_ends_at_the_turn_limit() -> None:
    suite = Doors(5)
    episodes = play(session(suite, max_turns=2), suite.tasks("train")[:7], ALONE, seed=0)
    assert {(e.stop, len(e.turns), e.won) for e in episodes} == {(Stop.TURNS, 2, False)}
    whole = play(session(suite, max_turns=5), suite.tasks("train")[:7], ALONE, seed=0)
    assert {(e.stop, len(e.turns)) for e in whole} == {(Stop.DONE, 5)}
    for short, long in zip(episodes, whole, strict=True):
        assert short.turns == long.turns[:2]


def test_an_episode_ends_where_the_next_turn_would_not_fit() -> None:
    suite = Doors(6)
    task = suite.tasks("train")[0]
    on = session(suite, policies={"self": Table(knows=9.0, context=50)}, max_new_tokens=12)
    (episode,) = play(on, [task], ALONE, seed=0)
    assert episode.stop is Stop.TOKENS
    assert not episode.stop.broken
    assert 0 < len(episode.turns) < 6
    used = sum(len(t.prompt) + len(t.tokens) for t in episode.turns)
    assert used <= 50 < used + 12 + 4
    (none,) = play(session(suite, policies={"self": Table(context=10)}), [task], ALONE, seed=0)
    assert (none.stop, none.turns, none.won) == (Stop.TOKENS, (), False)


def test_a_turn_is_cut_at_its_own_limit_and_closed_for_the_next() -> None:
    suite = Doors(3)
    policy = Table(knows=9.0)
    on = session(suite, policies={"self": policy}, max_new_tokens=2)
    (episode,) = play(on, suite.tasks("train")[:1], ALONE, seed=0)
    assert [len(t.tokens) for t in episode.turns] == [2, 2, 2]
    assert chat().end not in episode.turns[0].tokens
    assert episode.turns[1].prompt[0] == chat().end
    assert [t.valid for t in episode.turns] == [False] * 3


def test_winning_is_the_environments_word_and_only_at_the_end() -> None:
    suite = Doors(3)
    sure, lost = session(suite, policies={"self": Table(knows=30.0)}), session(suite)
    assert all(e.won and e.score == 1 for e in play(sure, suite.tasks("train"), ALONE, seed=0))
    for e in play(lost, suite.tasks("train"), ALONE, seed=0):
        right = [t.action == RULE[c] for t, c in zip(e.turns, e.task.data["path"], strict=True)]
        assert e.won == all(right)
        assert e.score == sum(right) / 3
        assert [t.reward for t in e.turns] == [float(r) for r in right]
        assert e.group == e.task.id


def test_a_turn_keeps_what_was_seen_before_it_and_earns_what_came_after() -> None:
    suite = Doors(4)
    for e in play(session(suite), suite.tasks("train")[:30], ALONE, seed=2):
        assert "".join(t.observation.text for t in e.turns) == e.task.data["path"]
        assert [t.observation.state[0] for t in e.turns] == [0, 1, 2, 3]
        assert all(
            t.observation.reward == u.reward for u, t in zip(e.turns, e.turns[1:], strict=False)
        )


# -- invalid turns


def clumsy() -> Table:
    """Half its turns end at once; of the others some name a digit that opens nothing."""
    return Table(clumsy=13.0)


@pytest.mark.parametrize(
    "penalty", [0.25, {"format": 0.25}, {"refused": 0.5}, {"format": 0.25, "refused": 0.5}]
)
def test_invalid_turns_are_counted_and_cost(penalty: float | dict[str, float]) -> None:
    suite = Doors(4)
    on = session(suite, policies={"self": clumsy()}, invalid_penalty=penalty)
    kinds_penalty = (
        penalty if isinstance(penalty, dict) else {"format": penalty, "refused": penalty}
    )
    episodes = play(on, suite.tasks("train"), ALONE, seed=0)
    kinds = set()
    for e in episodes:
        for t in e.turns:
            unreadable = t.tokens == (chat().end,)
            refused = not unreadable and t.action == "7"
            kind = "format" if unreadable else "refused" if refused else "valid"
            assert t.valid == (kind not in kinds_penalty)
            assert t.penalty == kinds_penalty.get(kind, 0.0)
            kinds.add((unreadable, refused))
        assert e.total_reward == sum(t.reward for t in e.turns) - sum(t.penalty for t in e.turns)
    assert kinds == {(True, False), (False, True), (False, False)}


# -- the expert


def test_an_experts_turns_are_what_a_student_would_have_said() -> None:
    suite = Doors(3)
    policy = Table()
    on = session(suite, policies={"self": policy})
    episodes = play(on, suite.tasks("train"), sft(), seed=0)
    assert policy.asked == []
    for e in episodes:
        assert e.won
        assert {t.actor for t in e.turns} == {"expert"}
        assert [t.tokens for t in e.turns] == [answer(RULE[c]) for c in e.task.data["path"]]
        assert all(t.logps == (0.0,) * ANSWER for t in e.turns)
        samples = on.prompter(View(), e.task).samples(e)
        ids: tuple[int, ...] = ()
        for t, s in zip(e.turns, samples, strict=True):
            ids += t.prompt
            assert s.prompt == ids
            ids += t.tokens


class Silent:
    """A suite that knows no solutions."""

    def tasks(self, split: str) -> list[Task]:
        return Doors(2).tasks(split)

    def make(self) -> DoorsEnv:
        return DoorsEnv()


class Wrong(Doors):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return ["3"]


def test_what_cannot_be_imitated_is_said() -> None:
    tasks = Doors(2).tasks("train")[:2]
    with pytest.raises(ConfigError, match=r"Silent has no `demonstrate`.*source = \"teacher\""):
        play(session(Silent()), tasks, sft(), seed=0)
    with pytest.raises(EnvError, match=r"expert's 1 actions did not end task doors/aa"):
        play(session(Wrong()), tasks, sft(), seed=0)
    with pytest.raises(ConfigError, match=r"hint 'plan' needs an environment.*Silent"):
        play(session(Silent(), policies=pair()), tasks, mixed(1.0, hint="plan"), seed=0)
    with pytest.raises(ConfigError, match=r"no hint 'skill'; the kinds are plan, actions"):
        play(session(Doors(2), policies=pair()), tasks, mixed(1.0, hint="skill"), seed=0)


# -- housekeeping


def test_a_task_named_twice_is_refused() -> None:
    suite = Doors(2)
    with pytest.raises(EnvError, match="two tasks have the id"):
        play(session(suite), suite.tasks("train")[:2] * 2, ALONE, seed=0)


def test_policies_are_refreshed_before_and_released_after() -> None:
    suite = Doors(2)
    policies = pair()
    tasks = suite.tasks("train")
    episodes = play(session(suite, policies=policies), tasks, mixed(0.5), seed=0)
    for name, view in (("self", "student"), ("teacher", "teacher")):
        table = policies[name]
        assert isinstance(table, Table)
        assert table.refreshed == 1
        acted = {f"{e.task.id}#0.0" for e in episodes if any(t.actor == view for t in e.turns)}
        assert sorted(table.released) == sorted(acted)


def test_progress_is_told_once_an_episode() -> None:
    suite = Doors(2)
    on = session(suite, concurrency=2)
    ticks: list[tuple[int, int]] = []
    on = replace(on, tick=lambda done, total: ticks.append((done, total)))
    play(on, suite.tasks("train"), ALONE, seed=0)
    assert ticks == [(k, 9) for k in range(1, 10)]


def test_what_the_environment_holds_is_given_back() -> None:
    suite = Doors(2)
    on = session(suite)
    play(on, suite.tasks("train"), ALONE, seed=0)
    assert isinstance(on.pool, LocalPool)
    assert on.pool.envs.by_key == {}
    with pytest.raises(ConfigError):
        play(on, suite.tasks("train"), mixed(1.0), seed=0)
    assert on.pool.envs.by_key == {}
    assert on.pool.poll(block=False) == []


def test_the_digits_a_table_says_are_those_of_its_distribution() -> None:
    """From seeds to actions: the policy's chances are what is played."""
    suite = Doors(4)
    policy = Table(knows=1.0)
    episodes = play(
        session(suite, policies={"self": policy}), suite.tasks("train"), ALONE, seed=0, group_size=8
    )
    for letter in RULE:
        digits = [t.action for e in episodes for t in e.turns if t.observation.text == letter]
        chances: Tensor = policy.chances(letter)
        for digit, p in zip(DIGITS, chances.tolist(), strict=True):
            sigma = math.sqrt(len(digits) * p * (1 - p))
            assert abs(digits.count(digit) - len(digits) * p) < 4 * sigma


RUNS: dict[str, Callable[[], Algorithm]] = {
    "grpo": grpo,
    "guided": lambda: guided_opd(total_steps=10),
    "sft": sft,
}


@pytest.mark.parametrize("name", RUNS)
def test_nothing_at_all_to_play(name: str) -> None:
    assert play(session(Doors(2), policies=pair()), [], RUNS[name](), seed=0) == []
