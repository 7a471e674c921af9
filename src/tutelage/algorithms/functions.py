"""The functions that expressions of `compose` may call, found by the types that they return."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType
from typing import get_type_hints

from torch import Tensor

from tutelage import schedules, signals
from tutelage.config.expressions import COMPARED, Function, Reader
from tutelage.hints import hindsight
from tutelage.hints.hindsight import Hindsight
from tutelage.maths import divergences, estimators, surrogates
from tutelage.maths.distributions import Divergence
from tutelage.maths.surrogates import Surrogate
from tutelage.objective import ONE, Gate, Signal, penalties
from tutelage.objective.penalties import Penalty
from tutelage.schedules import Schedule
from tutelage.types import EXPERT, WRONG_TURN

KINDS: Mapping[str, str] = {
    "schedule": "values that change with the training step",
    "signal": "a value for each sampled token: advantages, weights and reductions",
    "gate": "a weight that is recomputed from the student in each minibatch",
    "surrogate": "how an advantage becomes a loss",
    "divergence": "the divergence of two distributions over the vocabulary",
    "estimate": "a divergence estimated from the sampled tokens",
    "hindsight": "text about a finished episode in the prompt of a view that scores it",
    "penalty": "what is subtracted from an episode's last reward",
}
_TYPES: tuple[tuple[object, str], ...] = (
    (Signal, "signal"),
    (Schedule, "schedule"),
    (Gate, "gate"),
    (Surrogate, "surrogate"),
    (Divergence, "divergence"),
    (Hindsight, "hindsight"),
    (Penalty, "penalty"),
)
"""Annotations of arguments, and the kinds of value that fit them."""

_SIMPLE: tuple[tuple[str, object], ...] = (
    ("schedule", Schedule),
    ("signal", Signal),
    ("gate", Gate),
    ("surrogate", Surrogate),
    ("hindsight", Hindsight),
    ("penalty", Penalty),
)


@cache
def functions() -> Mapping[str, Function]:
    """All of them by name, those of one kind together."""
    found = [function for module in _modules() for function in _functions_of(module)]
    order = list(KINDS)
    return MappingProxyType({w.name: w for w in sorted(found, key=lambda w: order.index(w.kind))})


def _modules() -> Iterator[ModuleType]:
    yield schedules
    for module in iter_modules(signals.__path__):
        yield import_module(f"{signals.__name__}.{module.name}")
    yield from (surrogates, divergences, estimators, hindsight, penalties)


def _functions_of(module: ModuleType) -> Iterator[Function]:
    for name, function in vars(module).items():
        defined_here = inspect.isfunction(function) and function.__module__ == module.__name__
        if defined_here and not name.startswith("_"):
            kind, plain = _kind(module, function)
            if kind:
                yield Function(name=name, kind=kind, call=function, plain=plain)


def _kind(module: ModuleType, function: Callable[..., object]) -> tuple[str, bool]:
    """The kind of value that a function stands for ("" for none), and whether the function itself is
    that value instead of its result."""
    if function is schedules.as_schedule:
        return "", False
    returned = get_type_hints(function).get("return")
    compares = "estimate" if module is estimators else "divergence"
    if returned is Tensor and tuple(inspect.signature(function).parameters)[:2] == COMPARED:
        return compares, True
    if returned == Callable[[Tensor, Tensor], Tensor]:
        return compares, False
    return next((kind for kind, type_ in _SIMPLE if returned == type_), ""), False


def reader(*, numbers: Mapping[str, int], views: Collection[str]) -> Reader:
    """A reader of expressions that may name every function, with an algorithm's views."""
    return Reader(
        functions=functions(),
        types=_TYPES,
        numbers=numbers,
        views=views,
        others=(EXPERT, WRONG_TURN),
        signal=lambda factor: factor * ONE,
    )


def table() -> str:
    """All functions in Markdown, a table for each kind."""
    lines: list[str] = []
    for kind, what in KINDS.items():
        rows = [function for function in functions().values() if function.kind == kind]
        lines += (
            ["", f"### {kind}: {what}", "", "| function | meaning |", "|---|---|"] if rows else []
        )
        lines += [f"| `{_cell(w.usage)}` | {_cell(w.meaning)} |" for w in rows]
    return "\n".join(lines).strip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
