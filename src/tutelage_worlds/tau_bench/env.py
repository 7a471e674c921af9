"""The tau_bench environment: a conversation with a customer and the company's tools."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from tutelage.types import Observation, Task
from tutelage_worlds.tau_bench import calls
from tutelage_worlds.tau_bench.customers import STOP, Customer
from tutelage_worlds.tau_bench.database import Database, Key
from tutelage_worlds.tau_bench.scenario import Scenario, World, mentions
from tutelage_worlds.tau_bench.tools import RESPOND, TRANSFER, Call, Tools, perform

TOOL_SAYS: Final = "API output: "
"""What tau-bench's text agents see before a tool's answer, and never before a customer's."""


class TauBenchEnv:
    """One conversation at a time.

    It ends where the customer says STOP or is handed over to a person. The reward is 1 if the
    database is then what the task's own actions make of it and the customer was told all outputs,
    else 0. The score is the share of what counts that is right: records that were or should have
    been changed, and outputs.
    """

    def __init__(
        self,
        find: Callable[[Task], tuple[World, Scenario]],
        customer: Customer,
        *,
        transfer: bool = True,
    ) -> None:
        self._find, self._customer, self._transfer = find, customer, transfer
        self._over = True

    def reset(self, task: Task) -> Observation:
        self._world, self._scenario = self._find(task)
        self._tools = usable(self._world, transfer=self._transfer)
        self._goal = self._world.goal(self._scenario)
        self._data = Database(self._world.store)
        self._changes: dict[Key, str] = {}
        self._outputs: frozenset[str] = frozenset()
        self._over = False
        return self._observe(self._customer.open(self._scenario))

    def step(self, action: str) -> Observation:
        if self._over:
            raise RuntimeError("No conversation is under way: call reset(task) before step.")
        call = calls.read(action)
        if isinstance(call, calls.Misread):
            return self._observe(f"{TOOL_SAYS}Error: {call.reason}", valid=False)
        if call.name == RESPOND:
            return self._respond(call.kwargs["content"], valid=not calls.broken(action, call))
        return self._call(call)

    def close(self) -> None:
        self._over = True

    def _respond(self, content: str, *, valid: bool) -> Observation:
        outputs = self._scenario.outputs
        self._outputs |= {output for output in outputs if mentions(output, content)}
        words = self._customer.answer(content)
        self._over = STOP in words
        return self._observe(words, valid=valid)

    def _call(self, call: Call) -> Observation:
        tool = self._tools.get(call.name)
        text = perform(self._tools, self._data, call)
        if tool is not None and tool.writes:
            self._changes = self._data.changes()
        # with wrong arguments too, as in tau-bench
        self._over = tool is not None and call.name == TRANSFER
        fits = tool is not None and set(call.kwargs) == set(tool.arguments)
        return self._observe(TOOL_SAYS + text, valid=fits)

    def _observe(self, text: str, *, valid: bool = True) -> Observation:
        won = self._right()
        return Observation(
            text=text,
            reward=1.0 if self._over and won else 0.0,
            done=self._over,
            state=(self._scenario.id, self._mark(), self._customer.key(), self._outputs),
            score=self._score(),
            won=won if self._over else None,
            valid=valid,
        )

    def _right(self) -> bool:
        return self._changes == self._goal and len(self._outputs) == len(
            set(self._scenario.outputs)
        )

    def _score(self) -> float:
        records = self._goal.keys() | self._changes.keys()
        outputs = set(self._scenario.outputs)
        right = sum(self._goal.get(key) == self._changes.get(key) for key in records)
        total = len(records) + len(outputs)
        return (right + len(self._outputs)) / total if total else 1.0

    def _mark(self) -> str:
        """A short name for what the database has become."""
        if not self._changes:
            return ""
        text = repr(sorted(self._changes.items()))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def usable(world: World, *, transfer: bool) -> Tools:
    """The tools an agent has."""
    if transfer:
        return world.tools
    return {name: tool for name, tool in world.tools.items() if name != TRANSFER}
