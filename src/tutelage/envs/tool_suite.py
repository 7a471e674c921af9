"""Suites whose environments declare functions, which a model calls in its own format.

    class Sums:
        def tools(self):
            number = {"type": "integer"}
            schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
            return [{"name": "add", "description": "a + b", "parameters": schema}]

        def reset(self, task):
            return "What is 3 + 4? Call add."

        def call(self, name, arguments):
            total = arguments["a"] + arguments["b"]
            return str(total), float(total == 7), True

The schemas go into the model's chat template, and an answer is read as its family writes calls
(`envs.agents.tools`). Calls of one answer are made in their order, after all of them were found to
fit their schemas: if one does not, none is made, and the next observation says why. An answer
without a call goes to the environment's `step`; if it has none, or that returns None, the answer is
refused. An environment with a method `calls(calls)` is given all (name, arguments) of an answer at
once instead. A suite whose tasks have functions of their own also has `tools_of(task)`, and one with
`checks_arguments = False` is given calls whose arguments do not fit.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from tutelage.envs import observations
from tutelage.envs.agents.tools import FunctionCall, read, written
from tutelage.envs.base import CallsByTask, Env, Suite, pass_on, suite_name
from tutelage.errors import ConfigError, EnvError, did_you_mean
from tutelage.types import Observation, Task

NAME: Final = re.compile(r"[A-Za-z_][\w.-]{0,127}")
"""What every family's format can write as a function's name."""
NOT_PASSED_ON: Final = frozenset({"action_tags", "tools", "tools_of"})
"""Optional methods that a suite with functions answers itself: its actions are calls."""
TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
"""JSON's types by their names in a schema."""


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """A call as an action, for demonstrations and plans: it is written in the format of whichever
    model imitates it.

    >>> call_text("add", {"a": 1})
    '<tool_call>\\n{"name": "add", "arguments": {"a": 1}}\\n</tool_call>'
    """
    return written([(name, json.dumps(arguments))])


def listed(tools: object, *, where: str) -> list[dict[str, Any]]:
    """Functions as the OpenAI API lists them, from schemas with or without that wrapper.

    Raises ConfigError for what is no list of functions with names of their own.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes) or not tools:
        raise ConfigError(f"{where}: tools must return a list of functions, and at least one")
    found: list[dict[str, Any]] = []
    for k, tool in enumerate(tools):
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if inner is None or not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(
                f'{where}: tools[{k}] is no function; write {{"name": "add", "description": "...", '
                '"parameters": {...}} with a JSON schema as parameters, and a name of letters, '
                "digits and . _ -"
            )
        if any(name == each["function"]["name"] for each in found):
            raise ConfigError(f"{where}: tools lists the function {name!r} twice; rename one")
        parameters = inner.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping) or not isinstance(
            parameters.get("properties", {}), Mapping
        ):
            raise ConfigError(f"{where}: the parameters of {name} are no JSON schema of an object")
        function = {"name": name, "description": str(inner.get("description") or "")}
        found.append({"type": "function", "function": {**function, "parameters": parameters}})
    try:
        plain: list[dict[str, Any]] = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: tools holds what JSON cannot write ({error})") from None
    return plain


def misfit(name: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Why arguments do not fit a function's schema, in its first level; "" where they do.

    >>> schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    >>> misfit("add", schema, {}), misfit("add", schema, {"a": "1"}), misfit("add", schema, {"a": 1})
    ("add needs the argument 'a'", "the argument 'a' of add must be integer", '')
    """
    properties = schema.get("properties", {})
    for required in schema.get("required", ()):
        if required not in arguments:
            return f"{name} needs the argument {required!r}"
    for key, value in arguments.items():
        if key not in properties:
            if schema.get("additionalProperties"):
                continue
            return f"{name} has no argument {key[:100]!r}{did_you_mean(key, properties)}"
        about = properties[key] if isinstance(properties[key], Mapping) else {}
        kinds = about.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if kinds and not any(_is(value, kind) for kind in kinds):
            return f"the argument {key!r} of {name} must be {' or '.join(map(str, kinds))}"
        choices = about.get("enum")
        if isinstance(choices, list) and value not in choices:
            some = ", ".join(json.dumps(each, ensure_ascii=False) for each in choices[:20])
            return f"the argument {key!r} of {name} must be one of {some}"
    return ""


