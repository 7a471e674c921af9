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
    thought, rest = _parted(text)
    actions = _actions(rest) or _blocks(rest, tags)
    # text around a thought is not one action
    if len(actions) == 1 and actions[0].strip() and NO_THOUGHT not in actions[0]:
        return Parsed(
            action=actions[0].strip()[:LONGEST_ACTION],
            thought=thought.strip(),
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
    _, rest = _parted(text)
    actions = _actions(rest) or _blocks(rest, tags)
    if not actions:
        names = " or ".join(f"<{tag}> </{tag}>" for tag in tags or ("action",))
        return f"there is no {names} in it"
    if len(actions) > 1:
        return f"it has {len(actions)} actions instead of one"
    return "its action is empty" if not actions[0].strip() else "its thought is inside the action"


# A lazy pattern such as <think>(.*?)</think> looks at the rest of the text once for every opening
# tag that nothing closes, which is quadratic: a completion that repeats one would take seconds.


def _parted(text: str) -> tuple[str, str]:
    """The first thought, and the text with that thought emptied."""
    inside = text.find("<think>") + len("<think>")
    end = text.find("</think>", inside)
    if inside < len("<think>") or end < 0:
        return "", text
    before, after = text[: inside - len("<think>")], text[end + len("</think>") :]
    return text[inside:end], f"{before}{NO_THOUGHT}{after}"


def _actions(text: str) -> list[str]:
    """What stands inside of each <action> </action>, in order."""
    found, at = [], 0
    while (start := text.find("<action>", at)) >= 0:
        inside = start + len("<action>")
        end = text.find("</action>", inside)
        if end < 0:
            break
        found.append(text[inside:end])
        at = end + len("</action>")
    return found


def _blocks(text: str, tags: Sequence[str]) -> list[str]:
    """The blocks of an environment's own tags, in order, tags included."""
    if not tags:
        return []
    opening = re.compile(f"<({'|'.join(map(re.escape, tags))})>")
    found, at, unclosed = [], 0, set[str]()
    while match := opening.search(text, at):
        name, at = match.group(1), match.end()
        closing = f"</{name}>"
        end = -1 if name in unclosed else text.find(closing, match.end())
        if end < 0:
            unclosed.add(name)
        else:
            at = end + len(closing)
            found.append(text[match.start() : at])
    return found


def write(action: str, thought: str = "") -> str:
    """A completion that `parse` reads as this action and thought.

    >>> write("look", "where am I")
    '<think>where am I</think><action>look</action>'
    """
    prefix = f"<think>{thought}</think>" if thought else ""
    return f"{prefix}<action>{action}</action>"
