"""Check that data from files has the structure that the rules need."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tutelage.errors import EnvError, did_you_mean
from tutelage_worlds.tau_bench.tools import Call, Tools

NUMBER: Final = (int, float)
LARGEST: Final = 1e15
"""Sums and differences of numbers below it have their cents."""
WORDS: Final = {str: "text", dict: "an object", list: "a list", bool: "true or false"}
TASK: Final = {
    "user_id": str,
    "instruction": str,
    "actions": [{"name": str, "kwargs": dict}],
    "outputs": [str],
}
TASK2: Final = {
    "id": str,
    "user_scenario": {"instructions": {"reason_for_call": str, "known_info": str}},
    "evaluation_criteria": {
        "actions": [{"name": str, "arguments": dict}],
    },
}
_ADDRESS: Final = {"zip": str}
_NAME: Final = {"first_name": str, "last_name": str}
_USER: Final = {"name": _NAME, "email": str, "payment_methods": {"*": {"source": str}}}
SHAPES: Final[Mapping[str, Mapping[str, object]]] = {
    "retail": {
        "orders": {
            "order_id": str,
            "user_id": str,
            "address": dict,
            "status": str,
            "items": [
                {"name": str, "product_id": str, "item_id": str, "price": NUMBER, "options": dict}
            ],
            "payment_history": [
                {"transaction_type": str, "amount": NUMBER, "payment_method_id": str}
            ],
        },
        "products": {
            "name": str,
            "product_id": str,
            "variants": {"*": {"available": bool, "price": NUMBER, "options": dict}},
        },
        "users": {**_USER, "address": _ADDRESS, "orders": [str]},
    },
    "airline": {
        "flights": {
            "flight_number": str,
            "origin": str,
            "destination": str,
            "scheduled_departure_time_est": str,
            "scheduled_arrival_time_est": str,
            "dates": {"*": {"status": str}},
        },
        "reservations": {
            "reservation_id": str,
            "user_id": str,
            "cabin": str,
            "flights": [{"flight_number": str, "date": str, "price": NUMBER}],
            "passengers": list,
            "payment_history": [{"payment_id": str, "amount": NUMBER}],
            "nonfree_baggages": NUMBER,
        },
        "users": {**_USER, "reservations": [str]},
    },
}


def fits(value: object, shape: Any, where: str) -> None:
    """Hold a value to a shape: a type, [shape of each], {"*": shape of each}, {key: shape}.

    Raises EnvError, which names the place.
    """
    if isinstance(shape, list):
        _must(isinstance(value, list), where, "a list")
        for k, part in enumerate(value if isinstance(value, list) else ()):
            fits(part, shape[0], f"{where}: {k}")
    elif isinstance(shape, dict):
        _must(isinstance(value, dict), where, "an object")
        assert isinstance(value, dict)
        for key in value if "*" in shape else shape:
            if key not in value:
                raise EnvError(f"{where} has no {key!r}; get the file again")
            fits(value[key], shape.get("*") or shape[key], f"{where}: {key}")
    elif shape == NUMBER:
        plain = isinstance(value, NUMBER) and not isinstance(value, bool)
        # a comparison that is false for what is no number, and infinite in JSON
        _must(plain and abs(value) < LARGEST, where, "a number")  # type: ignore[arg-type]
    else:
        _must(isinstance(value, shape), where, WORDS[shape])


STORY: Final = ("known_info", "unknown_info", "reason_for_call", "task_instructions")


def words(story: Mapping[str, Any], where: str) -> list[str]:
    """The parts of tau2-bench's instructions to a customer that are there. Raises EnvError for one
    that is no text."""
    there = {part: story[part] for part in STORY if story.get(part)}
    fits(there, {"*": str}, where)
    return list(there.values())


def _must(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise EnvError(f"{where} must be {what}; get the file again")


def tables(domain: str, data: Mapping[str, Any], folder: Path) -> None:
    """Hold tables to their domain's shapes, and to each other: nothing refers to what is not there.

    Raises EnvError.
    """
    for name, shape in SHAPES[domain].items():
        fits(data[name], {"*": shape}, str(folder / f"{name}.json"))
    for user_id, user in data["users"].items():
        balance = "balance" if domain == "retail" else "amount"
        for method_id, method in user["payment_methods"].items():
            if method["source"] == "gift_card":
                where = f"{folder / 'users.json'}: {user_id}: payment_methods: {method_id}"
                fits(method, {balance: NUMBER}, where)
    owned = "orders" if domain == "retail" else "reservations"
    for key, record in data[owned].items():
        where = f"{folder / owned}.json: {key}"
        known(record["user_id"], data["users"], where, "user")
        if domain == "retail":
            _must(bool(record["payment_history"]), f"{where}: payment_history", "not empty")
            for item in record["items"]:
                known(item["product_id"], data["products"], where, "product")


def known(id: str, there: Iterable[str], where: str, what: str) -> None:
    """Refuse an id that refers to nothing. Raises EnvError."""
    if id not in there:
        raise EnvError(
            f"{where} names the {what} {id}, which is in no file beside it; the files must be of "
            "one version"
        )


def calls(found: Iterable[Call], tools: Tools, where: str) -> None:
    """Hold a task's actions to the tools there are. Raises EnvError."""
    for call in found:
        if call.name not in tools:
            raise EnvError(
                f"{where} has the action {call.name!r}, which is no tool of this domain"
                f"{did_you_mean(call.name, tools)}"
            )
