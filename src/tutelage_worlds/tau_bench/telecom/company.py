"""The agent's tools of tau2-bench's telecom domain (arXiv:2506.07982), over the company's tables.

What they check, in which order, and what they change is tau2-bench's; the records they show have
its fields, and the words of messages are our own. An error leaves nothing half done but what
tau2-bench also leaves so.
"""

import json
from itertools import count
from typing import Final

from tutelage_worlds.tau_bench.database import Database, Record
from tutelage_worlds.tau_bench.telecom.records import (
    ACTIVE,
    AWAITING,
    DRAFT,
    OVERDUE,
    PAID,
    PENDING,
    SUSPENDED,
)
from tutelage_worlds.tau_bench.tools import Kit

COMPANY: Final = Kit()

TODAY: Final = "2025-02-25"
"""The domain's day: every date that a tool writes follows from it."""
CYCLE_END: Final = "2025-02-28"
LAST_MONTH: Final = ("2025-01-01", "2025-01-31", "2025-01-15")
NEXT_MONTH: Final = ("2025-03-01", "2025-03-31", "2025-03-15")
"""First day, last day, and the day on which a bill that is issued on the first is due."""


def one(data: Database, table: str, id: str) -> Record:
    """A record to be read. Raises ValueError if there is none."""
    if not isinstance(id, str) or id not in data[table]:
        raise ValueError(f"there is no {id!r} among the {table}")
    return data[table][id]


def owned_line(data: Database, customer_id: str, line_id: str) -> Record:
    if line_id not in one(data, "customers", customer_id)["line_ids"]:
        raise ValueError(f"the customer {customer_id} has no line {line_id!r}")
    return one(data, "lines", line_id)


def line_of_number(data: Database, phone_number: str) -> Record:
    for line in data["lines"].values():
        if line["phone_number"] == phone_number:
            return line
    raise ValueError(f"no line has the number {phone_number!r}")


def customer_of_number(data: Database, phone_number: str) -> Record:
    """Whose number it is: the contact's, or that of one of the lines."""
    for customer in data["customers"].values():
        numbers = {one(data, "lines", id)["phone_number"] for id in customer["line_ids"]}
        if phone_number == customer["phone_number"] or phone_number in numbers:
            return customer
    raise ValueError(f"no customer has the number {phone_number!r}")


def awaiting(data: Database, customer: Record) -> list[Record]:
    """The bills that the customer was asked to pay."""
    bills = [one(data, "bills", id) for id in customer["bill_ids"]]
    return [bill for bill in bills if bill["status"] == AWAITING]


def bill(id: str, customer_id: str, month: tuple[str, str, str], status: str) -> Record:
    first, last, due = month
    return {
        "bill_id": id,
        "customer_id": customer_id,
        "period_start": first,
        "period_end": last,
        "issue_date": first,
        "total_due": 0.0,
        "due_date": due,
        "line_items": [],
        "status": status,
    }


def charge(bill: Record, amount: float, description: str) -> None:
    kind = "Credit" if amount < 0 else "Charge"
    bill["line_items"].append(
        {"description": description, "amount": amount, "date": TODAY, "item_type": kind}
    )
    bill["total_due"] += amount


# -- looking up


@COMPANY.tool("the customer who has a phone number, as a contact or on a line")
def get_customer_by_phone(data: Database, phone_number: str) -> str:
    return json.dumps(customer_of_number(data, phone_number))


@COMPANY.tool("a customer's profile: account, lines, bills")
def get_customer_by_id(data: Database, customer_id: str) -> str:
    return json.dumps(one(data, "customers", customer_id))


@COMPANY.tool("customers of a full name and a date of birth such as 1990-01-31")
def get_customer_by_name(data: Database, full_name: str, dob: str) -> str:
    wanted = full_name.lower()
    return json.dumps(
        [
            customer
            for customer in data["customers"].values()
            if customer["full_name"].lower() == wanted and customer["date_of_birth"] == dob
        ]
    )


