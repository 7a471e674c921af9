"""The text protocol between an agent and its environment: a thought, then one action.

    <think>the apple must be cold first</think><action>go to fridge 1</action>

The thought is optional. An environment may name tags of its own, whose blocks are then actions as
they stand: `<search>Lima</search>`. A completion that does not hold exactly one action, or has the
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
"""Characters handed to an environment at most: a runaway completion is cut here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    action: str
    thought: str = ""
    valid: bool = True


def told(own: Sequence[str] = ()) -> str:
    """How a completion is to be written, for a system message: what `parse` reads.

    >>> told(("search", "answer")).partition("then ")[2]
    'give exactly one action inside <search> </search> or <answer> </answer>.'
    """
    inside = " or ".join(f"<{tag}> </{tag}>" for tag in own or ("action",))
    return f"First reason inside <think> </think>, then give exactly one action inside {inside}."


def parse(text: str, own: Sequence[str] = ()) -> Parsed:
    """Read a completion; `own` are the names of the environment's own tags.

    >>> parse("<think>hot?</think> <action> go to fridge 1 </action>")
    Parsed(action='go to fridge 1', thought='hot?', valid=True)
    >>> parse("go to fridge 1").valid
    False
    >>> parse("<think>where?</think><search>Lima</search>", ("search", "answer"))
    Parsed(action='<search>Lima</search>', thought='where?', valid=True)
    """
    thought = THINK.search(text)
    rest = THINK.sub(NO_THOUGHT, text, count=1)
    actions = ACTION.findall(rest) or _blocks(rest, own)
    # what stands around a thought is not one action
    if len(actions) == 1 and actions[0].strip() and NO_THOUGHT not in actions[0]:
        return Parsed(
            action=actions[0].strip()[:LONGEST_ACTION],
            thought=thought.group(1).strip() if thought else "",
        )
    bare = rest
    for tag in TAGS:
        bare = bare.replace(tag, " ")
    return Parsed(action=bare.strip()[:LONGEST_ACTION], valid=False)


def _blocks(text: str, own: Sequence[str]) -> list[str]:
    """The blocks of an environment's own tags that lie one after the other, tags included."""
    if not own:
        return []
    names = "|".join(map(re.escape, own))
    return [found.group() for found in re.finditer(rf"<({names})>.*?</\1>", text, re.DOTALL)]


def write(action: str, thought: str = "") -> str:
    """What `parse` reads back.

    >>> write("look", "where am I")
    '<think>where am I</think><action>look</action>'
    """
    head = f"<think>{thought}</think>" if thought else ""
    return f"{head}<action>{action}</action>"
