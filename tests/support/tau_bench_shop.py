"""A shop and an airline of a few hand-written records."""

import json
import os
from pathlib import Path
from typing import Any

from tutelage_worlds.tau_bench.airline import AIRLINE
from tutelage_worlds.tau_bench.database import Database, Store
from tutelage_worlds.tau_bench.retail import RETAIL
from tutelage_worlds.tau_bench.tools import Call, perform

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data")) / "tau_bench_retail"
HOME = {
    "address1": "1 Mill Lane",
    "address2": "",
    "city": "Boise",
    "country": "USA",
    "state": "ID",
    "zip": "83702",
}
AWAY = {**HOME, "address1": "9 Castle Hill", "zip": "83705"}


def user(first: str, last: str, orders: list[str], balance: float, **more: Any) -> dict[str, Any]:
    return {
        "name": {"first_name": first, "last_name": last},
        "address": dict(HOME),
        "email": f"{first}.{last}@example.org",
        "payment_methods": {
            "gift_card_1": {"source": "gift_card", "id": "gift_card_1", "balance": balance},
            "paypal_2": {"source": "paypal", "id": "paypal_2"},
            "credit_card_3": {"source": "credit_card", "id": "credit_card_3"},
        },
        "orders": orders,
        **more,
    }


def item(name: str, product: str, id: str, price: float, colour: str) -> dict[str, Any]:
    return {
        "name": name,
        "product_id": product,
        "item_id": id,
        "price": price,
        "options": {"colour": colour},
    }


def order(id: str, status: str, items: list[dict[str, Any]], paid: str) -> dict[str, Any]:
    amount = round(sum(i["price"] for i in items), 2)
    return {
        "order_id": id,
        "user_id": "ada_1",
        "address": dict(HOME),
        "items": items,
        "fulfillments": [],
        "status": status,
        "payment_history": [
            {"transaction_type": "payment", "amount": amount, "payment_method_id": paid}
        ],
    }


RED, BLUE, OLD = (
    item("Kite", "100", "101", 10.1, "red"),
    item("Kite", "100", "102", 12.4, "blue"),
    item("Kite", "100", "103", 99.0, "grey"),
)
LAMP = item("Lamp", "200", "201", 30.0, "white")


def tables() -> dict[str, dict[str, Any]]:
    variants = {
        i["item_id"]: {
            "item_id": i["item_id"],
            "options": i["options"],
            "price": i["price"],
            "available": i is not OLD,
        }
        for i in (RED, BLUE, OLD)
    }
    dear = {"item_id": "104", "options": {"colour": "gold"}, "price": 500.0, "available": True}
    lamp = {"item_id": "201", "options": LAMP["options"], "price": 30.0, "available": True}
    result = {
        "products": {
            "100": {"name": "Kite", "product_id": "100", "variants": {**variants, "104": dear}},
            "200": {"name": "Lamp", "product_id": "200", "variants": {"201": lamp}},
        },
        "users": {
            "ada_1": user("Ada", "Quill", ["#W1", "#W2", "#W3", "#W4", "#W5"], 50.0),
            "bram_2": user("Ada", "Quill", [], 0.0, email="ADA.QUILL@example.org"),
        },
        "orders": {
            "#W1": order("#W1", "pending", [RED, RED, LAMP], "gift_card_1"),
            "#W2": order("#W2", "delivered", [RED, RED, LAMP], "paypal_2"),
            "#W3": order("#W3", "processed", [LAMP], "paypal_2"),
            "#W4": order("#W4", "pending", [LAMP], "paypal_2"),
            "#W5": order("#W5", "pending", [{**LAMP, "price": 80.0}], "credit_card_3"),
        },
    }
    copy: dict[str, dict[str, Any]] = json.loads(json.dumps(result))
    return copy


def shop() -> Database:
    return Database(Store(tables()))


def call(data: Database, name: str, /, **kwargs: Any) -> str:
    return perform(RETAIL, data, Call(name=name, kwargs=kwargs))


def flight(number: str, origin: str, destination: str, leaves: str, lands: str) -> dict[str, Any]:
    def day(economy: int) -> dict[str, Any]:
        return {
            "status": "available",
            "available_seats": {"economy": economy, "business": 9},
            "prices": {"economy": 100, "business": 300},
        }

    return {
        "flight_number": number,
        "origin": origin,
        "destination": destination,
        "scheduled_departure_time_est": leaves,
        "scheduled_arrival_time_est": lands,
        "dates": {"2024-05-20": day(2), "2024-05-21": day(0), "2024-05-22": {"status": "landed"}},
    }


def airline_tables() -> dict[str, dict[str, Any]]:
    methods = {
        "gift_card_1": {"source": "gift_card", "amount": 150, "id": "gift_card_1"},
        "certificate_2": {"source": "certificate", "amount": 100, "id": "certificate_2"},
        "credit_card_3": {"source": "credit_card", "id": "credit_card_3"},
    }
    flown = {
        "flight_number": "F1",
        "date": "2024-05-20",
        "price": 90,
        "origin": "SEA",
        "destination": "BOS",
    }
    result = {
        "flights": {
            "F1": flight("F1", "SEA", "BOS", "08:00:00", "10:00:00"),
            "F2": flight("F2", "BOS", "JFK", "11:00:00", "12:00:00"),
            "F3": flight("F3", "SEA", "DEN", "22:00:00", "01:00:00+1"),
            "F4": flight("F4", "DEN", "JFK", "06:00:00", "09:00:00"),
            "F5": flight("F5", "BOS", "JFK", "09:00:00", "10:00:00"),
        },
        "reservations": {
            "R1": {
                "reservation_id": "R1",
                "user_id": "ada_1",
                "cabin": "economy",
                "flights": [flown],
                "passengers": [{"first_name": "Ada"}],
                "payment_history": [{"payment_id": "credit_card_3", "amount": 90}],
                "total_baggages": 1,
                "nonfree_baggages": 0,
            }
        },
        "users": {
            "ada_1": {
                "name": {"first_name": "Ada", "last_name": "Quill"},
                "email": "ada@example.org",
                "payment_methods": methods,
                "reservations": ["R1"],
            }
        },
    }
    copy: dict[str, dict[str, Any]] = json.loads(json.dumps(result))
    return copy


def airline() -> Database:
    return Database(Store(airline_tables()))


def fly(data: Database, name: str, /, **kwargs: Any) -> str:
    return perform(AIRLINE, data, Call(name=name, kwargs=kwargs))


def written(folder: Path, **tasks: Any) -> Path:
    """The shop as a folder of files, with tasks by split."""
    for name, table in tables().items():
        (folder / f"{name}.json").write_text(json.dumps(table))
    for split, result in tasks.items():
        (folder / f"tasks_{split}.json").write_text(json.dumps(result))
    return folder


CANCEL = {
    "user_id": "ada_1",
    "instruction": "Your name is Ada Quill and your zip code is 83702. You are shy, calm. "
    "Cancel order #W4 because no longer needed. ",
    "actions": [
        {
            "name": "cancel_pending_order",
            "kwargs": {"order_id": "#W4", "reason": "no longer needed"},
        }
    ],
    "outputs": [],
}
