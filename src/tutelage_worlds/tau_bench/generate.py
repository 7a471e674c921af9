"""Generate a shop and any number of tasks in tau-bench's format, under its rules.

`shop(size)` is always the same database; `scenario(split, seed, size)` is always the same task over
it. Tasks of "train" and "dev" are those of the first three quarters of the
customers, tasks of "test" those of the others, whom training never meets.

Only `random.Random(str).random()` is used, which Python promises never to change.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from random import Random
from typing import Final

from tutelage_worlds.tau_bench.catalogue import FIRST_NAMES, LAST_NAMES, PRODUCTS, SIZES, Size
from tutelage_worlds.tau_bench.database import Database, Record, Store
from tutelage_worlds.tau_bench.draw import address, number, pick
from tutelage_worlds.tau_bench.requests import REQUESTS, Wish
from tutelage_worlds.tau_bench.retail import RETAIL
from tutelage_worlds.tau_bench.scenario import Scenario, World, facts
from tutelage_worlds.tau_bench.tools import perform

SPLITS: Final = ("train", "dev", "test")
FAMILIES: Final = (*REQUESTS, "several")
SEVERAL: Final = (
    "cancel_pending_order",
    "return_delivered_order_items",
    "exchange_delivered_order_items",
    "modify_pending_order_items",
    "modify_pending_order_address",
)
STATUSES: Final = ("pending", "delivered", "pending", "delivered", "processed", "cancelled")
TRIES: Final = 1000


# -- the shop


@cache
def shop(size: str) -> World:
    """The shop of a size, without tasks: those are made one by one."""
    rng, how = Random(f"tau_bench shop {size}"), SIZES[size]
    products = dict(_product(rng, k) for k in range(how.products))
    users = dict(_user(rng, k) for k in range(how.users))
    orders: dict[str, Record] = {}
    for user_id, user in users.items():
        for k in range(how.orders):
            order = _order(rng, user_id, user, products, STATUSES[k % len(STATUSES)])
            # once, in the full shop, two customers of training have one id (#W6290627) and so one
            # order, the later one's: tasks are named for ever, so it stays
            orders[order["order_id"]] = order
            user["orders"].append(order["order_id"])
    tables = {"orders": orders, "products": products, "users": users}
    return World(domain="retail", store=Store(tables), tools=RETAIL)


def _product(rng: Random, k: int) -> tuple[str, Record]:
    name, options = PRODUCTS[k]
    product_id, base = number(rng, 10), 5 + 195 * rng.random()
    variants: list[dict[str, str]] = [{}]
    for option, values in options.items():
        variants = [{**variant, option: value} for variant in variants for value in values]
    items = {}
    for variant in variants:
        item_id = number(rng, 10)
        items[item_id] = {
            "item_id": item_id,
            "options": variant,
            "available": rng.random() < 0.75,
            "price": round(base * (0.8 + 0.4 * rng.random()), 2),
        }
    return product_id, {"name": name, "product_id": product_id, "variants": items}


def _user(rng: Random, k: int) -> tuple[str, Record]:
    # every pair of names once, in an order that mixes both
    first = FIRST_NAMES[k % len(FIRST_NAMES)]
    last = LAST_NAMES[(k + k // len(FIRST_NAMES)) % len(LAST_NAMES)]
    methods: dict[str, Record] = {}
    for source in ("credit_card", "paypal", "gift_card"):
        if rng.random() < 0.7 or (source == "gift_card" and len(methods) == 0):
            method_id = f"{source}_{number(rng, 7)}"
            methods[method_id] = {"source": source, "id": method_id, **_details(rng, source)}
    return f"{first}_{last}_{number(rng, 4)}".lower(), {
        "name": {"first_name": first, "last_name": last},
        "address": address(rng),
        "email": f"{first}.{last}{number(rng, 3)}@example.org".lower(),
        "payment_methods": methods,
        "orders": [],
    }


def _details(rng: Random, source: str) -> Record:
    if source == "credit_card":
        return {"brand": pick(rng, ("visa", "mastercard")), "last_four": number(rng, 4)}
    return {"balance": float(int(300 * rng.random()))} if source == "gift_card" else {}


def _order(
    rng: Random, user_id: str, user: Record, products: Mapping[str, Record], status: str
) -> Record:
    left, items = list(products), []
    for _ in range(1 + int(3 * rng.random())):
        product = products[left.pop(int(len(left) * rng.random()))]
        variant = pick(rng, list(product["variants"].values()))
        items.append(
            {
                "name": product["name"],
                "product_id": product["product_id"],
                "item_id": variant["item_id"],
                "price": variant["price"],
                "options": dict(variant["options"]),
            }
        )
    paid = {
        "transaction_type": "payment",
        "amount": round(sum(item["price"] for item in items), 2),
        "payment_method_id": pick(rng, list(user["payment_methods"])),
    }
    refunded = {**paid, "transaction_type": "refund"}
    sent = {"tracking_id": [number(rng, 12)], "item_ids": [item["item_id"] for item in items]}
    return {
        "order_id": f"#W{number(rng, 7)}",
        "user_id": user_id,
        "address": dict(user["address"]),
        "items": items,
        "fulfillments": [sent] if status in ("delivered", "processed") else [],
        "status": status,
        "payment_history": [paid, refunded] if status == "cancelled" else [paid],
    }


# -- its tasks


def customers(split: str, how: Size) -> range:
    """The numbers of the customers whom a split is about."""
    border = how.users * 3 // 4
    return range(border, how.users) if split == "test" else range(border)


@lru_cache(maxsize=4096)
def scenario(split: str, seed: int, size: str) -> Scenario:
    """Task number `seed` of a split. Its family is the seed's remainder by their number, so any run
    of seeds is balanced. Raises ValueError for a split, size or seed that does not exist."""
    if split not in SPLITS or size not in SIZES or seed < 0:
        raise ValueError(
            f"there is no task {seed} of split {split!r} and size {size!r}; the splits are "
            f"{', '.join(SPLITS)}, the sizes {', '.join(SIZES)}, and numbers begin with 0"
        )
    rng, family = Random(f"tau_bench {size} {split} {seed}"), FAMILIES[seed % len(FAMILIES)]
    world = shop(size)
    people = list(world.store.tables["users"])
    able = customers(split, SIZES[size])
    for _ in range(TRIES):
        user_id = people[able[int(len(able) * rng.random())]]
        wishes = _wishes(rng, family, world.store, user_id)
        if wishes is not None and _possible(world, wishes):
            return _scenario(rng, f"tau_bench/{size}/{split}/{seed:07d}", world, user_id, wishes)
    raise AssertionError(f"no customer of the shop {size} can want {family}")


def _wishes(rng: Random, family: str, store: Store, user_id: str) -> list[Wish] | None:
    """What a customer asks for, each about another order; None if they cannot."""
    if family != "several":
        names = [family]
    else:
        first = pick(rng, SEVERAL)
        names = [first, pick(rng, [name for name in SEVERAL if name != first])]
    free, wishes = list(store.tables["users"][user_id]["orders"]), []
    for name in names:
        wish = REQUESTS[name](rng, store, user_id, free)
        if wish is None:
            return None
        wishes.append(wish)
        free = [order for order in free if order != wish.order_id]
    return wishes


def _possible(world: World, wishes: list[Wish]) -> bool:
    """Whether every wish changes something, one after another, or asks for an output."""
    data = Database(world.store)
    for wish in wishes:
        before = data.changes()
        if wish.call:
            perform(world.tools, data, wish.call)
        if not wish.outputs and data.changes() == before:
            return False
    return True


def _scenario(rng: Random, id: str, world: World, user_id: str, wishes: list[Wish]) -> Scenario:
    user = world.store.tables["users"][user_id]
    name = f"{user['name']['first_name']} {user['name']['last_name']}"
    if rng.random() < 0.5:
        who = f"You are {name} with the e-mail address {user['email']}."
    else:
        who = f"You are {name} from zip code {user['address']['zip']}."
    asked = [f"You {'also ' * (k > 0)}want {wish.words}." for k, wish in enumerate(wishes)]
    instruction = " ".join([who, *asked])
    identity, requests = facts(instruction)
    return Scenario(
        id=id,
        user_id=user_id,
        instruction=instruction,
        actions=tuple(wish.call for wish in wishes if wish.call),
        outputs=tuple(output for wish in wishes for output in wish.outputs),
        identity=identity,
        requests=requests,
    )
