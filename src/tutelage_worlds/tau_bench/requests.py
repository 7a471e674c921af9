"""The requests of customers in the generated shop: their texts, and the calls that fulfil them.

Each function draws a wish about one of a customer's `free` orders, or None where there is none.
`_swapped` asks for the new item by the options that differ, which name exactly one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tutelage_worlds.tau_bench.catalogue import REASONS
from tutelage_worlds.tau_bench.database import Record, Store
from tutelage_worlds.tau_bench.draw import address, pick
from tutelage_worlds.tau_bench.tools import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`words` follow "You want ". `outputs` must be given to the customer."""

    words: str
    order_id: str = ""
    call: Call | None = None
    outputs: tuple[str, ...] = ()


Make = Callable[[Random, Store, str, Sequence[str]], Wish | None]


def _order(rng: Random, store: Store, free: Sequence[str], status: str) -> Record | None:
    """One of the free orders of a status."""
    found = [id for id in free if store.tables["orders"][id]["status"] == status]
    return store.tables["orders"][pick(rng, found)] if found else None


def _methods(store: Store, user_id: str) -> Mapping[str, Record]:
    methods: Mapping[str, Record] = store.tables["users"][user_id]["payment_methods"]
    return methods


def _cancel(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
    order = _order(rng, store, free, "pending")
    if order is None:
        return None
    id, reason = order["order_id"], pick(rng, REASONS)
    return Wish(
        words=f"to cancel order {id} , reason: {reason}",
        order_id=id,
        call=Call(name="cancel_pending_order", kwargs={"order_id": id, "reason": reason}),
    )


def _some(rng: Random, order: Record) -> list[Record]:
    """One or two items of an order, in its order."""
    items: list[Record] = order["items"]
    first = int(len(items) * rng.random())
    return items[first : first + 1 + int(2 * rng.random())]


def _return(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
    order = _order(rng, store, free, "delivered")
    if order is None:
        return None
    id, items = order["order_id"], _some(rng, order)
    paid = order["payment_history"][0]["payment_method_id"]
    methods = _methods(store, user_id)
    to = pick(rng, [m for m in methods if m == paid or methods[m]["source"] == "gift_card"])
    names = " and the ".join(item["name"] for item in items)
    ids = [item["item_id"] for item in items]
    return Wish(
        words=f"to return the {names} of order {id} , refunded to {to}",
        order_id=id,
        call=Call(
            name="return_delivered_order_items",
            kwargs={"order_id": id, "item_ids": ids, "payment_method_id": to},
        ),
    )


def _swap(name: str, status: str, verb: str) -> Make:
    def make(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
        order = _order(rng, store, free, status)
        if order is None:
            return None
        id, to = order["order_id"], pick(rng, list(_methods(store, user_id)))
        wanted = [(item, _other(rng, store, item)) for item in _some(rng, order)]
        pairs = [(item, new) for item, new in wanted if new is not None]
        if not pairs:
            return None
        words = " and the ".join(_swapped(item, new) for item, new in pairs)
        return Wish(
            words=f"to {verb} the {words} in order {id} , paid with {to}",
            order_id=id,
            call=Call(
                name=name,
                kwargs={
                    "order_id": id,
                    "item_ids": [item["item_id"] for item, _ in pairs],
                    "new_item_ids": [new["item_id"] for _, new in pairs],
                    "payment_method_id": to,
                },
            ),
        )

    return make


def _other(rng: Random, store: Store, item: Record) -> Record | None:
    """Another available item of the same product."""
    variants = store.tables["products"][item["product_id"]]["variants"].values()
    others = [v for v in variants if v["available"] and v["item_id"] != item["item_id"]]
    return pick(rng, others) if others else None


def _swapped(item: Record, new: Record) -> str:
    options = [f"{k} {v}" for k, v in new["options"].items() if v != item["options"][k]]
    return f"{item['name']} for {' and '.join(options)}"


def _send(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
    order = _order(rng, store, free, "pending")
    if order is None:
        return None
    id, to = order["order_id"], address(rng)
    return Wish(
        words=f"order {id} to be sent to {' , '.join(to.values())}",
        order_id=id,
        call=Call(name="modify_pending_order_address", kwargs={"order_id": id, **to}),
    )


def _move(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
    to = address(rng)
    return Wish(
        words=f"your account's address to be {' , '.join(to.values())}",
        call=Call(name="modify_user_address", kwargs={"user_id": user_id, **to}),
    )


def _pay(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
    order = _order(rng, store, free, "pending")
    if order is None:
        return None
    id, to = order["order_id"], pick(rng, list(_methods(store, user_id)))
    return Wish(
        words=f"to pay order {id} with {to} instead",
        order_id=id,
        call=Call(
            name="modify_pending_order_payment",
            kwargs={"order_id": id, "payment_method_id": to},
        ),
    )


def _tell(rng: Random, store: Store, user_id: str, free: Sequence[str]) -> Wish | None:
    order = store.tables["orders"][pick(rng, free)]
    item = pick(rng, order["items"])
    id, price = order["order_id"], item["price"]
    return Wish(
        words=f"to know the price of the {item['name']} in order {id}",
        order_id=id,
        outputs=(str(price),),
    )


REQUESTS: Final[Mapping[str, Make]] = {
    "cancel_pending_order": _cancel,
    "return_delivered_order_items": _return,
    "exchange_delivered_order_items": _swap(
        "exchange_delivered_order_items", "delivered", "exchange"
    ),
    "modify_pending_order_items": _swap("modify_pending_order_items", "pending", "change"),
    "modify_pending_order_address": _send,
    "modify_user_address": _move,
    "modify_pending_order_payment": _pay,
    "tell": _tell,
}
"""By family: the tool that grants it, or "tell" for a question."""