_BY_LETTER: Final = (
    ("L", "lines"),
    ("D", "devices"),
    ("B", "bills"),
    ("C", "customers"),
    ("P", "plans"),
)


@COMPANY.tool(
    "the record of an id: a customer C..., line L..., device D..., bill B... or plan P..."
)
def get_details_by_id(data: Database, id: str) -> str:
    for letter, table in _BY_LETTER:
        if id.startswith(letter):
            return json.dumps(one(data, table, id))
    raise ValueError(f"the id {id!r} begins with none of L, D, B, C and P")


@COMPANY.tool("a customer's bills, the newest first; limit is how many, 12 if left out")
def get_bills_for_customer(data: Database, customer_id: str, limit: int = 12) -> str:
    bills = [one(data, "bills", id) for id in one(data, "customers", customer_id)["bill_ids"]]
    bills.sort(key=lambda bill: str(bill["issue_date"]), reverse=True)
    return json.dumps(bills[:limit])


@COMPANY.tool("how much data a line used in this cycle, and how much it has")
def get_data_usage(data: Database, customer_id: str, line_id: str) -> str:
    line = owned_line(data, customer_id, line_id)
    return json.dumps(
        {
            "line_id": line_id,
            "data_used_gb": line["data_used_gb"],
            "data_limit_gb": one(data, "plans", line["plan_id"])["data_limit_gb"],
            "data_refueling_gb": line["data_refueling_gb"],
            "cycle_end_date": CYCLE_END,
        }
    )


# -- changing


@COMPANY.tool("suspend an active line", writes=True)
def suspend_line(data: Database, customer_id: str, line_id: str, reason: str) -> str:
    if owned_line(data, customer_id, line_id)["status"] != ACTIVE:
        raise ValueError("only an active line can be suspended")
    line = data["lines"].edit(line_id)
    line.update(status=SUSPENDED, suspension_start_date=TODAY)
    message = "The line is suspended. Holding it costs $5 a month."
    return json.dumps({"message": message, "line": line})


@COMPANY.tool("make a suspended line, or one that waits for its activation, active", writes=True)
def resume_line(data: Database, customer_id: str, line_id: str) -> str:
    if owned_line(data, customer_id, line_id)["status"] not in (SUSPENDED, PENDING):
        raise ValueError("only a suspended line, or one to be activated, can be resumed")
    line = data["lines"].edit(line_id)
    line.update(status=ACTIVE, suspension_start_date=None)
    return json.dumps({"message": "The line is active.", "line": line})


@COMPANY.tool("ask a customer to pay a bill; one bill at a time", writes=True)
def send_payment_request(data: Database, customer_id: str, bill_id: str) -> str:
    customer = one(data, "customers", customer_id)
    if awaiting(data, customer):
        raise ValueError("another bill of this customer awaits its payment")
    if bill_id not in customer["bill_ids"]:
        raise ValueError(f"the customer {customer_id} has no bill {bill_id!r}")
    one(data, "bills", bill_id)
    data["bills"].edit(bill_id)["status"] = AWAITING
    return f"The customer was asked to pay the bill {bill_id}."


@COMPANY.tool("let a line roam abroad", writes=True)
def enable_roaming(data: Database, customer_id: str, line_id: str) -> str:
    if owned_line(data, customer_id, line_id)["roaming_enabled"]:
        return "The line could roam already."
    data["lines"].edit(line_id)["roaming_enabled"] = True
    return "The line can roam now."


@COMPANY.tool("do not let a line roam abroad", writes=True)
def disable_roaming(data: Database, customer_id: str, line_id: str) -> str:
    if not owned_line(data, customer_id, line_id)["roaming_enabled"]:
        return "The line could not roam anyway."
    data["lines"].edit(line_id)["roaming_enabled"] = False
    return "The line cannot roam any more."


