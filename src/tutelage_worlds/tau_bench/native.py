"""tau_bench by calls in a model's own format: an answer calls tools, or is said to the customer."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any, Final, get_args, get_origin

from tutelage.envs.base import Render
from tutelage.envs.tool_suite import Spoken, call_text
from tutelage.types import Observation
from tutelage_worlds.tau_bench import calls, wording
from tutelage_worlds.tau_bench.env import TOOL_SAYS
from tutelage_worlds.tau_bench.render import compact
from tutelage_worlds.tau_bench.tools import RESPOND, Call, Tool

KINDS: Final[Mapping[object, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    list: "array",
}


def schema(tool: Tool) -> dict[str, Any]:
    """A tool as a function of a chat template."""
    parameters = list(signature(tool.run).parameters.values())[1:]  # the first is the database
    properties = {each.name: _kind(each.annotation) for each in parameters}
    required = [each.name for each in parameters if each.default is each.empty]
    return {
        "name": tool.name,
        "description": tool.about,
        "parameters": {"type": "object", "properties": properties, "required": required},
    }


def _kind(annotation: object) -> dict[str, Any]:
    """The schema of an argument.

    >>> _kind(list[str])
    {'type': 'array', 'items': {'type': 'string'}}
    """
    origin, inner = get_origin(annotation) or annotation, get_args(annotation)
    kind = KINDS.get(origin)
    if kind == "array" and inner:
        return {"type": kind, "items": _kind(inner[0])}
    return {"type": kind} if kind else {}


class TauBenchCalls(Spoken):
    """What a tool answers comes as a result, and what the customer says as a message."""

    def tools(self) -> list[dict[str, Any]]:
        tools = self.suite.tools_of_agent()
        return [schema(tools[name]) for name in sorted(tools)]

    def instructions(self) -> str:
        return wording.rules(self.suite.world())

    def action(self, name: str, arguments: Mapping[str, Any]) -> str:
        return calls.write(name, **arguments)

    def answer_of(self, action: str) -> str:
        call = calls.read(action)
        assert isinstance(call, Call), action
        if call.name == RESPOND:
            return str(call.kwargs["content"])
        return call_text(call.name, call.kwargs)

    def reply(self, content: str) -> str:
        return content

    def result(self, seen: Observation) -> Observation:
        return replace(seen, text=seen.text.removeprefix(TOOL_SAYS) or "(nothing)")

    def renders(self) -> Mapping[str, Render]:
        return {"compact": _compact}


def _compact(seen: Observation) -> str:
    if not seen.results:
        return compact(seen)
    return (
        compact(replace(seen, text=TOOL_SAYS + seen.text)).removeprefix("tool ").removeprefix(": ")
    )
