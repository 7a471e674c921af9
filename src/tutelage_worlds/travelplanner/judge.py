"""Judge plans, and compute TravelPlanner's rates over many of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tutelage_worlds.travelplanner.commonsense import COMMONSENSE, Constraint, Unjudged
from tutelage_worlds.travelplanner.hard import HARD
from tutelage_worlds.travelplanner.itinerary import Itinerary
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.tables import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong with a plan.

    commonsense  constraint -> a sentence, empty where it is met; nothing where no plan was given
    hard         the same for the query's own constraints; nothing where they are not judged
    asked        the hard constraints of the query
    """

    asked: tuple[str, ...]
    commonsense: Mapping[str, str] = field(default_factory=dict)
    hard: Mapping[str, str] = field(default_factory=dict)

    @property
    def delivered(self) -> bool:
        return bool(self.commonsense)

    @property
    def sensible(self) -> bool:
        """Whether all commonsense constraints are met."""
        return self.delivered and not any(self.commonsense.values())

    @property
    def obedient(self) -> bool:
        """Whether all hard constraints are met."""
        return bool(self.hard) and not any(self.hard.values())

    @property
    def passed(self) -> bool:
        return self.sensible and self.obedient

    @property
    def share(self) -> float:
        """The share of the constraints that are met, in [0, 1]; what is not judged is not met."""
        met = [*self.commonsense.values(), *self.hard.values()].count("")
        return met / (len(COMMONSENSE) + len(self.asked))


def judge(world: World, query: Query, plan: Itinerary | None) -> Verdict:
    """All constraints of a plan; None if none was delivered."""
    if not plan:
        return Verdict(asked=query.hard)
    commonsense = {name: _met(check, world, query, plan) for name, check in COMMONSENSE.items()}
    hard = {}
    if not commonsense["complete_information"] and not commonsense["within_sandbox"]:
        hard = {name: _met(HARD[name], world, query, plan) for name in query.hard}
    return Verdict(asked=query.hard, commonsense=commonsense, hard=hard)


def _met(check: Constraint, world: World, query: Query, plan: Itinerary) -> str:
    try:
        return check(world, query, plan)
    except Unjudged as reason:
        return f"it cannot be judged: {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """TravelPlanner's table, each in [0, 1] (arXiv:2402.01622, section 3.4).

    micro rates are over constraints, macro rates over plans; hard constraints that are not judged
    count as not met.
    """

    delivery: float
    commonsense_micro: float
    commonsense_macro: float
    hard_micro: float
    hard_macro: float
    final_pass: float


def rates(verdicts: Iterable[Verdict]) -> Rates:
    """Raises ValueError where there is nothing to be judged."""
    every = list(verdicts)
    if not every:
        raise ValueError("there are no verdicts; judge at least one plan")
    met = sum([*v.commonsense.values()].count("") for v in every)
    met_hard = sum([*v.hard.values()].count("") for v in every)
    return Rates(
        delivery=sum(v.delivered for v in every) / len(every),
        commonsense_micro=met / (len(COMMONSENSE) * len(every)),
        commonsense_macro=sum(v.sensible for v in every) / len(every),
        hard_micro=met_hard / sum(len(v.asked) for v in every),
        hard_macro=sum(v.obedient for v in every) / len(every),
        final_pass=sum(v.passed for v in every) / len(every),
    )
