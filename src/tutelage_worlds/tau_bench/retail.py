"""The tools of tau-bench's retail shop (arXiv:2406.12045, repository sierra-research/tau-bench).

Checks, their order, error texts and what is written are tau-bench's, also where that is odd: an
item may be changed for itself, an empty list of items is accepted, and a difference in price is
rounded for exchanges but not for changes of pending orders.
"""

import json
from typing import Any

from tutelage_worlds.tau_bench.database import Database, Record
from tutelage_worlds.tau_bench.tools import Kit, common

RETAIL = Kit()
common(RETAIL)

NOT_FOUND = "Error: order not found"


# -- looking up


@RETAIL.tool("the user id for an e-mail address")
def find_user_id_by_email(data: Database, email: str) -> str:
    return data.store.emails.get(email.lower(), "Error: user not found")


@RETAIL.tool("the user id for a name and zip code")
def find_user_id_by_name_zip(data: Database, first_name: str, last_name: str, zip: str) -> str:
    for user_id in data.store.first_names.get(first_name.lower(), ()):
        user = data["users"][user_id]
        if user["name"]["last_name"].lower() == last_name.lower() and user["address"]["zip"] == zip:
            return user_id
    return "Error: user not found"


@RETAIL.tool("a user's profile: address, payment methods, orders")
def get_user_details(data: Database, user_id: str) -> str:
    if user_id in data["users"]:
        return json.dumps(data["users"][user_id])
    return "Error: user not found"


@RETAIL.tool("an order's items, status, address and payments; ids begin with #")
def get_order_details(data: Database, order_id: str) -> str:
    if order_id in data["orders"]:
        return json.dumps(data["orders"][order_id])
    return NOT_FOUND


@RETAIL.tool("a product's items with options, price and availability; not an item id")
def get_product_details(data: Database, product_id: str) -> str:
    if product_id in data["products"]:
        return json.dumps(data["products"][product_id])
    return "Error: product not found"


@RETAIL.tool("the names and ids of all products")
def list_all_product_types(data: Database) -> str:
    found = {product["name"]: product["product_id"] for product in data["products"].values()}
    return json.dumps(dict(sorted(found.items())))


# -- changing


def _pay(method: Record, amount: float) -> None:
    """Take an amount off a gift card; other methods are charged elsewhere."""
    if method["source"] == "gift_card":
        method["balance"] = round(method["balance"] - amount, 2)


def _refund(data: Database, user_id: str, payment_id: str, amount: float) -> None:
    """Put an amount back on a gift card. tau-bench knows one by its id here, not by its source."""
    if "gift_card" in payment_id:
        method = data["users"].edit(user_id)["payment_methods"][payment_id]
        method["balance"] = round(method["balance"] + amount, 2)


@RETAIL.tool(
    'cancel a pending order; the reason is "no longer needed" or "ordered by mistake"', writes=True
)
def cancel_pending_order(data: Database, order_id: str, reason: str) -> str:
    if order_id not in data["orders"]:
        return NOT_FOUND
    if data["orders"][order_id]["status"] != "pending":
        return "Error: non-pending order cannot be cancelled"
    if reason not in ["no longer needed", "ordered by mistake"]:
        return "Error: invalid reason"
    order = data["orders"].edit(order_id)
    refunds = []
    for payment in order["payment_history"]:
        payment_id, amount = payment["payment_method_id"], payment["amount"]
        refunds.append(_payment("refund", amount, payment_id))
        _refund(data, order["user_id"], payment_id, amount)
    order["status"] = "cancelled"
    order["cancel_reason"] = reason
    order["payment_history"].extend(refunds)
    return json.dumps(order)


def _payment(kind: str, amount: float, payment_id: str) -> Record:
    return {"transaction_type": kind, "amount": amount, "payment_method_id": payment_id}


@RETAIL.tool("send a pending order to another address", writes=True)
def modify_pending_order_address(
    data: Database,
    order_id: str,
    address1: str,
    address2: str,
    city: str,
    state: str,
    country: str,
    zip: str,
) -> str:
    if order_id not in data["orders"]:
        return NOT_FOUND
    if data["orders"][order_id]["status"] != "pending":
        return "Error: non-pending order cannot be modified"
    order = data["orders"].edit(order_id)
    order["address"] = _address(address1, address2, city, state, country, zip)
    return json.dumps(order)


@RETAIL.tool("change a user's default address", writes=True)
def modify_user_address(
    data: Database,
    user_id: str,
    address1: str,
    address2: str,
    city: str,
    state: str,
    country: str,
    zip: str,
) -> str:
    if user_id not in data["users"]:
        return "Error: user not found"
    user = data["users"].edit(user_id)
    user["address"] = _address(address1, address2, city, state, country, zip)
    return json.dumps(user)


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Record:
    return {
        "address1": address1,
        "address2": address2,
        "city": city,
        "state": state,
        "country": country,
        "zip": zip,
    }


@RETAIL.tool("pay a pending order with another of the user's payment methods", writes=True)
def modify_pending_order_payment(data: Database, order_id: str, payment_method_id: str) -> str:
    if order_id not in data["orders"]:
        return NOT_FOUND
    order = data["orders"][order_id]
    if order["status"] != "pending":
        return "Error: non-pending order cannot be modified"
    if payment_method_id not in data["users"][order["user_id"]]["payment_methods"]:
        return "Error: payment method not found"
    first = order["payment_history"][0] if len(order["payment_history"]) == 1 else None
    if first is None or first["transaction_type"] != "payment":
        return "Error: there should be exactly one payment for a pending order"
    if first["payment_method_id"] == payment_method_id:
        return "Error: the new payment method should be different from the current one"
    amount, before = first["amount"], first["payment_method_id"]
    method = data["users"][order["user_id"]]["payment_methods"][payment_method_id]
    if method["source"] == "gift_card" and method["balance"] < amount:
        return "Error: insufficient gift card balance to pay for the order"
    order = data["orders"].edit(order_id)
    order["payment_history"] += [
        _payment("payment", amount, payment_method_id),
        _payment("refund", amount, before),
    ]
    _pay(data["users"].edit(order["user_id"])["payment_methods"][payment_method_id], amount)
    _refund(data, order["user_id"], before, amount)
    return json.dumps(order)


