"""What the student is asked when it writes itself a hint, and what of its answer is kept."""

import re
from collections.abc import Callable, Sequence

from tutelage.hints.kinds import steps

ASKED = """\
A task was solved with the actions below. Write two or three sentences of advice for somebody who \
has to do the same task without this list: what matters, where to go, and in which order. Do not \
repeat the list, and write nothing but the advice."""
THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
TAG = re.compile(r"</?(?:think|action)>")
ENDS = re.compile(r"[.!?](?=\s|$)")


def asked(plan: Sequence[str], said: str = "") -> str:
    """The request; `said` is the task in its own words, where the suite can tell them."""
    task = f"The task: {said.strip()}\n" if said.strip() else ""
    return f"{ASKED}\n\n{task}The actions:\n{steps(plan)}"


def kept(text: str, *, ended: bool, tokens: Callable[[str], int], most: int) -> str:
    """The advice in an answer: without thoughts and tags, on one line, at most `most` tokens.

    ended   False where the answer was cut off: then what follows its last sentence is left out
    tokens  how many a text has
    """
    words = " ".join(TAG.sub(" ", THINKING.sub(" ", text)).split())
    ends = [found.end() for found in ENDS.finditer(words)]
    if not ended and ends:
        words = words[: ends[-1]]
    while tokens(words) > most:
        # text that is encoded again may have more tokens than were sampled
        words = words.rpartition(" ")[0] or words[:-1]  # not every script has blanks
    return words
