"""Environments that declare functions: which calls are made, and what a bad one is told."""

import pickle
from dataclasses import replace
from typing import Any

import pytest
from support.sessions import Says
from support.tool_chats import ADD, SUBMIT, Sums

from tutelage.config.schema import EnvSection
from tutelage.envs.check import check
from tutelage.envs.registry import as_suite, register, suite_of
from tutelage.envs.supervised import SupervisedSuite, Supervisor
from tutelage.envs.tool_suite import ToolSuite, call_text, listed, misfit
from tutelage.envs.wire import pack_observation, unpack_observation
from tutelage.errors import ConfigError
from tutelage.objective.view import View
from tutelage.rollout.session import Session, context_for, context_of
from tutelage.types import Observation, Task


class Short:
    """A class with only `reset` and `call`."""

    def tools(self) -> list[dict[str, Any]]:
        return [ADD]

    def reset(self, task: Task) -> str:
        return "What is 3 + 4?"

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, float, bool]:
        total = arguments["a"] + arguments["b"]
        return str(total), float(total == 7), total == 7


class Codes(Short):
    """Takes a text that looks like a number."""

    def tools(self) -> list[dict[str, Any]]:
        zip_code = {"type": "string"}
        return [{"name": "find", "parameters": {"properties": {"zip": zip_code}}}]

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, float, bool]:
        return repr(arguments["zip"]), 0.0, False


def begun(suite: object) -> Any:
    env = as_suite(suite).make()
    env.reset(Task(id="t", seed=1))
    return env


def test_calls_of_one_answer_are_made_in_their_order() -> None:
    env = begun(Sums())
    first, *_ = Sums().demonstrate(Task(id="t", seed=1))
    seen = env.step(first)
    assert seen.results == ("2", "5")
    assert (seen.text, seen.reward, seen.valid, seen.done) == ("2\n\n5", 0.5, True, False)
    # none is made after the end
    both = call_text("submit", {"result": 7}) + call_text("add", {"a": 1, "b": 1})
    seen = env.step(both)
    assert (seen.results, seen.won, seen.reward) == (("thank you",), True, 1.0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<tool_call>add(1)</tool_call>", "arguments of a call have no names"),
        ("<tool_call>{oops</tool_call>", "a call is not JSON"),
        (call_text("divide", {}), "there is no function 'divide'"),
        (call_text("add", {"a": 1}), "add needs the argument 'b'"),
        (call_text("add", {"a": 1, "b": "2"}), "the argument 'b' of add must be integer"),
        (call_text("add", {"a": 1, "b": 2, "c": 3}), "add has no argument 'c'"),
        (call_text("add", {"a": True, "b": 2}), "the argument 'a' of add must be integer"),
        ("seven", "the answer calls no function"),
        ("  ", "the answer is empty"),
    ],
)
def test_a_bad_answer_is_invalid_changes_nothing_and_is_told_why(answer: str, reason: str) -> None:
    env = begun(Sums())
    env.step(call_text("add", {"a": 1, "b": 2}))
    good = call_text("add", {"a": 5, "b": 5})
    for text in (answer, f"{good}\n{answer}") if "tool_call" in answer else (answer,):
        seen = env.step(text)
        assert not seen.valid
        assert seen.text.startswith(f"Error: {reason}")
        assert seen.text.endswith("there are add, submit.")
        assert (seen.reward, seen.done, seen.results) == (0.0, False, ())
    assert env._env.log == ["add"]


def test_a_class_with_reset_and_call_is_a_suite() -> None:
    suite = as_suite(Short)
    assert isinstance(suite, ToolSuite)
    env = suite.make()
    assert env.reset(suite.tasks("train")[0]).text == "What is 3 + 4?"
    seen = env.step('{"name": "add", "arguments": {"a": 3, "b": 4}}')
    assert (seen.text, seen.won, seen.reward) == ("7", True, 1.0)


