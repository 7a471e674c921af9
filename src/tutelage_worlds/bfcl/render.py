"""Compact renderings for small models."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tutelage.types import Observation
from tutelage_worlds.json_text import parse

_STOP: Final = re.compile(r"(?<=[\w'\"])([.,;:?!])(?=\s|$)")


def compact(observation: Observation) -> str:
    """An observation in few words: what its text says, no more.

    >>> compact(Observation(text='{"card_balance": 120.5, "ok": true}'))
    'card_balance 120.5 ok true'
    >>> compact(Observation(text="User: Lock the doors."))
    'User : Lock the doors .'
    """
    return "\n".join(_line(line) for line in observation.text.split("\n") if line.strip())


def _line(line: str) -> str:
    if line.startswith(("{", "[")):
        try:
            return " ".join(_words(parse(line))) or "nothing"
        except ValueError:
            pass
    return _STOP.sub(r" \1", line)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _words(each)
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
    elif isinstance(value, str):
        yield value or '""'
    else:
        yield json.dumps(value)
