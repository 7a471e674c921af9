"""The text protocol between an agent and its environment: a thought, then one action.

    <think>the apple must be cold first</think><action>go to fridge 1</action>

The thought is optional. A completion that does not hold exactly one action is invalid: the
environment is given its bare text, and the turn is counted and can be penalised.
"""

import re
from dataclasses import dataclass

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
TAGS = ("<think>", "</think>", "<action>", "</action>")
LONGEST_ACTION = 10_000
"""Characters handed to an environment at most: a runaway completion is cut here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    action: str
    thought: str = ""
    valid: bool = True


def parse(text: str) -> Parsed:
    """Read a completion.

    >>> parse("<think>hot?</think> <action> go to fridge 1 </action>")
    Parsed(action='go to fridge 1', thought='hot?', valid=True)
    >>> parse("go to fridge 1").valid
    False
    """
    thought = THINK.search(text)
    rest = THINK.sub("", text, count=1)
    actions = ACTION.findall(rest)
    if len(actions) == 1 and actions[0].strip():
        return Parsed(
            action=actions[0].strip()[:LONGEST_ACTION],
            thought=thought.group(1).strip() if thought else "",
        )
    bare = rest
    for tag in TAGS:
        bare = bare.replace(tag, " ")
    return Parsed(action=bare.strip()[:LONGEST_ACTION], valid=False)


def write(action: str, thought: str = "") -> str:
    """What `parse` reads back.

    >>> write("look", "where am I")
    '<think>where am I</think><action>look</action>'
    """
    head = f"<think>{thought}</think>" if thought else ""
    return f"{head}<action>{action}</action>"
