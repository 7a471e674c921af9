"""The same walks here and in tau-bench itself: every text, end and reward, and the database.

Runs where the environment variable TAU_BENCH names a clone of sierra-research/tau-bench; none of
its requirements but pydantic is needed, because its customers, which are models, are replaced.
TAU_BENCH_WALKS sets how many walks each domain takes.
"""

import json
import os
import sys
from random import Random
from types import ModuleType
from typing import Any

import pytest

from tutelage_worlds.tau_bench import Scripted, TauBench
from tutelage_worlds.tau_bench.arithmetic import CHARACTERS
from tutelage_worlds.tau_bench.env import TOOL_SAYS, TauBenchEnv
from tutelage_worlds.tau_bench.scenario import Scenario
from tutelage_worlds.tau_bench.suite import find

CLONE = os.environ.get("TAU_BENCH", "")
WALKS = int(os.environ.get("TAU_BENCH_WALKS", "12"))
STEPS = 25
pytestmark = pytest.mark.skipif(not CLONE, reason="TAU_BENCH names no clone of tau-bench")
WEIRD: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    -3,
    1.0,
    "",
    "x",
    "#W",
    [],
    {},
    ["x"],
    [None],
    {"a": 1},
    "naïve 🚪",
    [[]],
)


class Adapter:
    """Our scripted customer as tau-bench talks to one."""

    def __init__(self) -> None:
        self.customer, self.scenario = (
            Scripted(),
            Scenario(id="", user_id="", instruction="", actions=()),
        )

    def reset(self, instruction: str | None = None) -> str:
        return self.customer.open(self.scenario)

    def step(self, content: str) -> str:
        return self.customer.answer(content)

    def get_total_cost(self) -> float:
        return 0.0


@pytest.fixture(scope="module")
def base() -> ModuleType:
    """tau-bench's own code, with our customer."""
    stub = ModuleType("litellm")
    stub.completion = None  # type: ignore[attr-defined]
    sys.modules.setdefault("litellm", stub)
    sys.path.insert(0, CLONE)
    import tau_bench.envs.base as original  # type: ignore[import-not-found]

    original.load_user = lambda **_: Adapter()
    return original


def original(base: ModuleType, domain: str, split: str) -> Any:
    if domain == "retail":
        from tau_bench.envs.retail import (  # type: ignore[import-not-found]
            MockRetailDomainEnv as Kind,
        )
    else:
        from tau_bench.envs.airline import (  # type: ignore[import-not-found]
            MockAirlineDomainEnv as Kind,
        )
    return Kind(task_split=split, task_index=0)


def ours(domain: str) -> TauBench:
    return TauBench(data=f"{CLONE}/tau_bench/envs/{domain}")


