"""Compact renderings of the simulator's texts, for small models."""

import re
from typing import Final

from tutelage.types import Observation

_RULES: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"your task is to ", "task : "),
        (
            r"this (?:room|outside location) is called the ([^.]*)\. (?:in it|here) you see:",
            r"\1 :",
        ),
        (r"you also see:", "doors :"),
        (r"(?<=\n)\s*a door to the ([^()\n]*) \(that is (open|closed)\)", r"\n\1 \2"),
        (r"(?<=\n)\s*the agent\n", ""),
        (r"(?<=\n)\s*a substance called air\n", ""),
        (r"in your inventory, you see:", "have :"),
        (r"a substance called ", ""),
        (r"\. the ([^.\n]*) door is (closed|open)\.", r" \2 ."),
        (r"\. (?:in|on) the [^.:\n]* (?:is|you see): nothing\.", ""),
        (r"\. (?:in|on) the [^.:\n]* (?:is|you see):", " with"),
        (r" \(containing nothing\)", ""),
        (r"\(containing ", "( "),
        (r", which is (?:turned )?", " "),
        (r", currently reading a temperature of (-?\d+) degrees celsius", r" \1"),
        (r"measures a temperature of (-?\d+) degrees celsius", r"\1"),
        (r"no known action matches that input", "what"),
        (r"you (?:move to|decide to|focus on) the ", "now "),
        (r"you ", ""),
        (r"\b(?:a\(n\)|an?|the)(?= )", ""),
        (r"([,.;:()?])", r" \1 "),
    )
)


def compact(observation: Observation) -> str:
    """An observation in few words, a room in one line and its doors in another.

    >>> compact(Observation(text="You move to the kitchen."))
    'now kitchen'
    """
    text = observation.text.lower().replace("in it, you see: ", "in it you see:")
    text = text.replace("here you see: ", "here you see:").replace(
        "here, you see:", "here you see:"
    )
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    lines: list[str] = []
    for line in filter(None, (part.strip(" .") for part in text.split("\n"))):
        heads = lines[-1].endswith(" :") if lines else True
        starts = line.endswith(" :") or line.startswith("task :") or not lines
        if starts or lines[-1].startswith("task :"):
            lines.append(line)
        else:
            lines[-1] += f" {line}" if heads else f" , {line}"
    return "\n".join(" ".join(line.split()) for line in lines)
