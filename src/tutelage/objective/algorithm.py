"""An algorithm as a value: its views, who acts, and the terms of its loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tutelage.errors import ConfigError, did_you_mean, function, kind
from tutelage.objective.acting import Acting
from tutelage.objective.penalties import Penalty
from tutelage.objective.step import Signal
from tutelage.objective.terms import Distill, DistillSampled, Reinforce, Term
from tutelage.objective.view import STUDENT, View
from tutelage.schedules import Schedule

EVENLY = Signal(lambda s: 1 / len(s.batch.token), "token_mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Who acts, who teaches, who learns, and the loss: a value, not a trainer.

        L = sum over terms of sum_t token_weight_t * term_t

    terms             parts of the loss; each is logged under its own name
    views             by name, the policies in their contexts, besides "student"
    actors            view -> step -> chance that it takes a turn; the student takes the others
    token_weight      [N] weight of each sampled token in the loss; sums to 1 in a mean
    minibatch_weight  [N], sums to 1: what a minibatch's loss is divided by, summed over its
                      tokens. `token_weight` where it is None; sums need it, since their weights
                      do not add up to 1
    penalties         by name: finished episode -> what is subtracted from its last turn's reward
    acting            the expert, takeovers and dynamic sampling

    Raises ConfigError for values of another kind, for two terms of one name, and for views that cannot
    do what is asked of them.
    """

    terms: tuple[Term, ...]
    views: Mapping[str, View] = field(default_factory=dict)
    actors: Mapping[str, Schedule] = field(default_factory=dict)
    token_weight: Signal = EVENLY
    minibatch_weight: Signal | None = None
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    acting: Acting = field(default_factory=Acting)

    def __post_init__(self) -> None:
        terms: object = self.terms
        wrong = [] if isinstance(terms, tuple | list) else [terms]
        wrong += [term for term in self.terms if not hasattr(term, "bind")] if not wrong else []
        if wrong:
            raise ConfigError(
                f"terms has {type(wrong[0]).__name__} where a tuple of terms belongs; write them as in "
                "terms=(tutelage.Reinforce(...),)"
            )
        self._check_kinds()
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"terms of one algorithm need different names to be added up and logged under, got "
                f"{', '.join(names)}: set `name` in one of them"
            )
        for name in self.all_actors():
            if name in self.views and self.views[name].hindsight is not None:
                raise ConfigError(
                    f"the view {name!r} has hindsight, which is known once an episode is over, so "
                    "it cannot act: remove it from the actors, or remove its hindsight"
                )

        takeover = self.acting.takeover
        if takeover is not None and takeover.view not in self.views:
            raise ConfigError(
                f"takeover gives turns to {takeover.view!r}, which is none of the algorithm's "
                f"views: {', '.join(self.views) or 'it has none'}"
            )

    def _check_kinds(self) -> None:
        tables: tuple[tuple[str, object, str], ...] = (
            ("views", self.views, "a dict of tutelage.View by name"),
            ("actors", self.actors, "a dict of schedules by view"),
            ("penalties", self.penalties, "a dict of functions by name"),
        )
        for name, table, what in tables:
            kind(name, table, Mapping, what)
        for name in (*self.views, *self.actors, *self.penalties):
            kind("the name of a view, an actor or a penalty", name, str, "a text")
        for name, view in self.views.items():
            kind(f"views[{name!r}]", view, View, "a tutelage.View")
        for name, chance in self.actors.items():
            function(f"actors[{name!r}]", chance, "a schedule, such as schedules.constant(0.5)")
        for name, penalty in self.penalties.items():
            function(f"penalties[{name!r}]", penalty, "a function of a finished episode")
        kind("token_weight", self.token_weight, Signal, "a tutelage.Signal")
        kind("minibatch_weight", self.minibatch_weight, Signal | None, "a tutelage.Signal, or None")
        kind("acting", self.acting, Acting, "a tutelage.objective.Acting")

    def all_views(self) -> dict[str, View]:
        """Every view by name, the student first."""
        return {STUDENT: View(), **self.views}

    def all_actors(self) -> set[str]:
        """The views besides the student that ever write a token."""
        takeover = self.acting.takeover
        return set(self.actors) | ({takeover.view} if takeover is not None else set())

    def check_views(self) -> None:
        """Refuse names of views that the algorithm does not have, in terms, signals and actors.

        Called where an algorithm is complete: before a run, and when it is bound to a step. Raises
        ConfigError: a view that does not exist would otherwise never act, or have no weight.
        """
        views = self.all_views()
        for place, name in self._names_of_views():
            if name not in views:
                raise ConfigError(
                    f"{place} names the view {name!r}, which the algorithm does not have"
                    f"{did_you_mean(name, views)}; its views are {', '.join(views)}"
                )

    def _names_of_views(self) -> Iterator[tuple[str, str]]:
        """(where it is named, the name) of every view that something refers to."""
        for term in self.terms:
            place = f"the term {term.name!r}"
            yield place, term.trains
            if isinstance(term, Distill | DistillSampled):
                yield place, term.teacher
            signal = (
                term.advantage if isinstance(term, Reinforce) else getattr(term, "weight", None)
            )
            if isinstance(signal, Signal):
                yield from ((f"{signal.name} in {place}", view) for view in signal.views)
        for weight in (self.token_weight, self.minibatch_weight):
            if weight is not None:
                yield from ((weight.name, view) for view in weight.views)
        yield from (("actors", view) for view in self.actors)
        yield from (("acting.hinted_share", view) for view in self.acting.hinted_share)

    def trained(self) -> set[str]:
        """The views whose scores carry a gradient."""
        return {term.trains for term in self.terms}

    def followed(self) -> set[str]:
        """The views that no term trains but that are read under the current weights (`live`)."""
        live = {term.teacher for term in self.terms if isinstance(term, Distill) and term.live}
        return live - self.trained()
