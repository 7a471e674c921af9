"""The answer format: how a completion states a thought and exactly one action.

    <think>the apple must be cold first</think><action>go to fridge 1</action>

The thought is optional. An environment may name tags of its own, whose blocks are then actions, tags
included: `<search>Lima</search>`. A completion that does not hold exactly one action, or has the
thought in the middle of it, is invalid: the environment is given its bare text, and the turn is
counted and can be penalised.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
TAGS = ("<think>", "</think>", "<action>", "</action>")
NO_THOUGHT = "<think></think>"
LONGEST_ACTION = 10_000
"""Longest action in characters; a runaway completion is cut here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    action: str
    thought: str = ""
    valid: bool = True


def instruction(tags: Sequence[str] = ()) -> str:
    """The answer format with an example, as the last paragraph of a system message with
    instructions: what `parse` reads. `tags` are the environment's own.

    >>> instruction(("search", "answer")).partition("example: ")[2]
    '<think>what to do next, and why</think><search>the action</search>'
    """
    tags = tags or ("action",)
    inside = " or ".join(f"<{tag}> </{tag}>" for tag in tags)
    example = f"<think>what to do next, and why</think><{tags[0]}>the action</{tags[0]}>"
    return (
        f"First reason inside <think> </think>, then give exactly one action inside {inside}. "
        f"For example: {example}"
    )


def parse(text: str, tags: Sequence[str] = ()) -> Parsed:
    """Read a completion; `tags` are the names of the environment's own tags.

    >>> parse("<think>hot?</think> <action> go to fridge 1 </action>")
    Parsed(action='go to fridge 1', thought='hot?', valid=True)
    >>> parse("go to fridge 1").valid
    False
    >>> parse("<think>where?</think><search>Lima</search>", ("search", "answer"))
    Parsed(action='<search>Lima</search>', thought='where?', valid=True)
    """
    thought = THINK.search(text)
    rest = THINK.sub(NO_THOUGHT, text, count=1)
    actions = ACTION.findall(rest) or _blocks(rest, tags)
    # text around a thought is not one action
    if len(actions) == 1 and actions[0].strip() and NO_THOUGHT not in actions[0]:
        return Parsed(
            action=actions[0].strip()[:LONGEST_ACTION],
            thought=thought.group(1).strip() if thought else "",
        )
    bare = rest
    for tag in TAGS:
        bare = bare.replace(tag, " ")
    return Parsed(action=bare.strip()[:LONGEST_ACTION], valid=False)


def problem(text: str, tags: Sequence[str] = ()) -> str:
    """Why `parse` finds no action in a completion; "" where it finds one.

    >>> problem("go to fridge 1")
    'there is no <action> </action> in it'
    >>> problem("<action>look</action><action>wait</action>")
    'it has 2 actions instead of one'
    """
    if parse(text, tags).valid:
        return ""
    rest = THINK.sub(NO_THOUGHT, text, count=1)
    actions = ACTION.findall(rest) or _blocks(rest, tags)
    if not actions:
        names = " or ".join(f"<{tag}> </{tag}>" for tag in tags or ("action",))
        return f"there is no {names} in it"
    if len(actions) > 1:
        return f"it has {len(actions)} actions instead of one"
    return "its action is empty" if not actions[0].strip() else "its thought is inside the action"


def _blocks(text: str, tags: Sequence[str]) -> list[str]:
    """The blocks of an environment's own tags, in order, tags included."""
    if not tags:
        return []
    names = "|".join(map(re.escape, tags))
    return [match.group() for match in re.finditer(rf"<({names})>.*?</\1>", text, re.DOTALL)]


def write(action: str, thought: str = "") -> str:
    """A completion that `parse` reads as this action and thought.

    >>> write("look", "where am I")
    '<think>where am I</think><action>look</action>'
    """
    prefix = f"<think>{thought}</think>" if thought else ""
    return f"{prefix}<action>{action}</action>"
