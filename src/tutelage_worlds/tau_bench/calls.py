"""Parse an agent's text into a tool call: JSON as tau-bench's text agents write it.

    {"name": "get_order_details", "arguments": {"order_id": "#W2611340"}}
    {"name": "respond", "arguments": {"content": "Your order is on its way."}}

A turn that is not JSON is sent to the customer, as there.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from tutelage_worlds.json_text import whole
from tutelage_worlds.tau_bench.tools import RESPOND, Call

DEEPEST: Final = 32
"""Arguments nested more deeply are refused: no tool takes any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misread:
    """An action that is no call, and what to tell the agent about it."""

    reason: str


def read(action: str) -> Call | Misread:
    """The call in an action; words that are no JSON object are a reply to the customer.

    >>> read("Good morning.")
    Call(name='respond', kwargs={'content': 'Good morning.'})
    """
    text = action.strip()
    if not text:
        return Misread(reason="nothing was said and no tool was called")
    try:
        value = whole(json.loads(text), text)
    except RecursionError:
        return Misread(reason="the JSON is nested too deeply")
    except ValueError:
        return Call(name=RESPOND, kwargs={"content": text})
    if not isinstance(value, dict):
        return Call(name=RESPOND, kwargs={"content": text})
    return _call(value)


def _call(value: dict[str, Any]) -> Call | Misread:
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return Misread(reason='a call needs a "name" and an object of "arguments"')
    if _depth(arguments) > DEEPEST:
        return Misread(reason="the arguments are nested too deeply")
    if name == RESPOND and not isinstance(arguments.get("content"), str):
        return Misread(reason=f'{RESPOND} needs its words as "content"')
    return Call(name=name, kwargs=arguments)


def _depth(value: object) -> int:
    """How deeply a JSON value is nested, without recursion."""
    depth, layer = 0, [value]
    while layer and depth <= DEEPEST:
        depth += 1
        layer = [
            part
            for outer in layer
            if isinstance(outer, dict | list)
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def broken(action: str, call: Call) -> bool:
    """Whether an action that became a reply as a whole looks like a call that failed to be JSON."""
    only_text = call.kwargs.get("content") == action.strip()
    return only_text and action.lstrip().startswith(("{", "[", "```"))


def write(name: str, /, **arguments: object) -> str:
    """A call as `read` reads it, with blanks around every value, so that a tokenizer of words sees
    an id as the same word here and where it was shown.

    >>> write("get_order_details", order_id="#W1")
    '{ "name" : "get_order_details" , "arguments" : { "order_id" : "#W1" } }'
    """
    return _spaced({"name": name, "arguments": arguments}, 0)


def _spaced(value: object, depth: int) -> str:
    """`depth` is that of the value in the call, whose arguments have 1. What is nested more deeply
    than is read is left out, and what is left is still too deep to be read."""
    if isinstance(value, dict | list | tuple) and depth > DEEPEST:
        return "[ ]"
    if isinstance(value, dict):
        inner = " , ".join(f"{json.dumps(k)} : {_spaced(v, depth + 1)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{ }"
    if isinstance(value, list | tuple):
        inner = " , ".join(_spaced(part, depth + 1) for part in value)
        return f"[ {inner} ]" if inner else "[ ]"
    return json.dumps(value)