def _is(value: object, kind: object) -> bool:
    if isinstance(value, bool):  # which Python takes for an int
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES.get(str(kind), (object,)))


class ToolSuite:
    """A suite with a method `tools`, as one whose environments read answers with calls."""

    takes_calls = True

    def __init__(self, suite: Any) -> None:
        self.suite: Any = suite
        self.class_name = suite_name(suite)
        pass_on(suite, self, without=NOT_PASSED_ON)
        if isinstance(suite, CallsByTask):
            self.tools_of = self._tools_of

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        return ToolSuite, (self.suite,)

    def __getattr__(self, name: str) -> Any:
        if name == "suite":
            raise AttributeError(name)  # of a copy that is being made
        return getattr(self.suite, name)

    @cached_property
    def _tools(self) -> list[dict[str, Any]]:
        return listed(self.suite.tools(), where=f"env.suite: {self.class_name}")

    def tools(self) -> list[dict[str, Any]]:
        return self._tools

    def _tools_of(self, task: Task) -> list[dict[str, Any]]:
        return listed(self.suite.tools_of(task), where=f"env.suite: {self.class_name}")

    def tasks(self, split: str) -> Sequence[Task]:
        found: Sequence[Task] = self.suite.tasks(split)
        return found

    def make(self) -> Env:
        of_task = self._tools_of if isinstance(self.suite, CallsByTask) else None
        return ToolEnv(
            self.suite.make(),
            self._tools,
            name=self.class_name,
            of_task=of_task,
            checks=getattr(self.suite, "checks_arguments", True),
        )


