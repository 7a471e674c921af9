"""The answer format that the instructions ask for is the one that is parsed, for every suite."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from shutil import which

import pytest
from support.sessions import ALONE, Says

from tutelage.config.schema import ContextSection
from tutelage.envs.adapters.own import Own
from tutelage.envs.base import Demonstrates, Instructs, Suite
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.prompts import answer_format
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.runs import assemble
from tutelage.types import Task, Turn
from tutelage_worlds.bfcl import BFCL
from tutelage_worlds.household import Household
from tutelage_worlds.scienceworld import ScienceWorld
from tutelage_worlds.search_qa import SearchQA
from tutelage_worlds.tau_bench import TauBench
from tutelage_worlds.textworldexpress import TextWorldExpress
from tutelage_worlds.travelplanner import TravelPlanner
from tutelage_worlds.webshop import WebShop

LACKING = find_spec("scienceworld") is None or which("java") is None
WITHOUT_GAMES = find_spec("textworld_express") is None or which("java") is None
WITHOUT_BFCL = find_spec("bfcl_eval") is None
PLAYED: dict[str, tuple[Suite, str]] = {
    "doors": (Doors(), "train"),
    "household": (Household(size="small"), "train"),
    "search_qa": (SearchQA(size="small", train=4, retriever="lucene"), "train"),
    "search_qa as verl-agent": (
        SearchQA(size="small", train=4, retriever="lucene", protocol="verl_agent"),
        "train",
    ),
    "tau_bench": (TauBench(size="small"), "train"),
    "travelplanner": (TravelPlanner(size="small"), "train"),
    "travelplanner with tools": (TravelPlanner(size="small", mode="two-stage"), "train"),
    "webshop": (WebShop(products=60), "test"),
    "scienceworld": (ScienceWorld(families="short"), "train"),
    "textworldexpress": (TextWorldExpress(families="coin"), "train"),
    "bfcl": (BFCL(docs="short"), "train"),
}


def named(system: str) -> list[str]:
    """The tags of the last line of a system message, the thought's left out."""
    return re.findall(r"<(\w+)> </\1>", system.splitlines()[-1].replace("<think> </think>", ""))


def formatted(action: str, tags: list[str]) -> str:
    """A turn written as the system message says."""
    if tags == ["action"]:
        return f"<think>\nWhat now?\n</think>\n<action>{action}</action>"
    assert any(action.startswith(f"<{tag}>") and action.endswith(f"</{tag}>") for tag in tags)
    return f"<think>\nWhat now?\n</think>\n{action}"


@pytest.mark.parametrize("name", PLAYED)
def test_a_turn_written_as_the_prompt_says_is_valid_and_acts(name: str) -> None:
    if name == "scienceworld" and LACKING:
        pytest.skip("needs Java and pip install 'tutelage[scienceworld]'")
    if name == "textworldexpress" and WITHOUT_GAMES:
        pytest.skip("needs Java and pip install 'tutelage[textworldexpress]'")
    if name == "bfcl" and WITHOUT_BFCL:
        pytest.skip("needs pip install --no-deps bfcl-eval")
    suite, split = PLAYED[name]
    assert isinstance(suite, Demonstrates)
    context = assemble.context_of(ContextSection(), suite)
    assert isinstance(suite, Instructs)
    assert context.system().startswith(suite.instructions())
    tags = named(context.system())
    assert tags == (["search", "answer"] if name.startswith("search_qa") else ["action"])
    task = suite.tasks(split)[0]
    env = suite.make()
    seen = env.reset(task)
    for action in suite.demonstrate(task):
        parsed = answer_format.parse(formatted(action, tags), context.tags)
        assert (parsed.valid, parsed.action, parsed.thought) == (True, action, "What now?")
        seen = env.step(parsed.action)
        assert seen.valid, action
    assert seen.won
    env.close()


# -- in a rollout


def turns_of(suite: Suite, task: Task, texts: Sequence[str]) -> tuple[Turn, ...]:
    session = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies={"self": Says(texts)},
        context=assemble.context_of(ContextSection(), suite),
        limits=Limits(max_turns=len(texts), max_new_tokens=200, invalid_penalty=0.5),
    )
    (episode,) = play(session, [task], ALONE, seed=0)
    return episode.turns


def test_a_search_without_action_tags_costs_nothing() -> None:
    suite, split = PLAYED["search_qa"]
    task = suite.tasks(split)[0]
    asked = "<think>first</think><search> Lima </search>"
    both = "<search> Lima </search><answer> no </answer>"
    first, second, third = turns_of(suite, task, [asked, "Lima?", both])
    assert (first.valid, first.penalty, first.action) == (True, 0.0, "<search> Lima </search>")
    assert "<information>" in second.observation.text
    assert (second.valid, second.penalty) == (False, 0.5)
    assert (third.valid, third.penalty) == (False, 0.5)


def test_searches_between_action_tags_stay_what_they_were() -> None:
    text = (
        "<think>a <search>b</search></think><action><search>c</search><search>d</search></action>"
    )
    parsed = answer_format.parse(text, ("search", "answer"))
    assert (parsed.valid, parsed.action) == (True, "<search>c</search><search>d</search>")


def test_tags_of_a_class_of_ones_own() -> None:
    class Room:
        def reset(self, task: Task) -> str:
            return "A door."

        def step(self, action: str) -> tuple[str, float, bool]:
            return "It moves.", float(action == "<push>door</push>"), True

        def action_tags(self) -> list[str]:
            return ["push"]

    suite = Own(Room)
    assert assemble.context_of(ContextSection(), suite).system() == answer_format.instruction(
        ("push",)
    )
    (turn,) = turns_of(suite, suite.tasks("train")[0], ["<think>!</think><push>door</push>"])
    assert (turn.valid, turn.reward) == (True, 1.0)


def test_prompts_without_instructions_say_nothing_of_the_format() -> None:
    for suite, _ in PLAYED.values():
        assert assemble.context_of(ContextSection(instructions=False), suite).system() == ""
