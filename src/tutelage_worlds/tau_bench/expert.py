"""Experts of tau-bench: the task's own actions, or a conversation worth imitating.

Both are for the scripted customer and are found by playing: what they return wins.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tutelage.errors import EnvError
from tutelage.types import Observation, Task
from tutelage_worlds.tau_bench.calls import write
from tutelage_worlds.tau_bench.customers import Scripted
from tutelage_worlds.tau_bench.database import Record
from tutelage_worlds.tau_bench.env import TauBenchEnv
from tutelage_worlds.tau_bench.scenario import Scenario, World
from tutelage_worlds.tau_bench.tools import RESPOND, TRANSFER, Call

MOST: Final = 200
"""Turns after which a conversation is given up."""
ORDER: Final = re.compile(r"#W\d+")
IDENTIFY: Final = "May I have your e-mail address, or your name and zip code?"
ELSE: Final = "Is there anything else?"


class Move(NamedTuple):
    thought: str
    action: str


@dataclass(slots=True)
class Talk:
    """A conversation under way: what was done, and all that was seen."""

    world: World
    scenario: Scenario
    env: TauBenchEnv
    last: Observation
    transfer: bool
    moves: list[Move] = field(default_factory=list)
    seen: str = ""
    calls: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, world: World, scenario: Scenario, *, transfer: bool) -> "Talk":
        env = TauBenchEnv(lambda task: (world, scenario), Scripted(), transfer=transfer)
        first = env.reset(Task(id=scenario.id))
        return cls(
            world=world, scenario=scenario, env=env, last=first, transfer=transfer, seen=first.text
        )

    def call(self, thought: str, call: Call, *, again: bool = False) -> None:
        """Do a call, looking nothing up twice."""
        action = write(call.name, **call.kwargs)
        if self.last.done or (action in self.calls and not again):
            return
        if len(self.moves) == MOST:
            raise EnvError(
                f"the task {self.scenario.id} is not over after {MOST} turns of its expert"
            )
        self.calls.add(action)
        self.last = self.env.step(action)
        self.moves.append(Move(thought, action))
        self.seen += "\n" + self.last.text

    def look(self, thought: str, name: str, **kwargs: str) -> None:
        if name in self.world.tools:
            self.call(thought, Call(name=name, kwargs=kwargs))

    def say(self, thought: str, content: str) -> None:
        self.call(thought, Call(name=RESPOND, kwargs={"content": content}), again=True)

    def hand_over(self) -> list[Call]:
        """The call that the task ends with, where a person must take over and may."""
        return [c for c in self.scenario.actions if c.name == TRANSFER and self.transfer][:1]

    def shown(self, call: Call) -> bool:
        """Whether every value of a call was seen already."""
        return all(value in self.seen for value in _values(call.kwargs))


def _values(value: object) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _values(part)
    elif isinstance(value, str):
        yield value


def _changes(world: World, scenario: Scenario) -> list[Call]:
    """The task's actions that change something, in their order."""
    return [c for c in scenario.actions if c.name in world.tools and world.tools[c.name].writes]


def plan(world: World, scenario: Scenario, *, transfer: bool = True) -> list[str]:
    """The shortest way: make the changes, give the outputs, and wait for the customer."""
    talk = Talk.begin(world, scenario, transfer=transfer)
    for call in _changes(world, scenario):
        talk.call("", call, again=True)
    if scenario.outputs:
        talk.say("", " ; ".join(scenario.outputs))
    for call in talk.hand_over():
        talk.call("", call)
    while not talk.last.done:
        talk.say("", ELSE)
    return [move.action for move in _won(talk).moves]


def demonstrate(world: World, scenario: Scenario, *, transfer: bool = True) -> list[Move]:
    """A conversation by the rules: identify the customer, look up what a change is about, ask
    before making it, and report. Values that an action takes are seen before wherever the
    customer or a tool can show them; which of them is right, the task's own actions tell.

    Changes are made where the customer asks for them, or all at the end where they depend on each
    other.
    """
    talk = _converse(Talk.begin(world, scenario, transfer=transfer), late=False)
    if not talk.last.won:
        talk = _converse(Talk.begin(world, scenario, transfer=transfer), late=True)
    return _won(talk).moves


def _won(talk: Talk) -> Talk:
    if not talk.last.won:
        raise EnvError(
            f"the task {talk.scenario.id} cannot be won by its own actions; leave it out or fix "
            "its file"
        )
    return talk