@RETAIL.tool("swap items of a pending order for others of the same product; once only", writes=True)
def modify_pending_order_items(
    data: Database,
    order_id: str,
    item_ids: list[str],
    new_item_ids: list[str],
    payment_method_id: str,
) -> str:
    if order_id not in data["orders"]:
        return NOT_FOUND
    order = data["orders"][order_id]
    if order["status"] != "pending":
        return "Error: non-pending order cannot be modified"
    swap = _swap(data, order, item_ids, new_item_ids)
    if isinstance(swap, str):
        return swap
    user_id = order["user_id"]
    if payment_method_id not in data["users"][user_id]["payment_methods"]:
        return "Error: payment method not found"
    method = data["users"][user_id]["payment_methods"][payment_method_id]
    if method["source"] == "gift_card" and method["balance"] < swap:
        return "Error: insufficient gift card balance to pay for the new item"
    order = data["orders"].edit(order_id)
    kind = "payment" if swap > 0 else "refund"
    order["payment_history"].append(_payment(kind, abs(swap), payment_method_id))
    _pay(data["users"].edit(user_id)["payment_methods"][payment_method_id], swap)
    for item_id, new_item_id in zip(item_ids, new_item_ids, strict=True):
        item = _item(order, item_id)
        new = data["products"][item["product_id"]]["variants"][new_item_id]
        item.update(item_id=new_item_id, price=new["price"], options=new["options"])
    order["status"] = "pending (item modified)"
    return json.dumps(order)


def _item(order: Record, item_id: str) -> Record:
    """The first item of an order with an id."""
    found: list[Record] = [item for item in order["items"] if item["item_id"] == item_id]
    return found[0]


def _lacking(order: Record, item_ids: list[str]) -> list[str]:
    """The first id that is asked for more often than an order has it, in a list, or none."""
    held = [item["item_id"] for item in order["items"]]
    return next(([id] for id in item_ids if item_ids.count(id) > held.count(id)), [])


def _swap(
    data: Database, order: Record, item_ids: list[str], new_item_ids: list[str]
) -> float | str:
    """What a swap costs, or why it cannot be."""
    lacking = _lacking(order, item_ids)
    if lacking:
        return f"Error: {lacking[0]} not found"
    if len(item_ids) != len(new_item_ids):
        return "Error: the number of items to be exchanged should match"
    cost: float = 0
    for item_id, new_item_id in zip(item_ids, new_item_ids, strict=True):
        item = _item(order, item_id)
        variants: dict[str, Any] = data["products"][item["product_id"]]["variants"]
        if not (new_item_id in variants and variants[new_item_id]["available"]):
            return f"Error: new item {new_item_id} not found or available"
        cost += variants[new_item_id]["price"] - item["price"]
    return cost


@RETAIL.tool(
    "exchange items of a delivered order for others of the same product; once only", writes=True
)
def exchange_delivered_order_items(
    data: Database,
    order_id: str,
    item_ids: list[str],
    new_item_ids: list[str],
    payment_method_id: str,
) -> str:
    if order_id not in data["orders"]:
        return NOT_FOUND
    order = data["orders"][order_id]
    if order["status"] != "delivered":
        return "Error: non-delivered order cannot be exchanged"
    swap = _swap(data, order, item_ids, new_item_ids)
    if isinstance(swap, str):
        return swap
    cost = round(swap, 2)
    if payment_method_id not in data["users"][order["user_id"]]["payment_methods"]:
        return "Error: payment method not found"
    method = data["users"][order["user_id"]]["payment_methods"][payment_method_id]
    if method["source"] == "gift_card" and method["balance"] < cost:
        return "Error: insufficient gift card balance to pay for the price difference"
    old, new = sorted(item_ids), sorted(new_item_ids)
    data["orders"].edit(order_id).update(
        status="exchange requested",
        exchange_items=old,
        exchange_new_items=new,
        exchange_payment_method_id=payment_method_id,
        exchange_price_difference=cost,
    )
    return json.dumps(data["orders"][order_id])


@RETAIL.tool(
    "return items of a delivered order; refunds go to its payment method or a gift card",
    writes=True,
)
def return_delivered_order_items(
    data: Database, order_id: str, item_ids: list[str], payment_method_id: str
) -> str:
    if order_id not in data["orders"]:
        return NOT_FOUND
    order = data["orders"][order_id]
    if order["status"] != "delivered":
        return "Error: non-delivered order cannot be returned"
    if payment_method_id not in data["users"][order["user_id"]]["payment_methods"]:
        return "Error: payment method not found"
    paid_with = order["payment_history"][0]["payment_method_id"]
    if "gift_card" not in payment_method_id and payment_method_id != paid_with:
        return "Error: payment method should be either the original payment method or a gift card"
    if _lacking(order, item_ids):
        return "Error: some item not found"
    returned = sorted(item_ids)
    data["orders"].edit(order_id).update(
        status="return requested",
        return_items=returned,
        return_payment_method_id=payment_method_id,
    )
    return json.dumps(data["orders"][order_id])
