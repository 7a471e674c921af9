"""Validate what users' environments return, and convert numpy values to plain Python ones."""

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Complex, Real
from typing import Final

from tutelage.envs.guard import Broken, attempt, waited_for
from tutelage.types import Observation

LONGEST: Final = 200_000
"""Longest observation in characters; the rest is cut. A text of megabytes keeps the tokenizer busy
for minutes and fits no model's context; the longest of the suites here has about 20,000."""
CUT_NOTE: Final = "[cut here:"
LARGEST: Final = 1e15
"""Largest reward in size: training squares and adds rewards in float32, which ends at 3e38."""


def observation(value: object, what: str = "an observation") -> Observation:
    """What `reset` or `step` returned, with plain values in every field; the same object if nothing
    had to be converted.

    what  the beginning of an error message

    Raises TypeError or ValueError that say what is wrong.
    """
    waited_for(value)
    if not isinstance(value, Observation):
        raise TypeError(
            f"{what} that is {type(value).__name__}; it must be a tutelage Observation, such as "
            "Observation(text=..., reward=..., done=...)"
        )
    fields: dict[str, object] = {
        "text": text(value.text, f"{what} whose text"),
        "reward": number(value.reward, f"{what} whose reward"),
        "done": flag(value.done, f"{what} whose done"),
        "valid": flag(value.valid, f"{what} whose valid"),
        "won": None if value.won is None else flag(value.won, f"{what} whose won"),
        "score": None if value.score is None else number(value.score, f"{what} whose score"),
        "actions": texts(value.actions, f"{what} whose actions"),
        "focus": texts(value.focus, f"{what} whose focus"),
        "results": texts(value.results, f"{what} whose results"),
    }
    check_state(value.state, f"{what} whose state")
    changed = {name: new for name, new in fields.items() if new is not getattr(value, name)}
    return replace(value, **changed) if changed else value  # type: ignore[arg-type]


def shortened(value: Observation) -> Observation:
    """An observation whose text, and whose actions and focus together, have at most `LONGEST`
    characters, with a note of what was cut from the text."""
    more = len(value.text) - LONGEST
    if more > 0:
        note = f"\n{CUT_NOTE} {more:,} more characters]"
        cut = f"{value.text[:LONGEST]}{note}"
        value = replace(value, text=cut, results=(cut,) if value.results else ())
    if sum(map(len, value.actions)) + sum(map(len, value.focus)) > LONGEST:
        value = replace(value, actions=_first(value.actions), focus=_first(value.focus))
    return value


def is_cut(value: Observation) -> bool:
    """Whether `shortened` has cut an observation's text."""
    return len(value.text) > LONGEST


def _first(texts: tuple[str, ...]) -> tuple[str, ...]:
    """As many texts from the beginning as have half of `LONGEST` characters together."""
    room = LONGEST // 2
    for k, each in enumerate(texts):
        room -= len(each)
        if room < 0:
            return texts[:k]
    return texts


def text(value: object, what: str) -> str:
    """A plain string that can be written as UTF-8: tokenizers and logs take no other."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is {type(value).__name__}; it must be a string")
    plain = value if type(value) is str else str.__str__(value)
    if not _encodable(plain):
        raise ValueError(
            f"{what} holds half a surrogate pair, which can be neither tokenized nor logged; "
            'decode what it comes from with errors="replace"'
        )
    return plain


def texts(value: object, what: str) -> tuple[str, ...]:
    """Plain strings, as a tuple."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{what} are not a tuple of strings")
    if not all(isinstance(each, str) for each in value):
        raise TypeError(f"{what} are not a tuple of strings")
    plain = tuple(each if type(each) is str else str.__str__(each) for each in value)
    if not all(map(_encodable, plain)):
        raise ValueError(
            f"{what} hold half a surrogate pair, which can be neither tokenized nor logged; "
            'decode what they come from with errors="replace"'
        )
    if isinstance(value, tuple) and all(a is b for a, b in zip(value, plain, strict=True)):
        return value
    return plain


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def number(value: object, what: str) -> float:
    """A finite number: Python's, numpy's, or a tensor with one; True and False are 1 and 0."""
    plain: float = value if type(value) in (float, int) else _converted(value, what)  # type: ignore[assignment]
    if not -LARGEST <= plain <= LARGEST:
        if isinstance(plain, float) and not math.isfinite(plain):
            raise ValueError(f"{what} is {plain}; it must be finite")
        raise ValueError(f"{what} is larger than {LARGEST:g} in size, which float32 cannot add up")
    return plain


def _converted(value: object, what: str) -> float:
    # text has no __float__, so "1" is refused: it is a mistake
    known = hasattr(value, "__float__") or hasattr(value, "__index__")
    imaginary = isinstance(value, Complex) and not isinstance(value, Real)
    wrong = TypeError(f"{what} is {type(value).__name__}; it must be a number")
    if not known or imaginary or getattr(value, "ndim", 0) != 0:
        raise wrong
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise wrong from None


def flag(value: object, what: str) -> bool:
    """True or False: Python's, numpy's, a tensor's, or the numbers 1 and 0."""
    if type(value) is bool:
        return value
    if not isinstance(value, str | bytes) and getattr(value, "ndim", 0) == 0:
        for plain in (True, False):
            if bool(value == plain):
                return plain
    raise TypeError(f"{what} is {value!r:.40}; it must be True or False")


def check_state(state: object, what: str) -> None:
    """States are keys by which equal situations are found: hashable, and equal to themselves."""
    try:
        hash(state)
    except TypeError:
        raise TypeError(
            f"{what}, a {type(state).__name__}, is not hashable; use a tuple or string"
        ) from None
    try:
        same = attempt("comparing states", lambda: bool(state == state))
    except Broken as error:
        raise TypeError(
            f"{what}, a {type(state).__name__}, cannot be compared with others ({error}); use a "
            "tuple or string"
        ) from error
    if not same:
        raise ValueError(
            f"{what}, a {type(state).__name__}, is not equal to itself; use a tuple or string"
        )
