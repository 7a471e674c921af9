"""Reading JSON that others may have changed: every way in which it can be wrong is a ValueError."""

import json
from typing import Any


def parse(text: str | bytes) -> Any:
    """The value of a text of JSON.

    Raises ValueError for what is no JSON, for bytes that are no text, and for lists in lists that
    are deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def table(text: str | bytes) -> dict[str, Any]:
    """The object that a text of JSON holds. Raises ValueError for another value too.

    >>> table('{"step": 1}')
    {'step': 1}
    >>> table("[1]")
    Traceback (most recent call last):
        ...
    ValueError: it is a list, and an object is expected
    """
    found = parse(text)
    if not isinstance(found, dict):
        kind = {"NoneType": "null", "str": "a text", "list": "a list"}.get(
            type(found).__name__, "a number or a truth value"
        )
        raise ValueError(f"it is {kind}, and an object is expected")
    return found
