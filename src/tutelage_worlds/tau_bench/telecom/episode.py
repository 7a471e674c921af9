"""A telecom task under way: both sides' state, what each side does, and how the task is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from tutelage.errors import EnvError
from tutelage_worlds.tau_bench.database import Database, Key, Record
from tutelage_worlds.tau_bench.scenario import Scenario, World, mentions
from tutelage_worlds.tau_bench.telecom import company, phone
from tutelage_worlds.tau_bench.telecom.company import COMPANY
from tutelage_worlds.tau_bench.telecom.phone import PHONE, Phone
from tutelage_worlds.tau_bench.telecom.records import ACTIVE, PAID
from tutelage_worlds.tau_bench.tools import ERRORS, Call, Tools, perform

AGENT, USER = "assistant", "user"
"""The two sides, as tau2-bench's files name them."""

TOOLS: Final[Mapping[str, Tools]] = {AGENT: COMPANY, USER: PHONE}
BEGIN: Final[Mapping[str, Mapping[str, Callable[..., Any]]]] = {
    # a task may also begin with what a tool of the side does
    AGENT: company.BEGIN | {name: tool.run for name, tool in COMPANY.items()},
    USER: dict(phone.BEGIN) | {name: tool.run for name, tool in PHONE.items()},
}
CHECKS: Final[Mapping[str, Mapping[str, Callable[..., bool]]]] = {
    AGENT: company.CHECKS,
    USER: phone.CHECKS,
}
ASSERTIONS, ACTIONS, DATABASE, COMMUNICATED = "ENV_ASSERTION", "ACTION", "DB", "COMMUNICATE"
BASES: Final = (ASSERTIONS, ACTIONS, DATABASE, COMMUNICATED)
"""What a task can be judged by: `reward_basis` of tau2-bench's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A call of one side. `compare` names the arguments that must be the same for another call to
    count as this one; with None those of the other call, as in tau2-bench."""

    side: str
    call: Call
    compare: tuple[str, ...] | None = None

    def fits(self, call: Call) -> bool:
        if call.name != self.call.name:
            return False
        names = call.kwargs.keys() if self.compare is None else self.compare
        expected = {k: v for k, v in self.call.kwargs.items() if k in names}
        return not names or expected == {k: v for k, v in call.kwargs.items() if k in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must be so at the end, or must not (`holds`)."""

    side: str
    call: Call
    holds: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TelecomScenario(Scenario):
    """`setup` brings company and phone into the state that the task begins with, `steps` are the
    task's own actions of both sides, and `checks` with `basis` judge it."""

    setup: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    checks: tuple[Check, ...] = ()
    basis: frozenset[str] = frozenset((ASSERTIONS,))
    kind: str = "telecom"

    @property
    def family(self) -> str:
        """What the customer calls about."""
        return self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class TelecomWorld(World):
    """`first` is the state of every phone before its task begins."""

    first: Record = field(default_factory=dict)


class Episode:
    """Both sides of one task. Raises EnvError for a task that cannot begin."""

    def __init__(self, world: TelecomWorld, scenario: TelecomScenario) -> None:
        self.world, self.scenario = world, scenario
        self.data, self.phone = Database(world.store), Phone(world.first)
        self.done: frozenset[int] = frozenset()
        """Which of the task's steps were done."""
        self.heard: frozenset[str] = frozenset()
        try:
            self.sync()
            for step in scenario.setup:
                BEGIN[step.side][step.call.name](self._state(step.side), **step.call.kwargs)
                self.sync()
        except ERRORS as error:
            raise EnvError(
                f"the task {scenario.id} cannot begin with the tables beside it ({error}); get "
                "the files again, all of one version"
            ) from error

    def _state(self, side: str) -> Database | Phone:
        return self.data if side == AGENT else self.phone

    def act(self, side: str, call: Call) -> str:
        """Do a call of one side; what its tool answers."""
        fits = {k for k, step in enumerate(self.scenario.steps) if step.fits(call)}
        self.done |= fits
        text = perform(TOOLS[side], self._state(side), call)
        if not text.startswith("Error:"):
            self.sync()
        return text

    def tell(self, content: str) -> None:
        """Note what the agent tells the customer."""
        outputs = self.scenario.outputs
        self.heard |= {output for output in outputs if mentions(output, content)}

    def sync(self) -> None:
        """What one side did reaches the other: the state of the line, roaming, used-up data, and
        payments."""
        around = self.phone.around
        if around["phone_number"] is None:
            return
        line = company.line_of_number(self.data, around["phone_number"])
        plan = company.one(self.data, "plans", line["plan_id"])
        around["line_active"] = line["status"] == ACTIVE
        around["roaming_allowed"] = bool(line["roaming_enabled"])
        limit = plan["data_limit_gb"] + line["data_refueling_gb"]
        around["mobile_data_usage_exceeded"] = bool(line["data_used_gb"] >= limit)
        asked = around["payment_request"]
        if asked is not None and asked["paid"]:
            company.one(self.data, "bills", asked["bill_id"])
            self.data["bills"].edit(asked["bill_id"])["status"] = PAID
            asked = around["payment_request"] = None
        if asked is None:
            customer = company.customer_of_number(self.data, around["phone_number"])
            for bill in company.awaiting(self.data, customer)[:1]:
                around["payment_request"] = {
                    "bill_id": bill["bill_id"],
                    "amount_due": bill["total_due"],
                    "paid": False,
                }

    # -- judging

    def holds(self, check: Check) -> bool:
        """Whether a check is as it should be; one that fails to run is not."""
        try:
            found = CHECKS[check.side][check.call.name]
            return found(self._state(check.side), **check.call.kwargs) == check.holds
        except ERRORS:
            return False

    def verdicts(self) -> list[bool]:
        """For each thing that the task is judged by, in the order of `BASES`, whether it is so."""
        scenario, found = self.scenario, []
        if ASSERTIONS in scenario.basis:
            found += [self.holds(check) for check in scenario.checks]
        if ACTIONS in scenario.basis:
            found += [k in self.done for k in range(len(scenario.steps))]
        if DATABASE in scenario.basis:
            found.append(self.ended() == self._goal())
        if COMMUNICATED in scenario.basis:
            found += [output in self.heard for output in scenario.outputs]
        return found

    def won(self) -> bool:
        return all(self.verdicts())

    def score(self) -> float:
        """The share of what the task is judged by that is so, 1 if there is nothing."""
        found = self.verdicts()
        return sum(found) / len(found) if found else 1.0

    def ended(self) -> dict[Key, str]:
        """All that has changed: the company's records, and the phone."""
        return self.data.changes() | {("phone", ""): self.phone.mark()}

    def _goal(self) -> dict[Key, str]:
        """What the task's own steps make of both sides; computed once."""
        goals, id = self.world.goals, self.scenario.id
        if id not in goals:
            goals[id] = replayed(self.world, self.scenario, self.scenario.steps).ended()
        return goals[id]

    def mark(self) -> str:
        """A short name for what both sides have become."""
        text = repr(sorted(self.ended().items()))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def replayed(
    world: TelecomWorld, scenario: TelecomScenario, steps: tuple[Step, ...] | list[Step]
) -> Episode:
    """The task after calls of both sides, without any conversation."""
    episode = Episode(world, scenario)
    for step in steps:
        episode.act(step.side, step.call)
    return episode