def test_a_format_without_types_is_read_by_the_schema() -> None:
    env = begun(Codes)
    block = "<tool_call><function=find><parameter=zip>01234</parameter></function></tool_call>"
    assert env.step(block).text == "'01234'"
    block = block.replace("01234", "1234")
    assert env.step(block).text == "'1234'"
    assert not env.step(call_text("find", {"zip": 1234})).valid


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ([], "at least one"),
        ("add", "at least one"),
        ([{"name": "two words"}], r"tools\[0\] is no function"),
        ([ADD, ADD], "'add' twice"),
        ([{"name": "f", "parameters": ["a"]}], "parameters of f are no JSON schema"),
        ([{"name": "f", "parameters": {"properties": {"a": {1, 2}}}}], "JSON cannot write"),
    ],
)
def test_what_is_no_list_of_functions_is_refused(tools: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        listed(tools, where="env.suite: Mine")


def test_schemas_may_have_the_wrapper_of_the_api() -> None:
    plain = listed([ADD, SUBMIT], where="x")
    assert listed(plain, where="x") == plain
    assert misfit("f", {"additionalProperties": True}, {"x": 1}) == ""
    choice = {"properties": {"x": {"enum": ["a", "b"]}}}
    assert misfit("f", choice, {"x": "c"}) == 'the argument \'x\' of f must be one of "a", "b"'


def test_the_checks_of_an_environment_pass() -> None:
    suite = as_suite(Sums())
    problems = [p for found in check(suite, ["train"], tasks=2) for p in found.problems]
    assert problems == []
    assert isinstance(pickle.loads(pickle.dumps(suite)), ToolSuite)
    assert as_suite(suite) is suite


def test_results_travel_between_processes() -> None:
    seen = Observation(text="a\n\nb", results=("a", "b"))
    assert unpack_observation(pack_observation(seen)) == seen
    assert unpack_observation(pack_observation(replace(seen, results=()))).results == ()


def test_a_worker_plays_by_calls() -> None:
    """A user's suite with functions, in a process of its own, as a run plays it."""
    section = EnvSection(suite="support.tool_chats:Sums")
    supervisor = Supervisor(section, "train")
    try:
        suite = SupervisedSuite(suite_of(section), supervisor)
        assert suite.takes_calls
        assert [t["function"]["name"] for t in suite.tools()] == ["add", "submit"]
        assert suite.instructions() == "Add with add, then submit."
        task, env = suite.tasks("train")[1], suite.make()
        env.reset(task)
        assert env.step(Sums().demonstrate(task)[0]).results == ("2", "5")
    finally:
        supervisor.rest()


def test_a_suite_without_functions_cannot_be_played_by_calls() -> None:
    with pytest.raises(ConfigError, match=r'context.instructions = "tools", but Doors declares no'):
        suite_of(EnvSection(suite="doors"), calls=True)
    name = register(Sums)
    assert isinstance(suite_of(EnvSection(suite=name), calls=True), ToolSuite)


class Shelves:
    """Tasks with functions of their own, of which an answer's calls are made together."""

    checks_arguments = False

    def tools(self) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        return [{"name": name, "parameters": schema} for name in ("put", "take")]

    def tools_of(self, task: Task) -> list[dict[str, Any]]:
        return self.tools()[: 1 + task.seed]

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"{split}/{seed}", seed=seed) for seed in range(2)]

    def make(self) -> "Shelves":
        return Shelves()

    def reset(self, task: Task) -> str:
        return "Put or take."

    def calls(self, calls: list[tuple[str, dict[str, Any]]]) -> Observation:
        results = tuple(f"{name} {given}" for name, given in calls)
        return Observation(text="\n".join(results), results=results, done=True, won=True)


def test_functions_of_a_task_stand_in_its_prompt_alone() -> None:
    suite = as_suite(Shelves)
    one, two = suite.tasks("train")
    context = context_for(suite)
    assert context.names == ("put", "take")
    assert context_of(context, suite, one).names == ("put",)
    assert context_of(context, suite, two).names == ("put", "take")
    copy = pickle.loads(pickle.dumps(suite))
    assert context_of(context, copy, one).names == ("put",)
    session = Session(suite, {"self": Says([])}, context=context)
    view = View(policy="self")
    assert [session.prompter(view, task).context.names for task in (one, two)] == [
        ("put",),
        ("put", "take"),
    ]
    env = suite.make()
    env.reset(one)
    assert "there are put." in env.step('<tool_call>{"name": "steal"}</tool_call>').text


def test_calls_of_an_answer_are_made_together_where_the_environment_wants_that() -> None:
    suite = as_suite(Shelves)
    env = suite.make()
    env.reset(suite.tasks("train")[1])
    seen = env.step("[put(n='x'), take(m=2)]")  # neither fits its schema
    assert seen.results == ("put {'n': 'x'}", "take {'m': 2}")
