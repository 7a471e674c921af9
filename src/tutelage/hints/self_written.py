"""Self-written hints: the request to the student, and how its answer is cleaned."""

import re
from collections.abc import Callable, Sequence

from tutelage.hints.kinds import steps

ASKED = """\
A task was solved with the actions below. Write two or three sentences of advice for somebody who \
has to do the same task without this list: what matters, where to go, and in which order. Do not \
repeat the list, and write nothing but the advice."""
THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
"""A thought, also one that was cut off before its end."""
TAG = re.compile(r"</?(?:think|action)>")
ENDS = re.compile(r"[.!?](?=\s|$)")


def request(plan: Sequence[str], description: str = "") -> str:
    """The request; `description` is the task's text, if the suite describes it."""
    task = f"The task: {description.strip()}\n" if description.strip() else ""
    return f"{ASKED}\n\n{task}The actions:\n{steps(plan)}"


def advice(text: str, *, ended: bool, tokens: Callable[[str], int], most: int) -> str:
    """The advice in an answer: without thoughts and tags, on one line, at most `most` tokens.

    ended   False if the answer was cut off; then what follows its last sentence is dropped
    tokens  counts the tokens of a text
    """
    result = " ".join(TAG.sub(" ", THINKING.sub(" ", text)).split())
    ends = [found.end() for found in ENDS.finditer(result)]
    if not ended and ends:
        result = result[: ends[-1]]
    while tokens(result) > most:
        # encoding the text again may give more tokens than were sampled
        result = result.rpartition(" ")[0] or result[:-1]  # not every script has spaces
    return result
