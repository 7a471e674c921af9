"""AdaSwitch's rule: when the teacher takes over a turn that the student began."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from tutelage.errors import ConfigError, kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """The student begins each of its turns; where it diverges, another view writes the rest
    (AdaSwitch, arXiv:2510.07842).

    With d_i the divergence of the two at token i and its running mean m_i = ema m_{i-1} +
    (1 - ema) d_i, m_1 = d_1, the other view writes from the first i > 1 on at which

        d_i > factor m_{i-1}  and  d_i > floor
    """

    view: str  # the view that takes over
    factor: float = 1.5
    ema: float = 0.95
    floor: float = 0.0

    def __post_init__(self) -> None:
        kind("view", self.view, str, "the name of a view")
        for name in ("factor", "ema", "floor"):
            kind(name, getattr(self, name), Real, "a number")
        if not (self.factor > 0 and 0 <= self.ema < 1 and self.floor >= 0):
            raise ConfigError(
                "a takeover needs factor > 0, 0 <= ema < 1 and floor >= 0; got "
                f"{self.factor:g}, {self.ema:g} and {self.floor:g}"
            )

    def at(self, divergences: Sequence[float]) -> int | None:
        """The first token that the other view writes; None where the student keeps the turn.

        >>> Takeover(view="teacher", factor=2.0, ema=0.5).at([0.1, 0.1, 0.3, 0.1])
        2
        """
        mean = None
        for i, d in enumerate(divergences):
            if mean is not None and d > max(self.factor * mean, self.floor):
                return i
            mean = d if mean is None else self.ema * mean + (1 - self.ema) * d
        return None
