"""Reading an answer takes time in proportion to its length, and finds what the patterns describe."""

import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.prompts import answer_format
from tutelage.prompts.answer_format import LONGEST_ACTION, NO_THOUGHT, TAGS, Parsed, parse

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
OWN = ("search", "answer", "a.b", "sea")
MARKS = [mark for tag in OWN for mark in (f"<{tag}>", f"</{tag}>")]
PIECES = ("<", ">", "/", "think", "action", "x", " ", "\n", *TAGS, NO_THOUGHT, *MARKS)


def by_patterns(text: str, tags: Sequence[str] = ()) -> Parsed:
    """What the format means, as regular expressions say it; quadratic."""
    thought = THINK.search(text)
    rest = THINK.sub(NO_THOUGHT, text, count=1)
    names = "|".join(map(re.escape, tags))
    blocks = re.finditer(rf"<({names})>.*?</\1>", rest, re.DOTALL) if tags else ()
    actions = ACTION.findall(rest) or [match.group() for match in blocks]
    if len(actions) == 1 and actions[0].strip() and NO_THOUGHT not in actions[0]:
        return Parsed(
            action=actions[0].strip()[:LONGEST_ACTION],
            thought=thought.group(1).strip() if thought else "",
        )
    bare = rest
    for tag in TAGS:
        bare = bare.replace(tag, " ")
    return Parsed(action=bare.strip()[:LONGEST_ACTION], valid=False)


@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.lists(st.sampled_from(OWN), max_size=3, unique=True),
)
def test_what_is_read_is_what_the_patterns_say(text: str, tags: list[str]) -> None:
    assert parse(text, tags) == by_patterns(text, tags)


@pytest.mark.parametrize("mark", [*TAGS, "<search>", "</search>", "<", "<think></think>"])
def test_a_tag_that_is_repeated_takes_no_time(mark: str) -> None:
    since = time.process_time()
    text = mark * 50_000
    parse(text, ("search", "answer"))
    answer_format.problem(text, ("search", "answer"))
    assert time.process_time() - since < 1.0
