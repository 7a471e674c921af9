"""Privileged information: kinds, banks and their retrieval, hints that the student writes, what
fits, and evaluations and training with it."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fake_policy import Table, chat
from support.sessions import ALONE, mixed, pair, session
from torch.testing import assert_close

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.skill_grpo import skill_grpo
from tutelage.envs.base import Answers, Describes
from tutelage.envs.doors import Doors
from tutelage.errors import ConfigError, RunError
from tutelage.evaluation.evaluate import evaluate, panel
from tutelage.hints import Hints, check, hint, kinds_in
from tutelage.hints.bandit import Bandit
from tutelage.hints.bank import Bank, Skill, built_in, load
from tutelage.hints.retrieval import holds, nearest, retrieve
from tutelage.hints.self_written import ASKED, advice, request
from tutelage.objective import View
from tutelage.prompts.context import HINT_OPEN
from tutelage.rollout import hint_preparation
from tutelage.rollout.hint_preparation import Hinter, carried, prove, rehearsal, sample, write
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Session
from tutelage.training.train_step import Update, train_step
from tutelage.types import Task
from tutelage_worlds.household import Household
from tutelage_worlds.household.engine import Game
from tutelage_worlds.household.scene import Family
from tutelage_worlds.household.suite import scene_of

HOUSE = Household(train=60, seen=6, unseen=6, size="small")


@dataclass(frozen=True)
class HintedDoors(Doors):
    """Doors with everything that a hint can be made of; nothing is known of what starts with c."""

    def plan(self, task: Task) -> Sequence[str]:
        path = task.data["path"]
        return [] if path.startswith("c") else [f"press {self.demonstrate(task)[0]}", "go on"]

    def answer(self, task: Task) -> str:
        return "" if task.data["path"].startswith("c") else " 42 "

    def describe(self, task: Task) -> str:
        return f"open the doors {task.data['path']}"


def bank(**texts: str) -> Bank:
    """A bank of skills called for by their names."""
    general = texts.pop("general", "be brief")
    skills = [Skill(name=n, text=t, families=(n,), keywords=(n,)) for n, t in texts.items()]
    return Bank(name="own", general=general, skills=tuple(skills))


def task(family: str = "", name: str = "t") -> Task:
    return Task(id=name, family=family, data={"path": "ab"})


# -- kinds


def test_kinds_join_in_their_order() -> None:
    suite, hints = HintedDoors(2), Hints(bank=bank(a="wait", b="run"), retrieval="full")
    some = suite.tasks("train")[1]
    plan, skills = "1. press 3\n2. go on", "be brief\n\nwait\n\nrun"
    assert hint(suite, some, "plan", hints) == plan
    assert hint(suite, some, "actions", hints) == "1. press\n2. go"
    assert hint(suite, some, "answer", hints) == "The answer: 42"
    assert hint(suite, some, "plan+skills", hints) == f"{plan}\n\n{skills}"
    assert hint(suite, some, "skills+plan", hints) == f"{skills}\n\n{plan}"
    assert hint(suite, some, "", hints) == ""
    assert kinds_in("plan+skills:ucb") == {"plan", "skills"}
    assert kinds_in("") == set()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "plam",
            "there is no hint 'plam'; the kinds are plan, actions, trace, answer, skills, written",
        ),
        ("plan+", "there is no hint ''"),
        ("skills:best", "skills:best does not exist; only skills are retrieved"),
        ("plan:ucb", "plan:ucb does not exist"),
        ("plan+skills+plan", "names a kind twice"),
        ("skills:ucb+skills:full", "names a kind twice"),
    ],
)
def test_unknown_hints_are_reported(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        hint(HintedDoors(2), HintedDoors(2).tasks("train")[0], name, Hints(bank=bank(a="x")))


@pytest.mark.parametrize("kind", ["plan", "actions", "answer", "written"])
def test_a_task_of_which_nothing_is_known_has_the_plain_prompt(kind: str) -> None:
    suite = HintedDoors(2)
    on = session(suite)
    write(on, suite.tasks("train"), seed=0)
    for some in suite.tasks("train"):
        seen = suite.make().reset(some)
        output = on.prompter(View(hint=kind), some)
        plain = on.prompter(View(), some)
        known = not some.data["path"].startswith("c")
        assert bool(output.hint) == known
        assert (output.piece([seen], [], False) != plain.piece([seen], [], False)) == known


def test_a_trace_is_what_the_expert_does_who_must_search() -> None:
    for some in HOUSE.tasks("unseen")[:4]:
        output = hint(HOUSE, some, "trace").splitlines()
        assert output == [f"{k}. {a}" for k, a in enumerate(HOUSE.demonstrate(some), 1)]
        assert len(output) >= len(HOUSE.plan(some))


def test_what_a_suite_can_never_give_is_refused() -> None:
    class Bare:
        def tasks(self, split: str) -> list[Task]:
            return Doors(1).tasks(split)

        def make(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            return Doors(1).make()

    some, with_bank = task("a"), Hints(bank=bank(a="x"))
    for kind, text in {
        "plan": "knows its solutions; Bare has no",
        "actions": "knows its solutions; Bare has no",
        "trace": "needs an environment with an expert; Bare has no `demonstrate` method",
        "written": "knows its solutions; Bare has no",
        "answer": "reference answers; Bare has no `answer` method",
        "skills:keyword": "chosen by the task's text, but Bare has no `describe` method",
        "skills:similarity": "chosen by the task's text, but Bare has no `describe` method",
    }.items():
        for refused in (
            lambda k=kind: check(Bare(), k, with_bank),
            lambda k=kind: hint(Bare(), some, k, with_bank),
        ):
            with pytest.raises(ConfigError, match=re.escape(text)):
                refused()
    with pytest.raises(ConfigError, match=r"needs a bank of skills.*set hints\.bank"):
        check(HintedDoors(2), "plan+skills", Hints())
    check(Bare(), "skills", with_bank)
    with pytest.raises(ConfigError, match=r"no hint has been written for task t yet"):
        hint(HintedDoors(2), some, "written")


def test_suites_say_what_they_know() -> None:
    assert isinstance(HintedDoors(2), Answers)
    assert isinstance(HOUSE, Describes)
    assert not isinstance(HOUSE, Answers)
    for some in HOUSE.tasks("train")[:6]:
        text = HOUSE.describe(some)
        assert f"Your task is to: {text}." in HOUSE.make().reset(some).text


def test_what_is_kept_is_what_would_be_made() -> None:
    suite, hints = HintedDoors(3), Hints(bank=bank(a="x", b="y", c="z"))
    for _ in range(2):
        for some in suite.tasks("train"):
            for kind in ("plan", "answer+actions", "skills:random"):
                fresh = Hints(bank=hints.bank)
                assert hints.text(suite, some, kind) == fresh.text(suite, some, kind)
    # what may change is made anew
    some = suite.tasks("train")[0]
    for text in ("one", "two"):
        hints.written[some.id] = text
        assert hints.text(suite, some, "written") == text
        hints.bandit.now[some.id] = {"one": "a", "two": "b"}[text]
        assert hints.text(suite, some, "skills:ucb").endswith({"one": "x", "two": "y"}[text])


# -- banks


FORM = re.compile(r"\d+\. [A-Z][^:\n]{2,60}: [A-Z\"][^\n]+[.!]")


@pytest.mark.parametrize("name", built_in())
def test_a_built_in_bank_has_one_form(name: str) -> None:
    skills = load(name)
    assert skills.general
    assert len(skills.skills) >= 3
    for text in (skills.general, *(skill.text for skill in skills.skills)):
        title, intro, *items = text.splitlines()
        assert title.startswith("Skills for ")
        assert re.fullmatch(r"[A-Z].*\.", intro)
        assert len(items) >= 4
        for number, item in enumerate(items, 1):
            assert FORM.fullmatch(item), item
            assert item.startswith(f"{number}. ")
        assert len(text.split()) < 300
    families = [family for skill in skills.skills for family in skill.families]
    assert len(set(families)) == len(families)
    assert all(skill.keywords for skill in skills.skills)


def test_each_environment_has_its_bank() -> None:
    assert built_in() == [
        "bfcl",
        "household",
        "scienceworld",
        "search_qa",
        "tau_bench",
        "textworldexpress",
        "travelplanner",
        "webshop",
    ]
    assert sum(len(skill.families) for skill in load("scienceworld").skills) == 30
    assert {f for s in load("household").skills for f in s.families} == {f.value for f in Family}


def test_what_the_household_skills_say_is_so() -> None:
    """The rules behind their advice, played."""
    things = {"clean": Family.CLEAN, "heat": Family.HEAT, "cool": Family.COOL}
    for some in HOUSE.tasks("train"):
        scene, name = scene_of(some), load("household")
        game = Game(scene)
        for command in HOUSE.plan(some)[:-1]:
            assert not game.won
            game.step(command)
        assert not game.won, "a task ends with its last command, not before"
        for thing in scene.things:  # what lies in the fridge is not cold yet
            assert not {"iscool", "ishot", "isclean"} & set(thing.traits)
        if scene.goal.family in things.values():
            assert any(scene.goal.family in skill.families for skill in name.skills)
        if scene.goal.family is Family.LIGHT:
            assert HOUSE.plan(some)[-1].startswith("use desklamp")
    cool = next(t for t in HOUSE.tasks("train") if scene_of(t).goal.family is Family.COOL)
    plan = list(HOUSE.plan(cool))
    fridge = next(c.split(" with ")[1] for c in plan if c.startswith("cool "))
    thing = next(c.split()[1:3] for c in plan if c.startswith("cool "))
    game = Game(scene_of(cool))
    for command in plan[: plan.index(f"cool {' '.join(thing)} with {fridge}")]:
        game.step(command)
    text = game.step(f"close {fridge}")
    assert text in ("Nothing happens.", f"You close the {fridge}.")
    assert "You cool" in game.step(f"cool {' '.join(thing)} with {fridge}")
    assert "cold" in game.step(f"examine {' '.join(thing)}")
    # putting it in does not cool, and what lies inside cannot be cooled
    game.reset()
    for command in plan[: plan.index(f"cool {' '.join(thing)} with {fridge}")]:
        game.step(command)
    game.step(f"open {fridge}")
    assert "You move" in game.step(f"move {' '.join(thing)} to {fridge}")
    assert game.step(f"cool {' '.join(thing)} with {fridge}") == "Nothing happens."


def test_a_bank_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "slow.txt").write_text("take your time\n")
    (tmp_path / "fast.txt").write_text("hurry")
    skills = load(str(tmp_path))
    assert skills.general == ""
    assert [(s.name, s.text, s.families, s.keywords) for s in skills.skills] == [
        ("fast", "hurry", ("fast",), ("fast",)),
        ("slow", "take your time", ("slow",), ("slow",)),
    ]
    (tmp_path / "general.txt").write_text(" always \n")
    (tmp_path / "bank.toml").write_text('[slow]\nfamilies = ["x", "y"]\n')
    skills = load(str(tmp_path))
    assert skills.general == "always"
    # named files come first, in their order
    assert [(s.name, s.families, s.keywords) for s in skills.skills] == [
        ("slow", ("x", "y"), ("slow",)),
        ("fast", ("fast",), ("fast",)),
    ]
    assert hint(Doors(1), task("y"), "skills", Hints(bank=skills)) == "always\n\ntake your time"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no skills"),
        ({"general.txt": "x"}, "holds no skills"),
        ({"a.txt": " \n"}, "is empty"),
        ({"a.txt": "x", "bank.toml": "[b]"}, "names b, but there is no b.txt"),
        ({"a.txt": "x", "bank.toml": "[a"}, "is not valid TOML"),
        ({"a.txt": "x", "bank.toml": "a = 1"}, "takes families and keywords"),
        ({"a.txt": "x", "bank.toml": "[a]\nfamily = ['a']"}, "takes families and keywords"),
        ({"a.txt": "x", "bank.toml": "[a]\nkeywords = 'a'"}, "takes families and keywords"),
        ({"a.txt": "x", "bank.toml": "[a]\nkeywords = ['']"}, "not empty"),
    ],
)
def test_a_bank_that_cannot_be_used_is_named(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_bank_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"no bank of skills 'houshold'; did you mean household"):
        load("houshold")


# -- retrieval


def test_families_and_keywords_find_the_same_household_file() -> None:
    household = load("household")
    for some in HOUSE.tasks("train"):
        by_family = retrieve(household, "family", some, "", Bandit())
        by_word = retrieve(household, "keyword", some, HOUSE.describe(some), Bandit())
        assert len(by_family) == 1
        assert by_family == by_word
        assert some.family in by_family[0].families


def test_keywords_are_sought_in_the_tasks_text_alone() -> None:
    """A pick task whose room lists what can be cleaned, heated and cooled stays a pick task."""
    some = next(t for t in HOUSE.tasks("train") if t.family == Family.PICK.value)
    seen = HOUSE.make().reset(some)
    assert any(command.startswith("go to") for command in seen.actions)
    text = hint(HOUSE, some, "skills:keyword", Hints(bank=load("household")))
    assert "Skills for putting things somewhere" in text
    assert text.count("Skills for ") == 2


def test_keywords_are_whole_words_and_all_parts_of_one() -> None:
    assert holds("Heat some egg", "heat")
    assert not holds("find the wheat", "heat")
    assert holds("which of A or B", "which & or")
    assert not holds("which order", "which & or")
    skills = bank(order="one", which="two")
    assert retrieve(skills, "keyword", task(), "which or", Bandit()) == [skills.skills[1]]
    assert retrieve(skills, "keyword", task(), "the order of which", Bandit()) == [skills.skills[0]]
    assert retrieve(skills, "keyword", task(), "reorder", Bandit()) == []


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Which film came first, Blind Shaft or The Mask?", "compare"),
        ("Were Scott and Ed both of one nationality?", "compare"),
        ("Who is the mother of the director of the film Polish-Russian War?", "multi_hop"),
        ("What is Henry Feilden's occupation?", "entity_attribute"),
        ("When was the first car built?", "direct"),
    ],
)
def test_questions_find_their_kind(question: str, name: str) -> None:
    assert [s.name for s in retrieve(load("search_qa"), "keyword", task(), question, Bandit())] == [
        name
    ]


def test_nothing_that_matches_is_an_error_or_a_choice() -> None:
    suite, some = HintedDoors(2), replace(HintedDoors(2).tasks("train")[0], family="other")
    hints = Hints(bank=bank(a="x", b="y"))
    for way in ("family", "keyword", "similarity"):
        with pytest.raises(ConfigError, match=rf"no skill of the bank own .* by {way}"):
            hint(suite, some, f"skills:{way}", hints)
        free = replace(hints, allow_general=True, cached={})
        assert hint(suite, some, f"skills:{way}", free) == "be brief"
    for way in ("random", "full", "ucb"):
        assert hint(suite, some, f"skills:{way}", hints).startswith("be brief\n\n")


def test_random_is_drawn_by_task() -> None:
    skills = bank(a="x", b="y", c="z")
    names = [f"task {k}" for k in range(300)]
    drawn = [retrieve(skills, "random", task(name=n), "", Bandit())[0].name for n in names]
    again = [retrieve(skills, "random", task("fam", n), "q", Bandit())[0].name for n in names]
    assert drawn == again
    assert all(70 < count < 130 for count in Counter(drawn).values())
    assert "".join(drawn[:8]) == PINNED


PINNED = "acccccac"
"""The same in every process and on every machine."""


def similar_by_hand(texts: Sequence[str], query: str) -> list[float]:
    files = [re.findall(r"[a-z0-9]+", text.lower()) for text in texts]
    asked_for = re.findall(r"[a-z0-9]+", query.lower())
    words = sorted({w for f in files for w in f})

    def vector(bag: list[str]) -> list[float]:
        return [bag.count(w) * math.log(len(files) / sum(w in f for f in files)) for w in words]

    out = []
    for f in files:
        a, b = vector(asked_for), vector(f)
        top = sum(x * y for x, y in zip(a, b, strict=True))
        below = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        out.append(top / below if below else 0.0)
    return out


WORDS = st.lists(st.sampled_from(["cup", "mug", "hot", "clean", "the", "a"]), max_size=6).map(
    " ".join
)


@given(texts=st.lists(WORDS.filter(bool), min_size=1, max_size=4), query=WORDS)
def test_similarity_as_loops(texts: list[str], query: str) -> None:
    skills = bank(**{f"s{k}": text for k, text in enumerate(texts)})
    values = similar_by_hand(texts, query)
    found = nearest(skills, query)
    if max(values) <= 1e-12:
        assert found == []
    else:
        assert values[skills.skills.index(found[0])] == pytest.approx(max(values))
    assert len(found) <= 1


def test_similar_words_find_household_files() -> None:
    household, found = load("household"), {}
    for name, text in (
        ("clean", "clean and wash some mug"),
        ("heat", "heat with a microwave"),
        ("look", "look at the lamp"),
        ("cool", "a cold fridge"),
    ):
        found[name] = nearest(household, text)[0].name
    assert found == {name: name for name in found}


# -- upper confidence bounds


class ByHand:
    """The rule as it is written, for one family."""

    def __init__(self, skills: Sequence[str]) -> None:
        self.skills = list(skills)
        self.chosen = dict.fromkeys(skills, 0)
        self.rewards: dict[str, list[float]] = {name: [] for name in skills}

    def choose(self) -> str:
        for name in self.skills:
            if self.chosen[name] == 0:
                self.chosen[name] += 1
                return name
        n = sum(self.chosen.values())
        best, value = "", -math.inf
        for name in self.skills:
            got = self.rewards[name]
            mean = sum(got) / len(got) if got else 0.0
            bound = mean + math.sqrt(2) * math.sqrt(math.log(n) / self.chosen[name])
            if bound > value:
                best, value = name, bound
        self.chosen[best] += 1
        return best


@given(data=st.data(), count=st.integers(1, 4))
def test_ucb_as_loops(data: st.DataObject, count: int) -> None:
    skills = [f"s{k}" for k in range(count)]
    bandit, hand = Bandit(), {f: ByHand(skills) for f in ("x", "y")}
    for step in range(data.draw(st.integers(1, 6))):
        families = data.draw(st.lists(st.sampled_from(["x", "y"]), max_size=5))
        tasks = [task(f, f"{step}/{k}") for k, f in enumerate(families)]
        bandit.begin(tasks, skills)
        assert bandit.now == {t.id: hand[t.family].choose() for t in tasks}
        paid: dict[str, tuple[str, float]] = {}
        for t in tasks:
            assert bandit.skill_of(t, skills) == bandit.now[t.id]
            reward = data.draw(st.none() | st.sampled_from([0.0, 0.3, 1.0]))
            if reward is not None:  # else its episodes broke
                hand[t.family].rewards[bandit.now[t.id]].append(reward)
                paid[t.id] = (t.family, reward)
        bandit.settle(paid)
        assert bandit.now == {}
        # through a checkpoint's JSON
        read = Bandit()
        read.restore(json.loads(json.dumps(bandit.state())))
        assert read == bandit
        bandit = read


def test_ucb_finds_the_skill_that_helps() -> None:
    skills, bandit = ["a", "b", "c"], Bandit()
    for step in range(200):
        some = task(name=str(step))
        bandit.begin([some], skills)
        bandit.settle({some.id: ("", float(bandit.now[some.id] == "b"))})
    arms = bandit.arms[""]
    assert arms["b"].chosen > 140
    assert min(arm.chosen for arm in arms.values()) > 5
    assert bandit.skill_of(task(), skills) == "b"
    assert bandit.arms[""]["b"].chosen + arms["a"].chosen + arms["c"].chosen == 200


def test_ucb_counts_a_task_of_a_step_once() -> None:
    bandit = Bandit()
    bandit.begin([task(name="t")], ["a", "b"])
    bandit.begin([task(name="t"), task(name="u")], ["a", "b"])  # a further round of the step
    assert bandit.now == {"t": "a", "u": "b"}
    assert {n: arm.chosen for n, arm in bandit.arms[""].items()} == {"a": 1, "b": 1}
    # before anything was earned, the first is shown where nothing was chosen
    assert bandit.skill_of(task(name="other"), ["a", "b"]) == "a"
    bandit.settle({"t": ("", 0.2), "u": ("", 0.7), "stranger": ("", 9.0)})
    assert bandit.skill_of(task(name="other"), ["a", "b"]) == "b"
    assert bandit.skill_of(task("else", "other"), ["a", "b"]) == "a"


def test_a_checkpoint_that_says_nothing_of_skills() -> None:
    for state in ({"x": {"a": {"chosen": 1}}}, {"x": 3}, {"x": {"a": {"chosen": "?"}}}):
        with pytest.raises(RunError, match="skill statistics of a checkpoint cannot be read"):
            Bandit().restore(state)  # type: ignore[arg-type]


# -- hints that the student writes


def test_a_request_holds_the_plan_and_the_task() -> None:
    text = request(["go to fridge 1", "look"], " find it \n")
    assert text == f"{ASKED}\n\nThe task: find it\nThe actions:\n1. go to fridge 1\n2. look"
    assert "The task" not in request(["look"])


def words_in(text: str) -> int:
    """A token for a word, or for a character of a script without blanks."""
    return sum(len(word) if ord(word[0]) > 255 else 1 for word in text.split())


@pytest.mark.parametrize(
    ("text", "ended", "most", "want"),
    [
        ("Go there. Then look.", True, 99, "Go there. Then look."),
        ("<think>so. hm</think> Go\n there. ", True, 99, "Go there."),
        ("<think>so. hm", False, 99, ""),
        ("Go there. <think>so. hm", False, 99, "Go there."),
        ("<action>Go there</action>", True, 99, "Go there"),
        ("Go there. Then lo", False, 99, "Go there."),
        ("Go to 1.5 and the", False, 99, "Go to 1.5 and the"),
        ("Go there. Then look.", True, 3, "Go there. Then"),
        ("no end at all", False, 2, "no end"),
        ("  ", True, 5, ""),
        ("x", True, 0, ""),
        ("一二三四", True, 3, "一二三"),
    ],
)
def test_how_an_answer_becomes_a_hint(text: str, ended: bool, most: int, want: str) -> None:
    assert advice(text, ended=ended, tokens=words_in, most=most) == want


def test_the_student_writes_once_for_each_task() -> None:
    suite, policy = HintedDoors(2), Table(knows=9.0)
    on = session(suite, policies={"self": policy})
    tasks = suite.tasks("train")
    lines = write(on, [*tasks[:3], tasks[0], tasks[8]], seed=0)
    assert [line["task"] for line in lines] == [t.id for t in (*tasks[:3], tasks[8])]
    assert len(policy.asked) == 3  # of the last one nothing is known
    assert lines[-1] == {"task": tasks[8].id, "text": "", "tokens": 0}
    for line, asked in zip(lines, policy.asked, strict=False):
        text = chat().tokenizer.decode(list(asked.prompt))
        assert "The actions" in text
        assert asked.max_new == on.hints.written_tokens
        assert asked.temperature == 0
        # the tags of a turn are no advice
        assert line["text"] in ("1", "3", "4")
        assert line["tokens"] == 4
    assert sorted(policy.released) == sorted(t.id for t in tasks[:3])
    assert policy.refreshed == 1
    assert on.hints.written == {str(line["task"]): line["text"] for line in lines}
    assert write(on, tasks[:3], seed=0) == []
    assert on.clock.seconds["generate"] > 0


def test_what_is_written_depends_on_seed_task_and_weights_alone() -> None:
    suite = HintedDoors(4)
    tasks = [t for t in suite.tasks("train") if not t.data["path"].startswith("c")][:40]

    def written(seed: int, heat: float, order: int = 1) -> dict[str, str]:
        on = session(suite, policies={"self": Table(width=3, seed=order)})
        on.hints.written_temperature = heat
        write(on, tasks[::order], seed=seed)
        return on.hints.written

    assert written(0, 1.0) == written(0, 1.0, -1)
    assert written(0, 1.0) != written(1, 1.0)
    assert written(0, 0.0) == written(1, 0.0)
    assert len(set(written(0, 1.0).values())) > 1


def test_a_written_hint_is_bounded_and_a_request_must_fit() -> None:
    suite = HintedDoors(2)
    on = session(suite)
    on.hints.written_tokens = 2
    (line,) = write(on, suite.tasks("train")[:1], seed=0)
    assert line["tokens"] == 2
    assert len(chat().content(str(line["text"]))) <= 2
    tight = session(suite, policies={"self": Table(context=40)})
    with pytest.raises(ConfigError, match=r"cannot write a hint for task doors/aa.*context of 40"):
        write(tight, suite.tasks("train")[:1], seed=0)


def hinted_stage(suite: Doors, **more: object) -> tuple[Session, Hinter, list[object]]:
    on, noted = session(suite, policies=pair(), **more), list[object]()
    on.hints.bank = bank(a="x", b="y")
    hinter = Hinter(session=on, seed=0, note=noted.append)
    on = replace(on, ready=hinter)
    return on, hinter, noted


def test_hints_are_written_before_tasks_are_played() -> None:
    suite = HintedDoors(2)
    on, hinter, noted = hinted_stage(suite)
    tasks = suite.tasks("train")[:4]
    algorithm = mixed(1.0, hint="written+skills:ucb")
    episodes = play(on, tasks, algorithm, seed=0, step=3)
    assert set(on.hints.written) == {t.id for t in tasks} == set(on.hints.bandit.now)
    assert [line["task"] for line in noted] == [t.id for t in tasks]  # type: ignore[index]
    for e in episodes:
        output = on.prompter(algorithm.views["teacher"], e.task).hint
        skill = {"a": "x", "b": "y"}[on.hints.bandit.now[e.task.id]]
        assert output == f"{on.hints.written[e.task.id]}\n\nbe brief\n\n{skill}"
    line = hinter.report(algorithm, [e.task for e in episodes])
    tokens = [len(chat().content(on.prompter(algorithm.views["teacher"], t).hint)) for t in tasks]
    assert line["hints"] == {"teacher": {"mean": sum(tokens) / 4, "max": max(tokens), "empty": 0.0}}
    total = sum(x["tokens"] for x in noted)  # type: ignore[index]
    assert line["written"] == {"hints": 4, "tokens": total, "empty": 0}
    assert line["skills"] == {"a": 2, "b": 2}
    hinter.settle(episodes)
    earned = on.hints.bandit.arms[""]
    for name in "ab":
        paid = [e.total_reward for k, e in enumerate(episodes) if "ab"[k % 2] == name]
        assert earned[name].total == pytest.approx(sum(paid))
        assert (earned[name].chosen, earned[name].rewarded) == (2, 2)
    # nothing is left to report, and nothing is made twice
    assert hinter.report(algorithm, [])["written"] == {"hints": 0, "tokens": 0, "empty": 0}
    play(on, tasks, algorithm, seed=0, step=4)
    assert len(noted) == 4


def test_a_skill_earns_what_the_environment_paid_its_tasks_episodes_on_average() -> None:
    suite = HintedDoors(2)
    on, hinter, _ = hinted_stage(suite, invalid_penalty=0.5)
    algorithm = replace(mixed(1.0, hint="skills:ucb"), penalties={"always": lambda e: 7.0})
    tasks = suite.tasks("train")[:1]
    episodes = play(on, tasks, algorithm, seed=0, step=0, group_size=3)
    hinter.settle(episodes)
    paid = sum(turn.reward for e in episodes for turn in e.turns) / 3
    assert on.hints.bandit.arms[""]["a"].total == pytest.approx(paid)
    assert on.hints.bandit.arms[""]["a"].rewarded == 1


def test_an_evaluation_teaches_the_bandit_nothing() -> None:
    suite = HintedDoors(2)
    on, _, _ = hinted_stage(suite)
    tested = panel(suite, "seen", 4)
    evaluate(on, tested, hint="skills:ucb", seed=0, temperature=0.0)
    assert on.hints.bandit.state() == {}


def test_an_evaluation_with_a_hint_is_the_policy_with_the_hint() -> None:
    suite = HintedDoors(2)
    policy = Table(knows=1.0)
    on = session(suite, policies={"self": policy})
    tested = panel(suite, "seen", 6)
    plain = evaluate(on, tested, seed=0, temperature=1.0)
    first = len(policy.asked)
    output = evaluate(on, tested, hint="plan", seed=0, temperature=1.0)
    head = chat().content(HINT_OPEN)

    def holds_it(prompts: Sequence[Sequence[int]]) -> list[bool]:
        return [str(list(head))[1:-1] in str(list(p)) for p in prompts]

    assert not any(holds_it([r.prompt for r in policy.asked[:first]]))
    assert sum(holds_it([r.prompt for r in policy.asked[first:]])) == 2 * 6
    seeds = [r.seed for r in policy.asked]
    assert sorted(seeds[:first]) == sorted(seeds[first:])
    assert plain.won == output.won  # a table cannot read
    assert plain.line(3, "student")["hint"] == ""
    assert output.line(3, "student with plan")["hint"] == "plan"


def test_hinted_views_carry_what_is_counted() -> None:
    suite = HintedDoors(2)
    on = session(suite, policies=pair())
    tasks = suite.tasks("train")
    views = {"plain": View(), "hinted": View(policy="teacher", hint="plan")}
    counts_of = carried(on, views, [*tasks, tasks[0]])
    counts = [len(chat().content(hint(suite, t, "plan"))) for t in tasks]
    assert counts_of == {
        "hinted": {"mean": sum(counts) / 9, "max": max(counts), "empty": counts.count(0)}
    }
    assert counts.count(0) == 3
    assert carried(on, views, []) == {"hinted": {"mean": 0.0, "max": 0.0, "empty": 0.0}}


# -- before a run


def test_a_sample_of_tasks_is_always_the_same() -> None:
    tasks = Household(train=5000, size="small").tasks("train")
    chosen = sample(tasks)
    assert chosen == sample(tasks)
    assert len({t.id for t in chosen}) == hint_preparation.SAMPLE
    assert len({t.family for t in chosen}) == 6
    assert sample(tasks[:5]) == list(tasks[:5])


def longest(on: Session, view: View, tasks: Sequence[Task]) -> int:
    lengths = []
    for some in tasks:
        seen = on.suite.make().reset(some)
        lengths.append(len(on.prompter(view, some).piece([seen], [], False)))
    return max(lengths)


@pytest.mark.parametrize("kind", ["plan", "skills:full", "skills:ucb", "written", "plan+answer"])
def test_what_does_not_fit_is_reported_before_playing(kind: str) -> None:
    suite = HintedDoors(3)
    tasks, view = suite.tasks("train"), View(hint=kind)

    def on(context: int) -> Session:
        opened = session(suite, policies={"self": Table(context=context)}, max_new_tokens=7)
        opened.hints.bank = bank(a="x", b="y " * 50)
        return opened

    wide = on(4000)
    if kind == "skills:ucb":  # any of them may be chosen
        wide.hints.bandit.now = {t.id: "b" for t in tasks}
    if kind == "written":
        wide.hints.written = {t.id: "-" * bool(suite.plan(t)) for t in tasks}
    need = longest(wide, view, tasks) + 7
    need += wide.hints.written_tokens if kind == "written" else 0
    prove(on(need), {"wise": view}, tasks)
    with pytest.raises(ConfigError, match=rf"with its privileged text .*exceeds.*{need - 1};"):
        prove(on(need - 1), {"wise": view}, tasks)
    prove(on(need - 1), {"plain": View()}, tasks)


def test_a_reference_that_is_made_later_is_proved_too() -> None:
    suite = HintedDoors(2)
    views = {"reference": View(policy="reference", hint="plan")}
    prove(session(suite), views, suite.tasks("train"))
    with pytest.raises(ConfigError, match="reference's first prompt"):
        prove(session(suite, policies={"self": Table(context=20)}), views, suite.tasks("train"))


def test_a_hint_that_says_nothing_at_all_is_refused() -> None:
    suite = HintedDoors(2)
    known = suite.tasks("train")
    unknown = [t for t in known if t.data["path"].startswith("c")]
    for kind in ("plan", "answer", "written"):
        prove(session(suite), {"wise": View(hint=kind)}, known)
        with pytest.raises(ConfigError, match=rf"'{kind}' of wise is empty for all 3 tasks"):
            prove(session(suite), {"wise": View(hint=kind)}, unknown)


def test_a_rehearsal_leaves_no_trace() -> None:
    suite = HintedDoors(2)
    on, _, noted = hinted_stage(suite)
    some = suite.tasks("train")[0]
    trial = rehearsal(on, some, ["written"], seed=0)
    assert trial.prompter(View(hint="written"), some).hint
    play(trial, [some], mixed(1.0, hint="written"), seed=0)
    assert on.hints.written == {}
    assert noted == []
    assert rehearsal(on, some, ["plan"], seed=0).hints.written == {}


# -- Skill-GRPO


def gradient(algorithm_of: object, suite: Doors) -> tuple[torch.Tensor, dict[str, float]]:
    torch.manual_seed(0)
    policies = {"self": Table(knows=0.5), "reference": Table(knows=0.2)}
    on = session(suite, policies=dict(policies))
    algorithm = algorithm_of(kl=0.1, entropy=0.01)  # type: ignore[operator]
    episodes = play(on, suite.tasks("train"), algorithm, seed=0, group_size=3)
    before = policies["self"].logits.detach().clone()
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=1.0)
    report = train_step(
        algorithm,
        episodes,
        policies,
        optimizer,
        on.prompter,
        Update(grad_clip=1e9),
        step=0,
        seed=0,
        clock=Clock(),
    )
    assert {t.actor for e in episodes for t in e.turns} == {
        "student" if algorithm_of is grpo else "skilled"
    }
    for episode in episodes:  # who acted is who is trained: ratios are 1 at first
        (actor,) = {t.actor for t in episode.turns}
        prompts = on.prompter(algorithm.all_views()[actor], episode.task).samples(episode)
        assert tuple(prompts[0].prompt) == episode.turns[0].prompt
    return policies["self"].logits.detach() - before, dict(report.losses)


def test_skill_grpo_is_grpo_under_another_prompt() -> None:
    """For a policy that does not read its system message, the same losses and gradient."""
    plain, losses = gradient(grpo, HintedDoors(2))
    skilled, others = gradient(lambda **more: skill_grpo(hint="plan", **more), HintedDoors(2))
    assert losses == pytest.approx(others)
    assert_close(plain, skilled)
    assert float(plain.abs().sum()) > 0


def test_all_of_skill_grpo_reads_the_skills() -> None:
    algorithm = skill_grpo(kl=0.1, entropy=0.1)
    assert algorithm.trained() == {"skilled"}
    assert {name: view.hint for name, view in algorithm.views.items()} == {
        "skilled": "skills",
        "reference": "skills",
    }
    assert [algorithm.actors["skilled"](k) for k in (0, 1000)] == [1.0, 1.0]
    assert set(skill_grpo().views) == {"skilled"}
    with pytest.raises(ValueError, match="plain GRPO"):
        skill_grpo(hint="")


def test_actors_without_a_hint_are_shown_nothing() -> None:
    suite = HintedDoors(2)
    policy = Table()
    on = session(suite, policies={"self": policy})
    on = replace(on, ready=Hinter(session=on, seed=0))
    play(on, suite.tasks("train"), ALONE, seed=0)
    assert on.hints.written == {}
    head = str(list(chat().content(HINT_OPEN)))[1:-1]
    assert not any(head in str(list(r.prompt)) for r in policy.asked)
