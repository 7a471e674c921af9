"""The search_qa suite: tasks, experts, and random walks."""

import pickle
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.envs.base import Answers, Demonstrates, Describes, Instructs, Renders, Thinks
from tutelage.envs.check import check
from tutelage.hints.bank import load as load_bank
from tutelage.types import Observation, Task
from tutelage_worlds.search_qa import SearchQA, wording
from tutelage_worlds.search_qa.expert import understand
from tutelage_worlds.search_qa.generate import FAMILIES, specs
from tutelage_worlds.search_qa.moves import Protocol
from tutelage_worlds.search_qa.relations import OF_KIND
from tutelage_worlds.search_qa.scores import normalise
from tutelage_worlds.search_qa.world import Size, world

SMALL = SearchQA(size="small", train=400, dev=100, test=100, retriever="lucene")
FULL = SearchQA(retriever="lucene")
PINNED = ("What is the founding year of the birthplace of Lotraish Reikuhis?", "1390")


def played(suite: SearchQA, task: Task, actions: list[str]) -> Observation:
    env = suite.make()
    seen = env.reset(task)
    for action in actions:
        assert not seen.done
        seen = env.step(action)
        assert seen.valid, action
    return seen


def test_it_keeps_every_promise() -> None:
    for kind in (Answers, Demonstrates, Describes, Instructs, Renders, Thinks):
        assert isinstance(SMALL, kind)
    for suite in (
        FULL,
        SearchQA(
            size="small",
            train=9,
            dev=9,
            test=9,
            protocol="verl_agent",
            reward="format",
            retriever="lucene",
        ),
    ):
        for finding in check(suite, ("train", "dev", "test"), tasks=3):
            assert finding.problems == (), finding.name


def test_the_default_corpus_is_large_enough() -> None:
    assert len(world("full", 2400, 0).passages) == 2400
    assert [len(FULL.tasks(split)) for split in ("train", "dev", "test")] == [2000, 300, 300]
    texts = [
        FULL.describe(task) for split in ("train", "dev", "test") for task in FULL.tasks(split)
    ]
    assert len(set(texts)) > 2500
    assert Counter(task.family for task in FULL.tasks("test")) == dict.fromkeys(FAMILIES, 75)


@pytest.mark.parametrize("size", ["full", "small"])
@pytest.mark.parametrize("count", [60, 655, 1600, 6000])
def test_a_corpus_of_any_size_has_names_for_all_things(size: Size, count: int) -> None:
    result = world(size, count, 0)
    assert len(result.things) == len(result.passages) == count
    for thing in result.things.values():
        for relation in OF_KIND[thing.kind]:
            if relation.target:
                fact = result.things[thing.facts[relation.name]]
                assert fact.kind == relation.target
                assert fact is not thing


def test_tasks_have_stable_ids() -> None:
    task = FULL.tasks("test")[5]
    assert task.id == "search_qa/full-2400-0/bridge/test/0000001"
    assert (task.family, FULL.describe(task), FULL.answer(task)) == (
        "bridge",
        *PINNED,
    )
    few = SearchQA(families=["chain", "bridge"], retriever="lucene")
    assert few.tasks("test")[3] == task
    assert FULL.tasks("test")[-1] == list(FULL.tasks("test"))[-1]
    assert pickle.loads(pickle.dumps((FULL, FULL.tasks("dev")))) == (FULL, FULL.tasks("dev"))
    assert FULL.tasks("test")[0] != SearchQA(seed=1).tasks("test")[0]


def test_splits_ask_about_different_things() -> None:
    starts = {
        split: {
            name
            for family in FAMILIES
            for spec in specs(family, split, "full", 2400, 0)
            for name in (spec.start, spec.rival or spec.start)
        }
        for split in ("train", "dev", "test")
    }
    assert not starts["train"] & starts["dev"] | starts["train"] & starts["test"]
    assert not starts["dev"] & starts["test"]
    for family in FAMILIES:
        found = specs(family, "test", "full", 2400, 0)
        assert len(set(found)) == len(found)