def _converse(talk: Talk, *, late: bool) -> Talk:
    asked, scenario = talk.last.text, talk.scenario
    talk.say("I do not know yet who this is.", IDENTIFY)
    _identify(talk)
    left = list(scenario.actions)
    count = max(1, len(scenario.requests))
    for k in range(count):
        if talk.last.done:
            break
        last = k == count - 1
        for order in ORDER.findall(asked):
            talk.look("I must see the order.", "get_order_details", order_id=order)
        now = left if last else [] if late else _about(asked, left)
        left = [call for call in left if call not in now]
        for call in now:
            _act(talk, call)
        outputs = " ; ".join(scenario.outputs) if last else ""
        asked = _report(talk, outputs, changed=bool(now))
    for call in talk.hand_over():
        talk.call("A person must take over.", call)
    while not talk.last.done:
        talk.say("The customer may have more to ask.", ELSE)
    return talk


def _report(talk: Talk, outputs: str, *, changed: bool) -> str:
    """Say what was done or found; the customer's next words."""
    if outputs:
        talk.say("I have found what was asked.", f"{outputs} . {ELSE}")
    elif not talk.hand_over():
        talk.say("That is done." if changed else "I have looked.", f"Done. {ELSE}")
    return talk.last.text


def _identify(talk: Talk) -> None:
    scenario, users = talk.scenario, talk.world.store.tables["users"]
    user = users.get(scenario.user_id)
    if user is None:
        return
    if "find_user_id_by_email" not in talk.world.tools:
        talk.look("Look the customer up.", "get_user_details", user_id=scenario.user_id)
    elif user["email"] in talk.seen:
        talk.look("Look the customer up.", "find_user_id_by_email", email=user["email"])
    else:
        zip = user["address"]["zip"]
        name = {part: user["name"][part] for part in ("first_name", "last_name")}
        talk.look("Look the customer up.", "find_user_id_by_name_zip", **name, zip=zip)


def _about(asked: str, left: Sequence[Call]) -> list[Call]:
    """The actions that a request is about: those on an order that it names, or on the account."""
    orders = ORDER.findall(asked)
    return [
        call
        for call in left
        if (call.kwargs.get("order_id") in orders)
        or ("address1" in call.kwargs and str(call.kwargs["address1"]) in asked)
    ]


def _act(talk: Talk, call: Call) -> None:
    """Do one of the task's actions, with what should come before it."""
    tool = talk.world.tools.get(call.name)
    if tool is None or call.name in (TRANSFER, RESPOND):
        return
    if not tool.writes:
        talk.call("I must look this up.", call)
        return
    _prepare(talk, call.kwargs, call)
    words = " ; ".join(" , ".join(_values(value)) or str(value) for value in call.kwargs.values())
    question = f"I would {call.name.replace('_', ' ')} : {words} . Is that right (yes/no)?"
    talk.say("Nothing may be changed without a yes.", question)
    talk.call("The customer agreed.", call, again=True)


def _prepare(talk: Talk, kwargs: Any, call: Call) -> None:
    """Look up the customer, the order and the products of its items, as far as it is needed."""
    profile = talk.world.store.tables["users"].get(talk.scenario.user_id, {})
    order_id, items = kwargs.get("order_id"), kwargs.get("item_ids")
    orders = talk.world.store.tables.get("orders", {})
    order: Record | None = orders.get(order_id) if isinstance(order_id, str) else None
    if order is not None:
        _find(talk, order["order_id"], profile.get("orders", ()))
        changed = items if "new_item_ids" in kwargs and isinstance(items, list) else ()
        for item in order["items"]:
            if item["item_id"] in changed:
                product = item["product_id"]
                thought = f"Which {item['name']} is meant?"
                talk.look(thought, "get_product_details", product_id=product)
    if not talk.shown(call):
        _profile(talk)
    for id in profile.get("orders", ()):  # an address may be that of another order
        if talk.shown(call):
            break
        talk.look("Perhaps another order tells.", "get_order_details", order_id=id)


def _profile(talk: Talk) -> None:
    if talk.scenario.user_id:
        thought = "The profile may tell more."
        talk.look(thought, "get_user_details", user_id=talk.scenario.user_id)


def _find(talk: Talk, order_id: str, owned: Sequence[str]) -> None:
    """See an order. One that was not named is searched among all of the customer's."""
    if order_id not in talk.seen:
        _profile(talk)
        for id in owned[: owned.index(order_id)] if order_id in owned else ():
            talk.look("Which order is meant?", "get_order_details", order_id=id)
    talk.look("I must see the order.", "get_order_details", order_id=order_id)


def thought_of(action: str) -> str:
    """What a step of a plan does, in a few words.

    >>> thought_of(write("get_order_details", order_id="#W1"))
    'get order details'
    """
    return str(json.loads(action)["name"]).replace("_", " ")
