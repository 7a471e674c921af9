"""Calls of functions as models write them in text, and as the OpenAI API has them."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
"""A call as models of the Qwen and Hermes families write it; the end may be left out."""
MOST = 64
"""Calls of one answer that are read."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Read:
    """An answer: its text without calls, its calls, and what is wrong with those that are not."""

    content: str
    calls: tuple[FunctionCall, ...] = ()
    problem: str = ""


def read(text: str, names: Collection[str]) -> Read:
    """Read an answer that may call the named functions: blocks of `<tool_call>`, or an answer that
    is one JSON object (or a list of them) and nothing else.

    >>> read('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', ["add"]).calls
    (FunctionCall(name='add', arguments='{"a": 1}'),)
    >>> read("<tool_call>add(1)</tool_call>", ["add"]).problem
    'a call is not JSON'
    """
    if not names:
        return Read(text)
    blocks = BLOCK.findall(text)[:MOST]
    if not blocks:
        bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
        if not bare.startswith(("{", "[")):
            return Read(text)
        found = _calls(bare, names)
        return Read(text) if isinstance(found, str) else Read("", found)
    calls: list[FunctionCall] = []
    for block in blocks:
        found = _calls(block, names)
        if isinstance(found, str):
            return Read(text, problem=found)
        calls += found
    return Read(BLOCK.sub("", text).strip(), tuple(calls))


def _calls(text: str, names: Collection[str]) -> tuple[FunctionCall, ...] | str:
    """The calls of a JSON text, or why there are none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "a call is not JSON"
    calls = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            return "a call names no function"
        if each["name"] not in names:
            return f"there is no function {each['name'][:100]!r}"
        arguments = each.get("arguments", each.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _object(arguments)
        if not isinstance(arguments, dict):
            return "the arguments of a call are not an object"
        calls.append(FunctionCall(each["name"], json.dumps(arguments, ensure_ascii=False)))
    return tuple(calls) or "a call names no function"


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def written(calls: Collection[tuple[str, str]]) -> str:
    """Calls (name, arguments as JSON) as text, for a conversation that another model began."""
    texts = []
    for name, arguments in calls:
        value = _object(arguments)
        body = json.dumps({"name": name, "arguments": arguments if value is None else value})
        texts.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(texts)


def names_of(tools: str) -> list[str]:
    """The functions that a call's tools name."""
    listed: list[Mapping[str, Any]] = json.loads(tools) if tools else []
    return [str(each["function"]["name"]) for each in listed]