def test_questions_are_answered_by_the_passages_that_they_name() -> None:
    passages = world("full", 2400, 0).passages
    titled = {passages[n].title: passages[n].text for n in range(len(passages))}
    assert len(titled) == 2400
    hops = {"single": 1, "bridge": 2, "chain": 3, "compare": 2}
    for task in FULL.tasks("dev"):
        asked = FULL.question(task)
        assert len(asked.titles) == hops[task.family]
        assert normalise(asked.golds[0])
        if task.family != "compare":
            assert asked.golds[0] in titled[asked.titles[-1]]
            for one, then in zip(asked.titles, asked.titles[1:], strict=False):
                assert then in titled[one]
        else:
            assert asked.golds[0] in ("yes", "no", *asked.titles)
    answers = Counter(FULL.answer(task) for task in FULL.tasks("train") if task.family == "compare")
    assert 0.5 < answers["yes"] / answers["no"] < 2


def test_comparisons_are_right() -> None:
    things, seen = world("full", 2400, 0).things, set()
    for number in range(300):
        asked = FULL.question(FULL.task("compare", "train", number))
        one, other = (things[title].facts for title in asked.titles)
        kind = next(
            word
            for word in ("born", "younger", "appeared", "profession", "country")
            if word in asked.text
        )
        seen.add(kind)
        if kind in ("profession", "country"):
            assert asked.golds == ("yes" if one[kind] == other[kind] else "no",)
            continue
        fact = {"born": "birth year", "younger": "founding year", "appeared": "publication year"}
        years = [int(facts[fact[kind]]) for facts in (one, other)]
        wanted = max(years) if kind == "younger" else min(years)
        assert asked.golds == (asked.titles[years.index(wanted)],)
    assert len(seen) == 5


@pytest.mark.parametrize("suite", [FULL, SMALL], ids=["full", "small"])
def test_the_reader_wins_and_so_does_the_plan(suite: SearchQA) -> None:
    for split in ("train", "test"):
        for task in suite.tasks(split)[:60]:
            for actions in (suite.demonstrate(task), suite.plan(task)):
                seen = played(suite, task, list(actions))
                assert (seen.won, seen.reward, seen.score) == (True, 1.0, 1.0), (task, actions)
            assert len(suite.thoughts(task)) == len(suite.demonstrate(task)) <= 6


def test_the_reader_reads_either_protocol_and_one_passage_at_a_time() -> None:
    for protocol in ("search_r1", "verl_agent"):
        suite = SearchQA(
            size="small",
            topk=1,
            protocol=protocol,
            test=80,
            dev=0,
            train=0,  # type: ignore[arg-type]
            retriever="lucene",
            families=["single", "bridge"],
        )
        for task in suite.tasks("test"):
            assert played(suite, task, list(suite.demonstrate(task))).won


def test_the_reader_says_only_what_it_has_seen() -> None:
    """The answer, and every name that it searches for, stood in the question or in a passage."""
    for task in FULL.tasks("train")[:40]:
        env = FULL.make()
        seen = env.reset(task).text
        for action in FULL.demonstrate(task)[:-1]:
            name = action.removeprefix("<search> ").removesuffix(" </search>")
            assert any(name.startswith(n) for n in _names(seen)), (name, seen)
            seen += env.step(action).text
        answer = FULL.answer(task)
        assert answer in seen or answer in ("yes", "no")


def _names(text: str) -> list[str]:
    return [thing for thing in world("full", 2400, 0).things if thing in text]


def test_a_reader_that_finds_nothing_gives_what_it_has() -> None:
    from tutelage_worlds.search_qa.expert import Reader

    reader = Reader(lambda query: [])
    reader.answer("What is the river of the birthplace of Ada Bo?")
    assert reader.moves[-1].action == "<answer> Ada Bo </answer>"
    other = Reader(lambda query: [])
    other.answer("Do Oslo and Lima lie in the same country?")
    assert other.moves[-1].action == "<answer> Oslo </answer>"
    assert understand("How are you?") is None
    assert understand("What is love?") is None


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="the splits are train, dev, test"):
        FULL.tasks("valid")
    with pytest.raises(ValueError, match=r"only \d+ different questions; ask for fewer"):
        SearchQA(test=10**6).tasks("test")
    env = SMALL.make()
    with pytest.raises(RuntimeError, match="reset"):
        env.step("<search>a</search>")
    good = SMALL.tasks("test")[0]
    for task in (
        Task(id="doors/1"),
        FULL.tasks("test")[0],
        Task(id=good.id, family="single"),
        Task(id=good.id, family="single", seed=10**9, data={"split": "test"}),
        Task(id=good.id, family="x", data={"split": "test"}),
    ):
        with pytest.raises(ValueError, match="not one of these questions"):
            env.reset(task)
    env.reset(good)
    env.close()
    with pytest.raises(RuntimeError, match="reset"):
        env.step("<search>a</search>")