@COMPANY.tool(
    "add gigabytes to a line; the next bill is charged with the plan's price", writes=True
)
def refuel_data(data: Database, customer_id: str, line_id: str, gb_amount: float) -> str:
    line = owned_line(data, customer_id, line_id)
    if gb_amount <= 0:
        raise ValueError("the amount must be above 0")
    price = one(data, "plans", line["plan_id"])["data_refueling_price_per_gb"]
    cost = gb_amount * price
    line = data["lines"].edit(line_id)
    line["data_refueling_gb"] += gb_amount
    charge(_draft(data, customer_id), cost, f"{gb_amount} GB of data at ${price} per GB")
    return json.dumps(
        {
            "message": f"The line {line_id} has {gb_amount} GB more, for ${cost:.2f}.",
            "new_data_refueling_gb": line["data_refueling_gb"],
            "charge": cost,
        }
    )


def _draft(data: Database, customer_id: str) -> Record:
    """The customer's next bill, begun if there is none."""
    for id in one(data, "customers", customer_id)["bill_ids"]:
        if one(data, "bills", id)["status"] == DRAFT:
            return data["bills"].edit(id)
    # tau2-bench draws an id; one that repeats keeps episodes comparable
    new = next(name for k in count() if (name := f"B{k:06d}") not in data["bills"])
    data["bills"].add(new, bill(new, customer_id, NEXT_MONTH, DRAFT))
    data["customers"].edit(customer_id)["bill_ids"].append(new)
    return data["bills"][new]


@COMPANY.tool("hand the customer over to a person, which ends the conversation")
def transfer_to_human_agents(data: Database, summary: str) -> str:
    return "The customer was handed over."


# -- what a task begins with, and what it is judged by


def set_data_usage(data: Database, customer_id: str, line_id: str, data_used_gb: float) -> None:
    owned_line(data, customer_id, line_id)
    data["lines"].edit(line_id)["data_used_gb"] = data_used_gb


def suspend_line_for_overdue_bill(
    data: Database, customer_id: str, line_id: str, new_bill_id: str, contract_ended: bool
) -> None:
    """A bill of last month over the plan's price is overdue, and the line suspended for it."""
    line = one(data, "lines", line_id)
    if line["status"] != ACTIVE:
        raise ValueError("only an active line can be suspended")
    price = one(data, "plans", line["plan_id"])["price_per_month"]
    customer = one(data, "customers", customer_id)
    if any(one(data, "bills", id)["status"] == OVERDUE for id in customer["bill_ids"]):
        raise ValueError("the customer has an overdue bill already")
    overdue = bill(new_bill_id, customer_id, LAST_MONTH, OVERDUE)
    charge(overdue, price, f"Charge for line {line_id}")
    data["bills"].add(new_bill_id, overdue)
    data["customers"].edit(customer_id)["bill_ids"].append(new_bill_id)
    line = data["lines"].edit(line_id)
    line.update(status=SUSPENDED, suspension_start_date=TODAY)
    if contract_ended:
        line["contract_end_date"] = LAST_MONTH[1]


def assert_data_refueling_amount(
    data: Database, customer_id: str, line_id: str, expected_amount: float
) -> bool:
    line = owned_line(data, customer_id, line_id)
    return bool(abs(line["data_refueling_gb"] - expected_amount) < 1e-6)


def assert_line_status(
    data: Database, customer_id: str, line_id: str, expected_status: str
) -> bool:
    return bool(owned_line(data, customer_id, line_id)["status"] == expected_status)


def assert_overdue_bill_exists(data: Database, customer_id: str, overdue_bill_id: str) -> bool:
    bills = one(data, "customers", customer_id)["bill_ids"]
    found = one(data, "bills", overdue_bill_id)
    return overdue_bill_id in bills and found["status"] == OVERDUE


def assert_no_overdue_bill(data: Database, overdue_bill_id: str) -> bool:
    """Also true of a bill that there is not."""
    there = overdue_bill_id in data["bills"]
    return not there or data["bills"][overdue_bill_id]["status"] == PAID


BEGIN: Final = {f.__name__: f for f in (set_data_usage, suspend_line_for_overdue_bill)}
CHECKS: Final = {
    f.__name__: f
    for f in (
        assert_data_refueling_amount,
        assert_line_status,
        assert_overdue_bill_exists,
        assert_no_overdue_bill,
    )
}
