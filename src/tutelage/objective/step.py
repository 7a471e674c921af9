"""What a signal is: a number per sampled token, read from all that a step knows.

Shapes: N sampled tokens.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tutelage.objective.batch import TokenBatch
from tutelage.objective.lazy_scores import LazyScores, Narrowed
from tutelage.objective.scores import Scores
from tutelage.schedules import Schedule, as_schedule


@dataclass(frozen=True, slots=True)
class Step:
    """All that a signal may look at: the batch, every view's scores before the update, the step.

    `importance` is what a sampled token counts [N] where another engine than the trainer drew it
    (see `mismatch`), None where it did not.

    Signals leave what they computed in `columns`, [N] each, under their names: what is recorded
    is what was applied. Signals that share a name and differ are told apart by a number.

    `wanted` are the tokens [N] that something is asked of, None all: a signal that is `tokenwise`
    finds scores of those alone, and NaN elsewhere.
    """

    batch: TokenBatch
    scores: Mapping[str, Scores]
    step: int
    columns: dict[str, Tensor] = field(default_factory=dict)
    importance: Tensor | None = None
    wanted: Tensor | None = None

    def note(self, name: str, value: Tensor) -> None:
        """Record a column [N]; what is NaN in it was not asked for."""
        for free in itertools.chain([name], (f"{name} ({k})" for k in itertools.count(2))):
            known = self.columns.get(free, value)
            if ((known == value) | known.isnan() | value.isnan()).all():
                self.columns[free] = torch.where(known.isnan(), value, known)
                return

    def within(self, tokens: Tensor) -> "Step":
        """The same step for somebody who asks of some tokens [N] only."""
        wanted = tokens if self.wanted is None else tokens & self.wanted
        whole = self.whole().scores
        scores = whole.within(wanted) if isinstance(whole, LazyScores) else whole
        return replace(self, scores=scores, wanted=wanted)

    def whole(self) -> "Step":
        """The same step for somebody who asks of all tokens."""
        scores = self.scores.whole if isinstance(self.scores, Narrowed) else self.scores
        return replace(self, scores=scores, wanted=None)

    def weight(self, signal: "Signal") -> Tensor:
        """What a signal gives the tokens [N] that are asked of, 0 elsewhere."""
        value = signal(self)
        return value if self.wanted is None else torch.where(self.wanted, value, 0.0)

    def want(self, view: str, tokens: Tensor) -> Callable[[], Scores]:
        """A view's scores of some tokens [N], for a loss to read: taken when it first does."""
        scores = self.whole().scores
        if isinstance(scores, LazyScores):
            return scores.want(view, tokens)
        return lambda: scores[view]


@dataclass(frozen=True, slots=True)
class Signal:
    """A number per sampled token, without gradient. Signals add and multiply like the paper's.

    A signal that is `tokenwise` reads of views' scores none but a token's own. Where it is
    multiplied by 0 it is not asked, and what only it reads is not scored.
    """

    of: Callable[[Step], Tensor | float]
    name: str
    schedules: tuple[Schedule, ...] = ()  # that are in it, for a plan to show
    tokenwise: bool = False

    def __call__(self, step: Step) -> Tensor:
        """-> [N] in float32."""
        with torch.no_grad():
            value = torch.as_tensor(
                self.of(step if self.tokenwise else step.whole()), dtype=torch.float32
            )
            value = value.to(step.batch.token.device).expand(len(step.batch.token))
        step.note(self.name, value)
        return value

    def __add__(self, other: "Signal") -> "Signal":
        return Signal(
            lambda s: self(s) + other(s),
            f"({self.name} + {other.name})",
            self.schedules + other.schedules,
            self.tokenwise or other.tokenwise,
        )

    def __mul__(self, other: "Signal") -> "Signal":
        # what needs all scores anyway says first where the other is needed
        first, second = sorted((self, other), key=lambda signal: signal.tokenwise)

        def of(s: Step) -> Tensor:
            scale = first(s)
            return torch.where(scale == 0, 0.0, scale * second(s.within(scale != 0)))

        return Signal(
            of,
            f"{self.name} * {other.name}",
            self.schedules + other.schedules,
            self.tokenwise or other.tokenwise,
        )

    def __rmul__(self, factor: float | Schedule) -> "Signal":
        scale = as_schedule(factor)
        label = "schedule" if callable(factor) else f"{factor:g}"

        def of(s: Step) -> Tensor:
            now = scale(s.step)
            if now == 0:
                self(s.within(torch.zeros_like(s.batch.token, dtype=torch.bool)))
                return torch.zeros_like(s.batch.logp)
            return now * self(s)

        return Signal(
            of,
            f"{label} * {self.name}",
            ((factor,) if callable(factor) else ()) + self.schedules,
            self.tokenwise,
        )


ONE = Signal(lambda s: 1.0, "1")
