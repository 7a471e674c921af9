"""Compact renderings for tiny models.

Records become names and values between single spaces, and ids are in quotes, as in calls.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tutelage.types import Observation
from tutelage_worlds.json_text import parse
from tutelage_worlds.tau_bench.env import TOOL_SAYS

_ID: Final = re.compile(
    r"(?<![\w\"#])(#W\d+|(?:credit_card|gift_card|paypal|certificate)_\d+|\S+@\S+\w|\d{5})(?![\w\"])"
)
_STOP: Final = re.compile(r"(?<=[\w\"])([.,;:?!])(?=\s|$)")


def compact(observation: Observation) -> str:
    """An observation in few words: what its text says, no more.

    >>> compact(Observation(text='API output: {"name": "Kite", "product_id": "17"}'))
    'tool : name "Kite" product_id "17"'
    >>> compact(Observation(text="Hello! I want to cancel order #W12."))
    'Hello ! I want to cancel order "#W12" .'
    """
    text = observation.text
    if not text.startswith(TOOL_SAYS):
        return _STOP.sub(r" \1", _ID.sub(r'"\1"', text))
    body = text.removeprefix(TOOL_SAYS)
    try:
        value = parse(body)
    except ValueError:
        value = body
    if isinstance(value, dict | list):
        return "tool : " + " ".join(_words(value))
    return f"tool : {json.dumps(body)}" if body and not body.startswith("Error") else f"tool {body}"


def _words(value: Any) -> Iterator[str]:
    """A JSON value without its punctuation. Records keep their names but for what is said twice."""
    if isinstance(value, dict):
        if "item_id" in value and isinstance(value.get("options"), dict):
            yield from _item(value)
            return
        for key, part in value.items():
            if isinstance(part, dict) and part.get("id", part.get("item_id")) == key:
                yield from ("\n", *_words(part))
            else:
                yield from (key, *_words(part))
    elif isinstance(value, list):
        for k, part in enumerate(value):
            yield from ("," if k else "", *_words(part))
    else:
        yield json.dumps(value)


def _item(item: dict[str, Any]) -> Iterator[str]:
    """An item of an order or a variant of a product: id, name, price, options."""
    yield json.dumps(item["item_id"])
    yield from (str(item[key]) for key in ("name", "price") if key in item)
    if "product_id" in item:
        yield from ("product", json.dumps(item["product_id"]))
    if item.get("available") is False:
        yield "unavailable"
    for option, value in item["options"].items():
        yield f"{option} {value}"
