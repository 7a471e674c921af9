"""The fields of the telecom company's records, and records read from a file brought into shape."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from tutelage.errors import EnvError, did_you_mean
from tutelage_worlds.tau_bench.database import Record, copied

Read = Callable[[Any], Any]
"""Brings one value into shape. Raises ValueError or TypeError for one that is none."""

NEEDED: Final = object()


class Field(NamedTuple):
    """One field: how its value is read, and what it is where the file leaves it out."""

    read: Read
    default: Any = NEEDED


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("it must be text")
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("it must be a number")
    return float(value)


def whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("it must be a whole number")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("it must be true or false")
    return value


def day(value: Any) -> str:
    """A date as tau2-bench's tools show it.

    >>> day("2025-02-05")
    '2025-02-05'
    """
    return (value if isinstance(value, date) else date.fromisoformat(value)).isoformat()


def moment(value: Any) -> str:
    """A date with a time as tau2-bench's tools show it.

    >>> moment("2025-01-20T14:30:00")
    '2025-01-20 14:30:00'
    """
    return str(value if isinstance(value, datetime) else datetime.fromisoformat(value))


def one_of(*allowed: str) -> Read:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"it must be one of {', '.join(allowed)}")
        return str(value)

    return read


def maybe(read: Read) -> Read:
    return lambda value: None if value is None else read(value)


def many(read: Read) -> Read:
    def all_of(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError("it must be a list")
        return [read(part) for part in value]

    return all_of


def record(fields: Mapping[str, Field]) -> Read:
    """A record of these fields, in this order, and of no others."""

    def read(value: Any) -> Record:
        return shaped(value, fields)

    return read


def shaped(value: Any, fields: Mapping[str, Field]) -> Record:
    """A record with all its fields, in their order.

    Raises ValueError, naming the field, for one that is missing, unknown or of another kind.
    """
    if not isinstance(value, dict):
        raise ValueError("it must be an object")
    for name in value:
        if name not in fields:
            raise ValueError(f"it has an unknown field {name!r}{did_you_mean(name, fields)}")
    found = {}
    for name, field in fields.items():
        if name not in value and field.default is NEEDED:
            raise ValueError(f"it has no {name!r}")
        try:
            found[name] = field.read(value[name]) if name in value else copied(field.default)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error
    return found


ACTIVE, SUSPENDED, PENDING = "Active", "Suspended", "Pending Activation"
DRAFT, AWAITING, PAID, OVERDUE = "Draft", "Awaiting Payment", "Paid", "Overdue"

_PLAN: Final = {
    "plan_id": Field(text),
    "name": Field(text),
    "data_limit_gb": Field(number),
    "price_per_month": Field(number),
    "data_refueling_price_per_gb": Field(number),
}
_DEVICE: Final = {
    "device_id": Field(text),
    "device_type": Field(one_of("phone", "router", "tablet", "watch", "other")),
    "model": Field(text),
    "imei": Field(maybe(text), None),
    "is_esim_capable": Field(flag),
    "activated": Field(flag, False),
    "activation_date": Field(maybe(moment), None),
    "last_esim_transfer_date": Field(maybe(moment), None),
}
_LINE: Final = {
    "line_id": Field(text),
    "phone_number": Field(text),
    "status": Field(one_of(ACTIVE, SUSPENDED, PENDING, "Closed"), PENDING),
    "plan_id": Field(text),
    "device_id": Field(maybe(text), None),
    "data_used_gb": Field(number, 0.0),
    "data_refueling_gb": Field(number, 0.0),
    "roaming_enabled": Field(flag, False),
    "contract_end_date": Field(maybe(day), None),
    "last_plan_change_date": Field(maybe(day), None),
    "last_sim_replacement_date": Field(maybe(day), None),
    "suspension_start_date": Field(maybe(day), None),
}
_ITEM: Final = {
    "description": Field(text),
    "amount": Field(number),
    "date": Field(day),
    "item_type": Field(text),
}
_BILL: Final = {
    "bill_id": Field(text),
    "customer_id": Field(text),
    "period_start": Field(day),
    "period_end": Field(day),
    "issue_date": Field(day),
    "total_due": Field(number),
    "due_date": Field(day),
    "line_items": Field(many(record(_ITEM)), []),
    "status": Field(one_of(DRAFT, "Issued", AWAITING, PAID, OVERDUE, "Disputed"), DRAFT),
}
_METHOD: Final = {
    "method_type": Field(one_of("Credit Card", "Debit Card", "PayPal")),
    "account_number_last_4": Field(text),
    "expiration_date": Field(text),
}
_ADDRESS: Final = {name: Field(text) for name in ("street", "city", "state", "zip_code")}
_CUSTOMER: Final = {
    "customer_id": Field(text),
    "full_name": Field(text),
    "date_of_birth": Field(text),
    "email": Field(text),
    "phone_number": Field(text),
    "address": Field(record(_ADDRESS)),
    "account_status": Field(
        one_of(ACTIVE, SUSPENDED, "Pending Verification", "Closed"), "Pending Verification"
    ),
    "payment_methods": Field(many(record(_METHOD)), []),
    "line_ids": Field(many(text), []),
    "bill_ids": Field(many(text), []),
    "created_at": Field(moment, "2025-01-01"),
    "last_extension_date": Field(maybe(day), None),
    "goodwill_credit_used_this_year": Field(number, 0.0),
}
TABLES: Final[Mapping[str, tuple[str, Mapping[str, Field]]]] = {
    "plans": ("plan_id", _PLAN),
    "customers": ("customer_id", _CUSTOMER),
    "lines": ("line_id", _LINE),
    "bills": ("bill_id", _BILL),
    "devices": ("device_id", _DEVICE),
}
"""By table: the field that names a record, and all its fields."""
_REFERENCES: Final = (
    ("customers", "line_ids", "lines"),
    ("customers", "bill_ids", "bills"),
    ("lines", "plan_id", "plans"),
    ("lines", "device_id", "devices"),
    ("bills", "customer_id", "customers"),
)


def tables(raw: Any, where: str) -> dict[str, dict[str, Record]]:
    """A company's tables by their records' ids, in the order of the file.

    Raises EnvError, naming table, record and field, for what does not fit, for two records of one
    id, and for an id that refers to nothing.
    """
    found: dict[str, dict[str, Record]] = {}
    for name, (key, fields) in TABLES.items():
        rows = raw.get(name, [])
        if not isinstance(rows, list):
            raise EnvError(f"{where}: {name} must be a list of records; get the file again")
        found[name] = {}
        for k, row in enumerate(rows):
            try:
                read = shaped(row, fields)
            except ValueError as error:
                raise EnvError(f"{where}: {name}: {k}: {error}; get the file again") from error
            if read[key] in found[name]:
                raise EnvError(f"{where}: {name} has {read[key]} twice; get the file again")
            found[name][read[key]] = read
    for name, field, other in _REFERENCES:
        for id, row in found[name].items():
            for named in row[field] if isinstance(row[field], list) else [row[field]]:
                if named is not None and named not in found[other]:
                    raise EnvError(
                        f"{where}: {name}: {id}: {field} names {named}, which {other} has not; get "
                        "the file again"
                    )
    return found
