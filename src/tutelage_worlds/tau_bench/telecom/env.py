"""The telecom environment: a conversation with a customer who acts on a phone, and the tools."""

from collections.abc import Callable
from inspect import signature
from typing import Final

from tutelage.types import Observation, Task
from tutelage_worlds.tau_bench import calls
from tutelage_worlds.tau_bench.customers import STOP
from tutelage_worlds.tau_bench.env import TOOL_SAYS, usable
from tutelage_worlds.tau_bench.scenario import Scenario, World
from tutelage_worlds.tau_bench.telecom.episode import (
    AGENT,
    USER,
    Episode,
    TelecomScenario,
    TelecomWorld,
)
from tutelage_worlds.tau_bench.telecom.user import Caller
from tutelage_worlds.tau_bench.tools import RESPOND, TRANSFER, Call, Tool

WHAT: Final = "a task of tau2-bench's telecom domain"


def own(world: World, scenario: Scenario) -> tuple[TelecomWorld, TelecomScenario]:
    """Raises ValueError for a task of another domain."""
    if not isinstance(world, TelecomWorld) or not isinstance(scenario, TelecomScenario):
        raise ValueError(f"{scenario.id} is not {WHAT}: take one from TauBench(data).tasks(split)")
    return world, scenario


class TelecomEnv:
    """One conversation at a time.

    It ends where the customer says STOP or is handed over to a person. The reward is 1 if all that
    the task is judged by is so then (`Episode.verdicts`), else 0; the score is the share that is.
    """

    def __init__(
        self,
        find: Callable[[Task], tuple[World, Scenario]],
        customer: Caller,
        *,
        transfer: bool = True,
    ) -> None:
        self._find, self._customer, self._transfer = find, customer, transfer
        self._over = True

    def reset(self, task: Task) -> Observation:
        world, scenario = own(*self._find(task))
        self._tools = usable(world, transfer=self._transfer)
        self._episode = Episode(world, scenario)
        self._over = False
        words = self._customer.open(scenario, self._episode.phone, self._on_phone)
        return self._observe(words)

    def step(self, action: str) -> Observation:
        if self._over:
            raise RuntimeError("No conversation is under way: call reset(task) before step.")
        call = calls.read(action)
        if isinstance(call, calls.Misread):
            return self._observe(f"{TOOL_SAYS}Error: {call.reason}", valid=False)
        if call.name == RESPOND:
            content = call.kwargs["content"]
            self._episode.tell(content)
            words = self._customer.answer(content)
            self._over = STOP in words
            return self._observe(words, valid=not calls.broken(action, call))
        return self._call(call)

    def close(self) -> None:
        self._over = True

    def _on_phone(self, call: Call) -> str:
        return self._episode.act(USER, call)

    def _call(self, call: Call) -> Observation:
        tool = self._tools.get(call.name)
        if tool is None:
            return self._observe(f"{TOOL_SAYS}Unknown action {call.name}", valid=False)
        text = self._episode.act(AGENT, call)
        self._over = call.name == TRANSFER
        return self._observe(TOOL_SAYS + text, valid=fits(tool, call))

    def _observe(self, text: str, *, valid: bool = True) -> Observation:
        episode = self._episode
        won = episode.won()
        return Observation(
            text=text,
            reward=1.0 if self._over and won else 0.0,
            done=self._over,
            state=(
                episode.scenario.id,
                episode.mark(),
                self._customer.key(),
                episode.done,
                episode.heard,
            ),
            score=episode.score(),
            won=won if self._over else None,
            valid=valid,
        )


def fits(tool: Tool, call: Call) -> bool:
    """Whether a call has every argument that its tool needs, and no other than it takes."""
    try:
        signature(tool.run).bind(None, **call.kwargs)
    except TypeError:
        return False
    return True
