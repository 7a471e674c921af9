"""Compact renderings of the simulator's texts, for small models."""

import re
from typing import Final

from tutelage.types import Observation

_RULES: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"your (?:first )?task is to ", "task : "),
        (r"you are in (?:the )?([^.\n]*)\.", r"in \1 :"),
        (r"(?:in one part of the room|in another part of the room) you see", ","),
        (r"there is also", ","),
        (r"you also see", ","),
        (r"\bthrough (?:an?|the) open [\w -]*door, to the (\w+) you see (?:the )?", r"\1 "),
        (r"\bto the (north|south|east|west) you see (?:the )?", r"\1 "),
        (r", that has nothing on it|, that is empty", ""),
        (r" that (?:is|has) ", " "),
        (r"\binventory ?(?:\(maximum capacity is (\d+) items\))?:", "have :"),
        (r"your inventory is currently empty\.", "nothing"),
        (r"unknown action: i'm not sure what you mean\.", "what"),
        (r"\b(?:an?|the)(?= )", ""),
        (r"([,.;:?!'])", r" \1 "),
        (r"(?: [,.])+(?= [,.])", ""),
        (r": ,", ":"),
    )
)


def compact(observation: Observation) -> str:
    """An observation in few words.

    >>> compact(Observation(text="You are in the attic. In one part of the room you see a box."))
    'in attic : box .'
    """
    lines = []
    for line in observation.text.lower().split("\n"):
        for pattern, words in _RULES:
            line = " ".join(pattern.sub(words, line).split())
        if line:
            lines.append(line)
    return "\n".join(lines)