class ToolEnv:
    """An environment whose actions are answers of a model, calls among them."""

    def __init__(
        self,
        env: Any,
        tools: Sequence[Mapping[str, Any]],
        *,
        name: str,
        of_task: Callable[[Task], Sequence[Mapping[str, Any]]] | None = None,
        checks: bool = True,
    ) -> None:
        self._env, self._name, self._of_task, self._checks = env, name, of_task, checks
        self._schemas = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
        self._listed = list(self._schemas)  # what a refused answer is told that there is
        self._last = Observation(text="")

    def reset(self, task: Task) -> Observation:
        if self._of_task is not None:
            self._listed = [tool["function"]["name"] for tool in self._of_task(task)]
        self._last = as_observation(self._env.reset(task), "reset")
        return self._last

    def step(self, action: str) -> Observation:
        found = read(action, self._schemas)
        if found.problem:
            return self._refused(found.problem)
        calls: list[tuple[str, dict[str, Any]]] = []
        for call in found.calls:
            arguments = self._arguments(call, blocks="<parameter=" in action)
            wrong = misfit(call.name, self._schemas[call.name], arguments) if self._checks else ""
            if wrong:
                return self._refused(wrong)
            calls.append((call.name, arguments))
        self._last = self._called(calls) if calls else self._text(found.content)
        return self._last

    def close(self) -> None:
        if hasattr(self._env, "close"):
            self._env.close()

    def _arguments(self, call: FunctionCall, *, blocks: bool) -> dict[str, Any]:
        """A format that writes arguments as bare text does not tell 1 from "1": the schema does."""
        arguments: dict[str, Any] = json.loads(call.arguments)
        properties = self._schemas[call.name].get("properties", {})
        for key, value in arguments.items():
            about = properties.get(key)
            text = isinstance(about, Mapping) and about.get("type") == "string"
            if blocks and text and not isinstance(value, str):
                arguments[key] = json.dumps(value, ensure_ascii=False)
        return arguments

    def _called(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> Observation:
        """Make calls in their order, until the episode is over."""
        if callable(getattr(self._env, "calls", None)):
            return as_observation(self._env.calls(calls), "calls")
        results, reward, valid, seen = [], 0.0, True, self._last
        for name, arguments in calls:
            seen = as_observation(self._env.call(name, arguments), f"call({name!r})")
            results.append(seen.text)
            reward, valid = reward + seen.reward, valid and seen.valid
            if seen.done:
                break
        text = "\n\n".join(results)
        return replace(seen, text=text, results=tuple(results), reward=reward, valid=valid)

    def _text(self, content: str) -> Observation:
        """An answer without a call."""
        if not content.strip():
            return self._refused("the answer is empty")
        seen = self._env.step(content) if hasattr(self._env, "step") else None
        if seen is None:
            return self._refused("the answer calls no function")
        return as_observation(seen, "step")

    def _refused(self, reason: str) -> Observation:
        """What an answer is told that cannot be followed; the environment stays as it was."""
        text = f"Error: {reason}. No function was called; there are {', '.join(self._listed)}."
        return replace(
            self._last, text=text, reward=0.0, valid=False, results=(), paid=(), counts=()
        )


class Spoken(ABC):
    """The tasks of a suite whose actions are texts, with functions that stand for them: what
    `with_tools` of such a suite returns."""

    def __init__(self, suite: Any) -> None:
        self.suite: Any = suite
        self.class_name = suite_name(suite)
        pass_on(suite, self, without=NOT_PASSED_ON.union(dir(type(self))))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        return type(self), (self.suite,)

    @abstractmethod
    def tools(self) -> list[dict[str, Any]]:
        """The functions (see `listed`)."""

    @abstractmethod
    def instructions(self) -> str:
        """The rules, without functions and without a format for actions."""

    @abstractmethod
    def action(self, name: str, arguments: Mapping[str, Any]) -> str:
        """A call as the suite's environment takes it."""

    @abstractmethod
    def answer_of(self, action: str) -> str:
        """An expert's action as an answer: a call (see `call_text`), or words."""

    def reply(self, content: str) -> str:
        """An answer without a call as an action; empty where every answer must call a function."""
        return ""

    def result(self, seen: Observation) -> Observation:
        """What a call is answered with."""
        return seen

    def tasks(self, split: str) -> Sequence[Task]:
        found: Sequence[Task] = self.suite.tasks(split)
        return found

    def make(self) -> "SpokenEnv":
        return SpokenEnv(self, self.suite.make())

    def demonstrate(self, task: Task) -> Sequence[str]:
        return [self.answer_of(action) for action in self.suite.demonstrate(task)]

    def plan(self, task: Task) -> Sequence[str]:
        return [self.answer_of(action) for action in self.suite.plan(task)]


class SpokenEnv:
    """An environment whose actions are texts, behind functions."""

    def __init__(self, suite: Spoken, env: Any) -> None:
        self.suite, self.env = suite, env

    def reset(self, task: Task) -> Observation:
        seen: Observation = self.env.reset(task)
        return seen

    def call(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        return self.suite.result(self.env.step(self.suite.action(name, arguments)))

    def step(self, action: str) -> Observation | None:
        text = self.suite.reply(action)
        return self.env.step(text) if text else None

    def close(self) -> None:
        self.env.close()


def as_observation(value: object, what: str) -> Observation:
    """What a method of an environment returned: an observation, a text, or (text, reward, done).

    Raises EnvError for anything else.
    """
    if isinstance(value, Observation):
        return value
    if isinstance(value, str):
        return Observation(text=value)
    if not isinstance(value, tuple) or len(value) != 3:
        got = f"{len(value)} values" if isinstance(value, tuple) else type(value).__name__
        raise EnvError(
            f"{what} returned {got}; it must return a text, (text, reward, done), or an Observation"
        )
    begin = f"{what} returned (text, reward, done) whose"
    try:
        text = observations.text(value[0], f"{begin} text")
        reward = observations.number(value[1], f"{begin} reward")
        done = observations.flag(value[2], f"{begin} done")
    except (TypeError, ValueError) as error:
        raise EnvError(str(error)) from error
    return Observation(text=text, reward=reward, done=done, won=reward > 0 if done else None)


def with_calls(suite: Suite) -> Suite:
    """A suite whose answers are calls; itself if they are anyway.

    Raises ConfigError for one that declares no functions.
    """
    if getattr(suite, "takes_calls", False):
        return suite
    if not hasattr(suite, "with_tools"):
        raise ConfigError(
            f'context.instructions = "tools", but {suite_name(suite)} declares no functions; give '
            "it a method `tools` that lists them (docs/tools.md), or set context.instructions = true"
        )
    return ToolSuite(suite.with_tools())
