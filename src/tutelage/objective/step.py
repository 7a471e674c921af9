"""Signals: one value per sampled token, computed from the whole step.

Shapes: N sampled tokens.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tutelage.errors import ConfigError, function, kind
from tutelage.objective.aligned import Coverage
from tutelage.objective.batch import TokenBatch
from tutelage.objective.lazy_scores import LazyScores, Narrowed
from tutelage.objective.scores import Scores
from tutelage.schedules import Schedule, as_schedule


@dataclass(frozen=True, slots=True)
class Step:
    """Everything a signal may read.

    batch       the sampled tokens, rewards and groups
    scores      every view's scores under the weights before the update
    step        number of the training step, from 0, for schedules
    columns     name -> [N]: what signals computed, so that what is recorded is what was applied.
                Different signals of one name are distinguished by a number
    importance  [N] importance weight of each token if an engine other than the trainer sampled it
                (see `training.sampler_mismatch`), else None
    requested   [N] bool: the tokens whose values will be used, None for all. A signal that is
                `tokenwise` finds scores of those alone, and NaN elsewhere
    coverage    by view, what it says of tokens that are not its own; views with the student's
                tokenizer say something of all of them and are left out
    """

    batch: TokenBatch
    scores: Mapping[str, Scores]
    step: int
    columns: dict[str, Tensor] = field(default_factory=dict)
    importance: Tensor | None = None
    requested: Tensor | None = None
    coverage: Mapping[str, Coverage] = field(default_factory=dict)

    def where_covered(self, view: str, value: Tensor, *, single: bool = False) -> Tensor:
        """A value [N] at the tokens of which a view's scores say something, 0 elsewhere; with
        `single` where its distributions do."""
        known = self.coverage.get(view)
        if known is None:
            return value
        return torch.where(known.single if single else known.covered, value, 0.0)

    def note(self, name: str, value: Tensor) -> None:
        """Record a column [N]; NaN where it was not requested."""
        for free in itertools.chain([name], (f"{name} ({k})" for k in itertools.count(2))):
            known = self.columns.get(free, value)
            if ((known == value) | known.isnan() | value.isnan()).all():
                self.columns[free] = torch.where(known.isnan(), value, known)
                return

    def within(self, tokens: Tensor) -> "Step":
        """The same step for a reader that uses only some tokens [N] bool."""
        requested = tokens if self.requested is None else tokens & self.requested
        full = self.full().scores
        scores = full.within(requested) if isinstance(full, LazyScores) else full
        return replace(self, scores=scores, requested=requested)

    def full(self) -> "Step":
        """The same step for a reader that uses all tokens."""
        scores = self.scores.scores if isinstance(self.scores, Narrowed) else self.scores
        return replace(self, scores=scores, requested=None)

    def weight(self, signal: "Signal") -> Tensor:
        """[N] a signal's values at the requested tokens, 0 elsewhere."""
        if not isinstance(signal, Signal):
            raise ConfigError(
                f"a {type(signal).__name__} stands where a signal belongs; write a function of a step as "
                'tutelage.Signal(function, "its name")'
            )
        value = signal(self)
        return value if self.requested is None else torch.where(self.requested, value, 0.0)

    def request(self, view: str, tokens: Tensor) -> Callable[[], Scores]:
        """A view's scores of some tokens [N] bool, for a loss to read: computed at its first read,
        together with what other terms requested of the view."""
        scores = self.full().scores
        if isinstance(scores, LazyScores):
            return scores.request(view, tokens)
        return lambda: scores[view]


