"""What an algorithm is: who acts, who teaches, who learns, and a sum of terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tutelage.objective.penalties import Penalty
from tutelage.objective.step import Signal
from tutelage.objective.takeover import Switch
from tutelage.objective.terms import Distill, Term
from tutelage.objective.view import STUDENT, View
from tutelage.schedules import Schedule

EVENLY = Signal(lambda s: 1 / len(s.batch.token), "token_mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Who acts, who teaches, who learns, and the loss: a value, not a trainer."""

    terms: tuple[Term, ...]
    views: Mapping[str, View] = field(default_factory=dict)  # besides "student"
    actors: Mapping[str, Schedule] = field(default_factory=dict)  # view -> chance of a turn
    # what a token counts in the step's loss, and in the size that a minibatch's is divided by where
    # that is something else: [N], sums to 1
    reduction: Signal = EVENLY
    size: Signal | None = None
    # by name: a finished episode -> what is taken off its last turn's reward (see `penalties`)
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    # dynamic sampling: learn only from groups whose returns differ, and play up to so many batches
    # of tasks until there are enough of them (see `sampling`); 0 learns from all that was played
    rounds: int = 0
    demonstrated: bool = False  # the environment's expert takes every turn (imitation)
    left: Schedule | None = None  # it takes all turns but so many of its last ones, then actors do
    # view -> share of the demonstrated episodes that do what its hint tells, as if it had acted:
    # the environment's plan where that is in it, else what the expert does
    planned: Mapping[str, float] = field(default_factory=dict)
    strays: bool = False  # with wrong turns in it, which nobody imitates
    aloud: bool = False  # the expert says its thoughts
    switch: Switch | None = None  # another view may end a turn that the student began

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"terms of one algorithm need different names to be added up and logged under, got "
                f"{', '.join(names)}: set `name` in one of them"
            )
        for name in self.all_actors():
            if name in self.views and self.views[name].hindsight is not None:
                raise ValueError(
                    f"the view {name!r} has hindsight, which is known once an episode is over, so "
                    "it cannot act: leave it out of the actors, or its hindsight"
                )

        if self.switch is not None and self.switch.to not in self.views:
            raise ValueError(
                f"the switch hands turns to {self.switch.to!r}, which is none of the algorithm's "
                f"views: {', '.join(self.views) or 'it has none'}"
            )

    def all_views(self) -> dict[str, View]:
        return {STUDENT: View(), **self.views}

    def all_actors(self) -> set[str]:
        """The views besides the student that ever write a token."""
        return set(self.actors) | ({self.switch.to} if self.switch is not None else set())

    def trained(self) -> set[str]:
        """The views whose scores carry a gradient."""
        return {term.trains for term in self.terms}

    def followed(self) -> set[str]:
        """The views that are only read, but as they are now: live goals that no term trains."""
        live = {term.teacher for term in self.terms if isinstance(term, Distill) and term.live}
        return live - self.trained()
