"""Reading JSON that others have written: every way in which it can be wrong is a ValueError."""

import json
from typing import Any


def parse(text: str | bytes) -> Any:
    r"""The value of a text of JSON in UTF-8, which a byte order mark may precede.

    Half a character, which JSON can name and nothing else can hold, becomes a question mark. Raises
    ValueError for what is no JSON, for bytes that are no text, and for lists in lists that are
    deeper than Python reads.

    >>> parse(b'["caf\\u00e9", "\\ud83d"]')
    ['café', '?']
    """
    words = text.removeprefix("\ufeff") if isinstance(text, str) else text.decode("utf-8-sig")
    try:
        return whole(json.loads(words), words)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def whole(value: Any, words: str) -> Any:
    """A value that was read from these words of JSON, without halves of characters."""
    if "\\ud" not in words and "\\uD" not in words:
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