@dataclass(frozen=True, slots=True)
class Signal:
    """A value per sampled token, without gradient. Signals add and multiply as in the papers.

    of          step -> [N], or one number for all tokens
    name        its name in columns, plots and dry runs
    schedules   the schedules in it, shown by a dry run
    tokenwise   at each token it reads no other token's scores. It is then not computed where it is
                multiplied by 0, and scores that only it reads are not computed either
    compares_group  it compares the episodes of a group, so an episode alone in its group gets 0
    views       the views it names; an algorithm that lacks one of them is refused

    What is computed from a signal (a sum, a product, `derived`) has its schedules, views and
    `compares_group` too. Raises ConfigError for values of another kind.
    """

    of: Callable[[Step], Tensor | float]
    name: str
    schedules: tuple[Schedule, ...] = ()
    tokenwise: bool = False
    compares_group: bool = False
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        function("of", self.of, "a function of a step")
        kind("name", self.name, str, "a text")
        for name in ("tokenwise", "compares_group"):
            kind(name, getattr(self, name), bool, "True or False")
        for name, what in (("schedules", "a tuple of schedules"), ("views", "a tuple of names")):
            kind(name, getattr(self, name), tuple | list, what)
        for schedule in self.schedules:
            function("one of the schedules", schedule, "one, such as schedules.constant(0.5)")
        for view in self.views:
            kind("one of the views", view, str, "its name")

    def __call__(self, step: Step) -> Tensor:
        """-> [N] in float32. Raises ConfigError where the function gives something else."""
        count = len(step.batch.token)
        with torch.no_grad():
            found = self.of(step if self.tokenwise else step.full())
            try:
                value = torch.as_tensor(found, dtype=torch.float32)
                value = value.to(step.batch.token.device).expand(count)
            except (TypeError, ValueError, RuntimeError) as error:
                shape = f" of shape {list(found.shape)}" if isinstance(found, Tensor) else ""
                raise ConfigError(
                    f"the signal {self.name!r} gave a {type(found).__name__}{shape}; let its function "
                    f"return a number for each of the step's {count} sampled tokens, or one for all"
                ) from error
        step.note(self.name, value)
        return value

    @property
    def is_one(self) -> bool:
        """Whether it is `ONE`: the same weight 1 for every token."""
        return self is ONE

    def derived(
        self,
        of: Callable[[Step], Tensor | float],
        name: str,
        *others: "Signal",
        tokenwise: bool = False,
    ) -> "Signal":
        """A signal computed from this one, and perhaps from others; it inherits what they
        declare."""
        signals = (self, *others)
        return Signal(
            of,
            name,
            tuple(schedule for signal in signals for schedule in signal.schedules),
            tokenwise,
            any(signal.compares_group for signal in signals),
            tuple(view for signal in signals for view in signal.views),
        )

    def __add__(self, other: "Signal") -> "Signal":
        if not isinstance(other, Signal):
            return NotImplemented
        return Signal(
            lambda s: self(s) + other(s),
            f"({self.name} + {other.name})",
            self.schedules + other.schedules,
            self.tokenwise or other.tokenwise,
            self.compares_group or other.compares_group,
            self.views + other.views,
        )

    def __mul__(self, other: "Signal") -> "Signal":
        if not isinstance(other, Signal):
            return NotImplemented
        # the factor that reads all tokens anyway goes first: the tokenwise one is then computed
        # only where that is not 0
        first, second = sorted((self, other), key=lambda signal: signal.tokenwise)

        def of(s: Step) -> Tensor:
            scale = first(s)
            return torch.where(scale == 0, 0.0, scale * second(s.within(scale != 0)))

        return Signal(
            of,
            f"{self.name} * {other.name}",
            self.schedules + other.schedules,
            self.tokenwise or other.tokenwise,
            self.compares_group or other.compares_group,
            self.views + other.views,
        )

    def __rmul__(self, factor: float | Schedule) -> "Signal":
        scale = as_schedule(factor)
        label = "schedule" if callable(factor) else f"{factor:g}"

        def of(s: Step) -> Tensor:
            now = scale(s.step)
            if now == 0:
                # it requests no tokens, so nothing is scored for it, but its column is recorded
                self(s.within(torch.zeros_like(s.batch.token, dtype=torch.bool)))
                return torch.zeros_like(s.batch.logp)
            return now * self(s)

        return Signal(
            of,
            f"{label} * {self.name}",
            ((factor,) if callable(factor) else ()) + self.schedules,
            self.tokenwise,
            self.compares_group,
            self.views,
        )


ONE = Signal(lambda s: 1.0, "1")
