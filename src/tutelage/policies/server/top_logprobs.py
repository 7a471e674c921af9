"""The likely tokens that a chat server tells with each token of an answer: `top_logprobs`."""

import math
from collections.abc import Mapping
from typing import Any

from tutelage.prompts.alignment import Likely

MOST = 20
"""Likely tokens of one place, as the API has it."""
UNLIKELY = -9999.0
"""Stands for the log-probability of a token that is not among the likely ones."""
ROUNDING = 0.01
"""By how much probabilities may add up to more than 1."""


def likely(choice: Mapping[str, Any], text: str) -> tuple[Likely, ...]:
    """What a choice of an answer tells of the tokens that its text is made of; nothing where it
    tells of none.

    Raises ValueError, with the reason, where that cannot be read or belongs to another text.
    """
    content = _typed(choice.get("logprobs") or {}, dict, "logprobs").get("content") or []
    entries = [_entry(entry) for entry in _typed(content, list, "logprobs.content")]
    entries = [entry for entry in entries if entry.data]
    if not any(entry.top for entry in entries):
        return ()
    spelled = b"".join(text.encode().split())  # tokenizers and servers add and drop spaces
    # some servers tell of the token that ends the answer, which is not in its text
    for some in (entries, entries[:-1]):
        if b"".join(b"".join(entry.data for entry in some).split()) == spelled:
            return tuple(some)
    raise ValueError("its tokens are not those of the text")


def _typed(value: object, kind: type[Any], name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r:.40}")
    return value


def _entry(entry: object) -> Likely:
    table = _typed(entry, dict, "a token")
    data, own = _bytes(table), _logprob(table)
    listed = _typed(table.get("top_logprobs") or [], list, "top_logprobs")
    if len(listed) > MOST:
        raise ValueError(f"top_logprobs has {len(listed)} entries, more than {MOST}")
    top: dict[bytes, float] = {}
    for each in listed:
        other = _typed(each, dict, "an entry of top_logprobs")
        name, x = _bytes(other), _logprob(other)
        # different tokens of one text are one
        top[name] = _sum(top[name], x) if name in top else x
    if top:
        top.setdefault(data, own)
    top = {name: x for name, x in top.items() if x > UNLIKELY}
    if sum(map(math.exp, top.values())) > 1 + ROUNDING:
        raise ValueError("the probabilities of a token's top_logprobs add up to more than 1")
    return Likely(data, tuple(top.items()))


def _bytes(table: Mapping[str, Any]) -> bytes:
    """A token's own bytes; those of its text where the server does not tell them."""
    if (numbers := table.get("bytes")) is None:
        return str(_typed(table.get("token"), str, "token")).encode("utf-8", "replace")
    if not all(type(b) is int and 0 <= b < 256 for b in _typed(numbers, list, "bytes")):
        raise ValueError(f"bytes are {numbers!r:.40}")
    return bytes(numbers)


def _logprob(table: Mapping[str, Any]) -> float:
    x = table.get("logprob")
    if isinstance(x, bool) or not isinstance(x, int | float) or not x <= ROUNDING:
        raise ValueError(f"logprob is {x!r:.40}")
    return min(0.0, float(x))


def _sum(one: float, other: float) -> float:
    """The log of a sum of two probabilities."""
    high, low = max(one, other), min(one, other)
    return high if high == -math.inf else high + math.log1p(math.exp(low - high))