def leaves(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [x for k, v in value.items() for x in (k, *leaves(v))]
    if isinstance(value, list):
        return [x for v in value for x in leaves(v)]
    return [value]


def expression(rng: Random) -> str:
    return "".join(rng.choice(CHARACTERS.replace("*", "")) for _ in range(1 + rng.randrange(12)))


def some_call(rng: Random, env: TauBenchEnv, scenario: Scenario) -> dict[str, Any]:
    """A call that is often sensible, sometimes odd and sometimes nonsense."""
    roll = rng.random()
    golds = scenario.actions
    if roll < 0.3 and golds:
        gold = rng.choice(golds)
        kwargs = json.loads(json.dumps(dict(gold.kwargs)))
        if rng.random() < 0.4 and kwargs:
            kwargs[rng.choice(list(kwargs))] = value(rng, env, scenario, "")
        if rng.random() < 0.1 and kwargs:
            kwargs.pop(rng.choice(list(kwargs)))
        return {"name": gold.name, "arguments": kwargs}
    if roll < 0.35:
        return {"name": "respond", "arguments": {"content": rng.choice(("Hi?", "1,0 a", "Done."))}}
    name = rng.choice([n for n in env._tools if n != "transfer_to_human_agents" or roll > 0.97])
    if name == "calculate":
        return {"name": name, "arguments": {"expression": expression(rng)}}
    kwargs = {a: value(rng, env, scenario, a) for a in env._tools[name].arguments}
    if rng.random() < 0.08:
        kwargs[rng.choice(("extra", "order_id", "x"))] = rng.choice(WEIRD)
    return {"name": name if rng.random() < 0.98 else "no_such_tool", "arguments": kwargs}


def value(rng: Random, env: TauBenchEnv, scenario: Scenario, name: str) -> Any:
    """An argument, mostly one that fits its name, of this customer or of another."""
    if rng.random() < 0.06:
        return rng.choice(WEIRD)
    tables = env._world.store.tables
    owns = "orders" if "orders" in tables else "reservations"
    users = [u for u in tables["users"].values() if u[owns]]
    user = tables["users"].get(scenario.user_id, users[0])
    if rng.random() < 0.1 or not user[owns]:
        user = rng.choice(users)
    owned = user[owns]
    record = tables[owns][rng.choice(owned)]
    if name in ("order_id", "reservation_id"):
        return rng.choice(owned)
    if name in ("payment_method_id", "payment_id"):
        return rng.choice(list(user["payment_methods"]))
    if name == "item_ids":
        held = [item["item_id"] for item in record["items"]]
        return [rng.choice(held) for _ in range(rng.randrange(1, 3))]
    if name == "new_item_ids":
        return [
            rng.choice(list(tables["products"][item["product_id"]]["variants"]))
            for item in record["items"][: rng.randrange(1, 3)]
        ]
    if name == "reason":
        return rng.choice(("no longer needed", "ordered by mistake", "bored"))
    if name == "flights":
        return [{k: f[k] for k in ("flight_number", "date")} for f in record["flights"]]
    if name == "passengers":
        return list(record["passengers"])
    if name == "payment_methods":
        return [{"payment_id": m, "amount": rng.choice((50, 100))} for m in user["payment_methods"]]
    if name == "amount" or name.endswith("baggages"):
        return rng.randrange(5)
    if name == "date":
        return f"2024-05-{rng.randrange(10, 31)}"
    if name in ("origin", "destination"):
        return rng.choice(("JFK", "SEA", "ATL", "LAX", "DFW"))
    if name == "user_id":
        return rng.choice(list(tables["users"])) if rng.random() < 0.2 else record["user_id"]
    found = [leaf for leaf in leaves(user) if isinstance(leaf, str)]
    return rng.choice([*found, user["email"].upper(), user["name"]["last_name"].upper()])


@pytest.mark.parametrize(
    ("domain", "split"), [("retail", "train"), ("retail", "test"), ("airline", "test")]
)
def test_walks_are_the_same_in_both(base: ModuleType, domain: str, split: str) -> None:
    reference, suite = original(base, domain, split), ours(domain)
    tasks, env = suite.tasks(split), suite.make()
    for walk in range(WALKS):
        rng = Random(f"{domain} {split} {walk}")
        index = rng.randrange(len(tasks))
        scenario = find(tasks[index])[1]
        reference.user.scenario = scenario
        assert env.reset(tasks[index]).text == reference.reset(index).observation
        for step in range(STEPS):
            call = some_call(rng, env, scenario)
            if step == STEPS - 1:
                call = {"name": "transfer_to_human_agents", "arguments": {"summary": "x"}}
            answer = reference.step(base.Action(name=call["name"], kwargs=call["arguments"]))
            shown = env.step(json.dumps(call))
            text = shown.text.removeprefix(TOOL_SAYS)
            assert text == answer.observation, call
            assert (shown.done, shown.reward) == (answer.done, answer.reward), call
            if shown.done:
                break


@pytest.mark.parametrize(
    ("domain", "split"), [("retail", "train"), ("retail", "test"), ("airline", "test")]
)
def test_plans_win_in_both(base: ModuleType, domain: str, split: str) -> None:
    reference, suite = original(base, domain, split), ours(domain)
    tasks = suite.tasks(split)
    for index in range(0, len(tasks), max(1, len(tasks) // WALKS)):
        reference.user.scenario = find(tasks[index])[1]
        reference.reset(index)
        for action in suite.plan(tasks[index]):
            call = json.loads(action)
            answer = reference.step(base.Action(name=call["name"], kwargs=call["arguments"]))
        assert (answer.done, answer.reward) == (True, 1.0), tasks[index].id


def test_the_calculator_calculates_alike(base: ModuleType) -> None:
    from tau_bench.envs.retail.tools.calculate import (  # type: ignore[import-not-found]
        Calculate,
    )

    from tutelage_worlds.tau_bench.arithmetic import calculate

    rng = Random("calculate")
    for _ in range(WALKS * 200):
        text = expression(rng)
        assert calculate(text) == Calculate.invoke({}, text), text


def test_the_tools_and_their_arguments_equal_the_originals(base: ModuleType) -> None:
    for domain in ("retail", "airline"):
        reference = original(base, domain, "test")
        tools = ours(domain).make()._find(ours(domain).tasks("test")[0])[0].tools
        known = {
            info["function"]["name"]: set(info["function"]["parameters"]["properties"])
            for info in reference.tools_info
        }
        assert known == {name: set(tool.arguments) for name, tool in tools.items()}
