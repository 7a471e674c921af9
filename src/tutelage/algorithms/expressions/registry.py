"""The words of expressions, found by what functions return: a new function is a new word."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType
from typing import get_type_hints

from torch import Tensor

from tutelage import schedules, signals
from tutelage.hints import hindsight
from tutelage.hints.hindsight import Hindsight
from tutelage.maths import divergences, estimators, surrogates
from tutelage.maths.surrogates import Surrogate
from tutelage.objective import Gate, Signal, penalties
from tutelage.objective.penalties import Penalty
from tutelage.schedules import Schedule

KINDS: Mapping[str, str] = {
    "schedule": "numbers that change with the training step",
    "signal": "a number for each sampled token: advantages, weights and reductions",
    "gate": "a weight that follows the student through the minibatches of a step",
    "surrogate": "how an advantage becomes a loss",
    "divergence": "how far apart two distributions over the vocabulary are",
    "estimate": "a divergence seen from the sampled tokens alone",
    "hindsight": "what a view is told of finished episodes when it scores them",
    "penalty": "what is taken off an episode's last reward",
}
COMPARED = ("student", "teacher")
"""A function whose first parameters these are is itself a divergence, or an estimate of one."""

_SIMPLE: tuple[tuple[str, object], ...] = (
    ("schedule", Schedule),
    ("signal", Signal),
    ("gate", Gate),
    ("surrogate", Surrogate),
    ("hindsight", Hindsight),
    ("penalty", Penalty),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A name of expressions.

    plain  the function is what the word means and takes settings after `student` and `teacher`;
           otherwise it is called, and what it returns is meant
    """

    name: str
    kind: str
    call: Callable[..., object]
    plain: bool

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """What may be given in an expression."""
        taken = COMPARED if self.plain else ()
        every = inspect.signature(self.call).parameters
        return {name: p for name, p in every.items() if name not in taken}

    @property
    def usage(self) -> str:
        """The call with its defaults.

        >>> words()["gap"].usage
        "gap(teacher='teacher', student='student')"
        """
        shown = [
            name if p.default is p.empty else f"{name}={_short(p.default)}"
            for name, p in self.parameters.items()
        ]
        return f"{self.name}({', '.join(shown)})" if shown or not self.plain else self.name

    @property
    def meaning(self) -> str:
        """The first sentence of its docstring."""
        text = " ".join((inspect.getdoc(self.call) or "").split("\n\n")[0].split())
        return re.split(r"(?<=\.) (?=[A-Z`])", text)[0].rstrip(".:") + "."


def _short(value: object) -> str:
    return value.name if isinstance(value, Signal) else repr(value)


@cache
def words() -> Mapping[str, Word]:
    """All of them by name, those of one kind together."""
    found = [word for module in _modules() for word in _words_of(module)]
    order = list(KINDS)
    return MappingProxyType({w.name: w for w in sorted(found, key=lambda w: order.index(w.kind))})


def _modules() -> Iterator[ModuleType]:
    yield schedules
    for module in iter_modules(signals.__path__):
        yield import_module(f"{signals.__name__}.{module.name}")
    yield from (surrogates, divergences, estimators, hindsight, penalties)


def _words_of(module: ModuleType) -> Iterator[Word]:
    for name, function in vars(module).items():
        own = inspect.isfunction(function) and function.__module__ == module.__name__
        if own and not name.startswith("_"):
            kind, plain = _kind(module, function)
            if kind:
                yield Word(name=name, kind=kind, call=function, plain=plain)


def _kind(module: ModuleType, function: Callable[..., object]) -> tuple[str, bool]:
    """What a function is a word for, and whether it is that itself; "" for none."""
    if function is schedules.as_schedule:
        return "", False
    returned = get_type_hints(function).get("return")
    compares = "estimate" if module is estimators else "divergence"
    if returned is Tensor and tuple(inspect.signature(function).parameters)[:2] == COMPARED:
        return compares, True
    if returned == Callable[[Tensor, Tensor], Tensor]:
        return compares, False
    return next((kind for kind, type_ in _SIMPLE if returned == type_), ""), False


def table() -> str:
    """All words in Markdown, a table for each kind."""
    lines: list[str] = []
    for kind, what in KINDS.items():
        mine = [word for word in words().values() if word.kind == kind]
        lines += ["", f"### {kind}: {what}", "", "| word | meaning |", "|---|---|"] if mine else []
        lines += [f"| `{_cell(w.usage)}` | {_cell(w.meaning)} |" for w in mine]
    return "\n".join(lines).strip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
