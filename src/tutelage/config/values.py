"""Write keys and values as TOML."""

import json
import re

from pydantic import JsonValue


def quoted(name: str) -> str:
    """A key as TOML, without quotes if possible."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def write_value(value: JsonValue) -> str:
    """A value as TOML.

    >>> write_value({"linear": [0.05, 0.0, 100], "on": True})
    '{linear = [0.05, 0.0, 100], on = true}'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(k)} = {write_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(write_value(v) for v in value) + "]"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, except that DEL must be escaped too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(value)
