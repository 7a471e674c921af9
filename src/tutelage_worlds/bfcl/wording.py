"""What the agent reads besides the conversation: rules, and functions in words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from tutelage_worlds.bfcl import package
from tutelage_worlds.bfcl.scenario import Scenario

Docs = Literal["full", "short", "none"]
USER: Final = "User: "
"""What a message of the user begins with, where actions are texts."""
DONE: Final = "Done."
MISSING_FUNCTION: Final = "I have no function for that."
MISSING_PARAMETER: Final = "Something is missing: please be more exact."
"""What the expert says to the user."""
RULES: Final = """\
You work for a user by calling functions. The user writes a message; call functions until what they ask \
for is done, then say so without a call, and they write their next message. You see what each call \
returns. Do what is asked and nothing else. If no function can do it, or the user has not said \
something that a function must be told, call nothing and say what is missing."""
FORMAT: Final = """\
A turn is a list of calls, each with the names of its arguments: [cd(folder='docs'), ls(a=True)]. Text \
that is no such list is said to the user."""


def listed(names: Sequence[str] | frozenset[str], apis: Sequence[str]) -> list[Mapping[str, Any]]:
    """Those functions of APIs that are named, in the order of the documentation."""
    return [each for api in apis for each in package.functions()[api] if each["name"] in names]


def described(functions: Sequence[Mapping[str, Any]], docs: Docs) -> str:
    """Functions in words: their documentation as JSON, one line of names and types, or names."""
    if docs == "full":
        return "\n".join(json.dumps(each) for each in functions)
    if docs == "none":
        return ", ".join(each["name"] for each in functions)
    return "\n".join(_signature(each) for each in functions)


def _signature(function: Mapping[str, Any]) -> str:
    """A function in one line; what may be left out has a question mark.

    >>> number = {"type": "number"}
    >>> schema = {"properties": {"a": number, "b": number}, "required": ["a"]}
    >>> _signature({"name": "add", "parameters": schema})
    'add(a: number, b?: number)'
    """
    schema = function["parameters"]
    required = schema.get("required", ())
    parts = [
        f"{name}{'' if name in required else '?'}: {about.get('type', 'any')}"
        for name, about in schema["properties"].items()
    ]
    return f"{function['name']}({', '.join(parts)})"


def opening(scenario: Scenario, offered: frozenset[str], docs: Docs) -> str:
    """The functions of a task, for its first observation; empty without documentation."""
    if docs == "none":
        return ""
    return f"Functions:\n{described(listed(offered, scenario.apis), docs)}"


def added(scenario: Scenario, names: Sequence[str], docs: Docs) -> str:
    """Functions that are added to those of a task."""
    return f"More functions:\n{described(listed(names, scenario.apis), docs)}"
