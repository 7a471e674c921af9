"""The travelplanner environment: plan a trip from given information, or look it up first."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from tutelage.types import Observation, Task
from tutelage_worlds.travelplanner import brief, itinerary, texts, tools
from tutelage_worlds.travelplanner.itinerary import Itinerary
from tutelage_worlds.travelplanner.judge import Verdict, judge
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.tables import World
from tutelage_worlds.travelplanner.tools import enquiry

Mode = Literal["sole", "two-stage"]
Reward = Literal["score", "won"]
NO_PLAN: Final = "The plan cannot be read; give Finish[...] with every day and its lines."


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """A task: the query, the world it is about, and the cities that are known to do.

    gold         a plan by the makers of the data, where there is one
    information  what sole planning begins with; empty where it is made from the tables
    """

    world: World
    query: Query
    route: tuple[str, ...]
    gold: Itinerary | None = None
    information: str = ""

    def known(self) -> str:
        """Everything that sole planning begins with."""
        if self.information:
            return self.information
        return texts.listed(list(texts.reference(self.world, self.query, self.route)))


class TravelPlannerEnv:
    """One journey at a time. It ends with a plan, or where the agent is stopped; the reward is
    what the plan is worth then: the share of the constraints that are met, or whether all are."""

    def __init__(self, find: Callable[[Task], Trip], mode: Mode, reward: Reward) -> None:
        self._find, self._mode, self._reward = find, mode, reward
        self._over = True

    def reset(self, task: Task) -> Observation:
        self._trip, self._id = self._find(task), task.id
        self._desk = tools.Desk(self._trip.world)
        self._planning, self._over = self._mode == "sole", False
        self.verdict = Verdict(asked=self._trip.query.hard)
        trip = self._trip
        if not self._planning:
            return self._observe(trip.query.text)
        return self._observe(texts.given(trip.known(), trip.query.text))

    def step(self, action: str) -> Observation:
        if self._over:
            raise RuntimeError("No journey is being planned: call reset(task) before step.")
        return self._plan(action) if self._planning else self._gather(action)

    def close(self) -> None:
        self._over = True

    def _gather(self, action: str) -> Observation:
        answer = self._desk.act(action)
        self._over = answer.over
        if answer.planner is None:
            return self._observe(answer.text, valid=answer.valid)
        self._planning = True
        return self._observe(texts.given(self._desk.notebook(), answer.planner))

    def _plan(self, action: str) -> Observation:
        name, argument = _split(action)
        if name == "CostEnquiry":
            text, valid = enquiry(self._trip.world, argument)
            return self._observe(text, valid=valid)
        plan_text = argument if name == "Finish" else action
        plan = itinerary.read(plan_text) or brief.read(plan_text, self._trip.world)
        if plan is None and name == "Finish":
            return self._observe(NO_PLAN, valid=False)
        if plan is None:
            call = tools.parse(action)[0] or None
            return self._observe(f"Action {call} is not supported.", valid=False)
        self._over = True
        self.verdict = judge(self._trip.world, self._trip.query, plan)
        return self._observe("The plan is finished.")

    def _observe(self, text: str, *, valid: bool = True) -> Observation:
        verdict = self.verdict
        worth = verdict.share if self._reward == "score" else float(verdict.passed)
        return Observation(
            text=text,
            reward=worth if self._over else 0.0,
            done=self._over,
            state=(self._id, self._planning, self._over, verdict.share, self._mark()),
            score=verdict.share,
            won=verdict.passed if self._over else None,
            valid=valid,
        )

    def _mark(self) -> str:
        """A short name for all that was gathered and said."""
        key = repr(self._desk.key()).encode("utf-8", "surrogatepass")
        return blake2b(key, digest_size=8).hexdigest()


def _split(action: str) -> tuple[str, str]:
    """`CostEnquiry[...]` and `Finish[...]` with their arguments, in which lines may break."""
    text = action.strip()
    for name in ("CostEnquiry", "Finish"):
        if text.startswith(f"{name}[") and text.endswith("]"):
            return name, text[len(name) + 1 : -1]
    return "", ""
