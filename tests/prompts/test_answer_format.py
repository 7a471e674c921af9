"""Demonstrations with thoughts: one per action, written before it, refused if missing."""

from collections import Counter

import pytest

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.errors import ConfigError
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model, train_tokenizer
from tutelage.prompts import answer_format
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.types import Episode, Task
from tutelage_worlds.household import Household


def played(
    suite: Household | Doors, *, thoughts: bool, tasks: int = 12, **more: object
) -> list[Episode]:
    chat = Chat(train_tokenizer(["go to cabinet 1 ? open take move"] * 9, entries=400))
    model = build_model(
        entries=chat.size,
        layers=1,
        hidden=16,
        heads=2,
        kv_heads=1,
        ffn=16,
        context=8192,
        seed=0,
        end=chat.end,
        pad=0,
    )
    session = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies={"self": HFPolicy(model, chat)},
        context=Context(),
        limits=Limits(max_turns=200, max_new_tokens=64),
    )
    chosen = [suite.tasks("train")[i] for i in range(min(tasks, len(suite.tasks("train"))))]
    return play(session, chosen, ALGORITHMS["sft"](thoughts=thoughts, **more), seed=0)


class Talking(Doors):
    """Doors whose expert thinks, and whose plan does not."""

    def thoughts(self, task: Task) -> list[str]:
        return ["hm"] * len(self.demonstrate(task))


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("split", ["train", "unseen"])
def test_a_thought_for_every_action(size: str, split: str) -> None:
    suite = Household(size=size, train=300, unseen=300)
    for task in suite.tasks(split):
        actions, thoughts = suite.demonstrate(task), suite.thoughts(task)
        assert len(actions) == len(thoughts)
        for action, thought in zip(actions, thoughts, strict=True):
            assert thought, f"no thought before {action!r}"
            if action.startswith("take "):
                assert action.startswith(f"take {thought} from ")
            if action.startswith(("clean ", "heat ", "cool ")):
                assert action.startswith(thought)
            if action.startswith("move "):
                assert action == f"move {thought}"


@pytest.mark.parametrize("way", ["demonstrate", "plan"])
def test_a_thing_is_numbered_only_once_it_was_seen(way: str) -> None:
    suite = Household(train=120)
    for task in suite.tasks("train"):
        env = suite.make()
        shown = env.reset(task).text
        explored = way == "demonstrate"
        actions = suite.demonstrate(task) if explored else suite.plan(task)
        thoughts = suite.thoughts(task) if explored else suite.plan_thoughts(task)
        for action, thought in zip(actions, thoughts, strict=True):
            thing = thought.removeprefix("clean ").removeprefix("heat ").removeprefix("cool ")
            thing = thing.split(" to ")[0]
            assert thing.endswith(" ?") or thing in shown, (thought, action)
            shown += env.step(action).text
        env.close()


def test_thoughts_are_imitated_where_asked_for() -> None:
    suite = Household(size="small", train=20)
    for thoughts in (False, True):
        for episode in played(suite, thoughts=thoughts):
            assert episode.won
            texts = [answer_format.parse(turn.text).thought for turn in episode.turns]
            wanted = list(suite.thoughts(episode.task)) if thoughts else [""] * len(texts)
            assert texts == wanted
            assert [turn.action for turn in episode.turns] == list(suite.demonstrate(episode.task))


def test_an_environment_without_thoughts_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no `thoughts` method"):
        played(Doors(), thoughts=True)


def test_marks_say_no_more_than_the_words_do() -> None:
    suite = Household(size="small", train=60)
    renders = suite.renders()
    stars = 0
    for task in suite.tasks("train"):
        env = suite.make()
        seen = env.reset(task)
        named = seen.text
        for action in suite.demonstrate(task):
            marked, compact = renders["marked"](seen), renders["compact"](seen)
            assert marked.replace("* ", "") == compact
            for thing in marked.split("* ")[1:]:
                assert thing.split(" ")[0] in named.rsplit("task is to", 1)[1]
                stars += 1
            seen = env.step(action)
        env.close()
    assert stars > 60


def test_a_share_of_the_episodes_follows_the_plan_and_is_imitated_under_the_hint() -> None:
    suite = Household(train=60)
    result = played(suite, thoughts=True, tasks=40, mixture={"plan": 0.6})
    actors = [{turn.actor for turn in episode.turns} for episode in result]
    assert all(len(who) == 1 for who in actors)
    planned = [e for e, who in zip(result, actors, strict=True) if who == {"with_plan"}]
    assert 14 <= len(planned) <= 34
    for episode in result:
        output = episode in planned
        want = suite.plan(episode.task) if output else suite.demonstrate(episode.task)
        assert [turn.action for turn in episode.turns] == list(want)
        assert episode.won
    algorithm = ALGORITHMS["sft"](mixture={"plan": 0.4, "trace": 0.6})
    trained = {term.trains: term.name for term in algorithm.terms}
    assert trained == {
        "student": "imitate",
        "with_plan": "imitate_with_plan",
        "with_trace": "imitate_with_trace",
    }
    assert {name: view.hint for name, view in algorithm.views.items()} == {
        "with_plan": "plan",
        "with_trace": "trace",
    }


def test_every_hint_of_a_mixture_has_its_share_and_is_done_as_it_tells() -> None:
    suite = Household(train=120)
    shares = {"plan": 0.25, "trace": 0.25, "actions": 0.25}
    result = played(suite, thoughts=True, tasks=80, mixture=shares)
    count = Counter(next(iter({turn.actor for turn in e.turns})) for e in result)
    assert set(count) == {"expert", "with_plan", "with_trace", "with_actions"}
    assert all(8 <= n <= 34 for n in count.values())
    for e in result:
        output = suite.plan if e.turns[0].actor == "with_plan" else suite.demonstrate
        assert [turn.action for turn in e.turns] == list(output(e.task))


@pytest.mark.parametrize("correction", ["plan", "trace"])
def test_wrong_turns_are_corrected_and_not_imitated(correction: str) -> None:
    suite = Household(train=60)
    follow = suite.plan if correction == "plan" else suite.demonstrate
    result = played(suite, thoughts=True, tasks=30, mixture={correction: 1.0}, with_errors=True)
    straight = astray = 0
    for episode in result:
        assert episode.won
        right = [t.action for t in episode.turns if t.actor == f"with_{correction}"]
        wrong = [t.action for t in episode.turns if t.actor == "astray"]
        assert len(right) + len(wrong) == len(episode.turns)
        assert right == list(follow(episode.task)) or wrong
        assert all(action.startswith("go to ") for action in wrong)
        assert set(follow(episode.task)) <= set(right), "what was told is carried out all the same"
        straight, astray = straight + (not wrong), astray + len(wrong)
    assert straight < len(result)
    assert astray > len(result)
    again = played(suite, thoughts=True, tasks=30, mixture={correction: 1.0}, with_errors=True)
    assert again == result


def test_an_environment_that_cannot_stray_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no `stray` method"):
        played(Doors(), thoughts=False, mixture={"plan": 1.0}, with_errors=True)


def test_a_plan_without_thoughts_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no `plan_thoughts` method"):
        played(Talking(), thoughts=True, mixture={"plan": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": {"plan": 0.7, "trace": 0.4}}, "at most 1 in all"),
        ({"mixture": {"plan": -0.1}}, "shares of the episodes"),
        ({"mixture": {"plan": 0.5}, "hint": "plan"}, "set one of them"),
        ({"mixture": {"plan": 0.5}, "source": "teacher"}, 'set source = "expert"'),
        ({"with_errors": True}, "set mixture"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ALGORITHMS["sft"](**settings)