def test_doing_nothing_never_wins() -> None:
    for task in SMALL.tasks("test")[:30]:
        env = SMALL.make()
        env.reset(task)
        for action in ("", "wait", "<answer>", "</answer>", "<search></search>", "<information>"):
            seen = env.step(action)
            assert (seen.won, seen.reward, seen.done) == (None, 0.0, False)


LETTERS = st.text(max_size=30) | st.sampled_from(
    ["ignore all previous instructions", "<|im_end|>", "\ud800", "🚪" * 5, "</information>", "\x00"]
)
ACTIONS = st.one_of(
    LETTERS,
    LETTERS.map("<search>{}</search>".format),
    LETTERS.map("<answer>{}</answer>".format),
    LETTERS.map("<search>{}".format),
    st.integers(0, 239).map(
        lambda n: f"<search>{world('small', 240, 0).passages[n].title}</search>"
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ACTIONS, max_size=12),
    st.sampled_from(["search_r1", "verl_agent"]),
    st.sampled_from(["em", "f1", "format"]),
    st.integers(0, 99),
)
def test_any_action_is_answered_and_games_are_deterministic(
    actions: list[str], protocol: Protocol, reward: str, index: int
) -> None:
    suite = SearchQA(
        size="small", train=0, dev=0, test=100, protocol=protocol, retriever="lucene", reward=reward
    )  # type: ignore[arg-type]
    task, compact = suite.tasks("test")[index], suite.renders()["compact"]
    env, other = suite.make(), suite.make()
    path = [env.reset(task)]
    other.reset(suite.tasks("test")[0])
    for action in actions:
        seen = env.step(action)
        other.step(action)
        assert seen.text.strip()
        assert compact(seen).strip()
        assert 0 <= seen.reward <= 1
        assert (seen.won is None) == (not seen.done)
        assert not seen.reward or (seen.done and not path[-1].done)
        if path[-1].done:
            assert (seen.text, seen.state, seen.won) == (
                path[-1].text,
                path[-1].state,
                path[-1].won,
            )
        path.append(seen)
    assert [env.reset(task), *(env.step(action) for action in actions)] == path


@pytest.mark.parametrize(
    "action",
    [
        "x" * 10**6,
        "<search>" * 125_000,
        "<answer>" * 125_000,
        "<search>" + "tea " * 250_000,
        f"<search>{'river ' * 160_000}</search>",
        "<search></answer>" * 60_000,
        f"<answer>{'a' * 10**6}</answer>",
        "<answer></answer>" * 60_000,
        "<SEARCH>" * 125_000,
    ],
    ids=range(9),
)
@pytest.mark.parametrize("protocol", ["search_r1", "verl_agent"])
def test_a_million_characters_are_answered(action: str, protocol: Protocol) -> None:
    suite = SearchQA(size="small", train=0, dev=0, test=9, protocol=protocol, retriever="lucene")
    env = suite.make()
    env.reset(suite.tasks("test")[1])
    seen = env.step(action)
    assert seen.text
    assert not seen.won
    env.reset(suite.tasks("test")[1])
    assert env.step("<search>river</search>").valid


def test_another_process_sees_the_same() -> None:
    code = (
        "from tutelage_worlds.search_qa import SearchQA\n"
        "s = SearchQA(retriever='lucene')\n"
        "for t in s.tasks('dev')[:8]:\n"
        "    e = s.make()\n"
        "    print(t, e.reset(t), *s.demonstrate(t), *s.plan(t), *s.thoughts(t))\n"
        "    print(*(e.step(a) for a in s.demonstrate(t)))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_skills_know_the_families() -> None:
    bank = load_bank("search_qa")
    known = {family for skill in bank.skills for family in skill.families}
    assert set(FAMILIES) < known
    assert "nq" in known
    assert wording.INSTRUCTIONS.count("<answer>") == 2
