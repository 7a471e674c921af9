"""Expressions in configurations, such as "linear(1, 0, 80)": from text to schedules and signals.

Only names and calls of known functions, literal or nested arguments, numbers, +, - and * are
accepted; nothing is evaluated as Python. Settings that are schedules may call the functions of
`schedules`; `compose` adds further functions and the kind "signal".
"""

import ast
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from tutelage import schedules
from tutelage.errors import did_you_mean
from tutelage.schedules import SHAPES, Schedule, as_schedule

LONGEST, SHOWN = 4000, 100
"""Longest expression in characters, and longest excerpt of one in a message."""
VIEWS = ("teacher", "student", "reference", "full", "ablated", "actor")
"""Parameters of functions that name a view."""
SUMS = ("number", "schedule", "signal")
"""Kinds that add and multiply; a sum or product has the later kind of its parts."""

COMPARED = ("student", "teacher")
"""A function with these first parameters is itself a divergence, or an estimator of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function that expressions may name.

    kind   the kind of its value: "schedule", "signal", "gate" ...
    plain  the value is the function itself, with settings after `student` and `teacher` (a
           divergence); otherwise the value is the result of calling it
    """

    name: str
    kind: str
    call: Callable[..., object]
    plain: bool

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters that an expression may set."""
        taken = COMPARED if self.plain else ()
        every = inspect.signature(self.call).parameters
        return {name: p for name, p in every.items() if name not in taken}

    @property
    def usage(self) -> str:
        """The call with its defaults.

        >>> SCHEDULES["exponential"].usage
        'exponential(start, end, steps, floor=0.01)'
        """
        parameters = [
            name if p.default is p.empty else f"{name}={_short(p.default)}"
            for name, p in self.parameters.items()
        ]
        return (
            f"{self.name}({', '.join(parameters)})" if parameters or not self.plain else self.name
        )

    @property
    def meaning(self) -> str:
        """The first sentence of its docstring."""
        text = " ".join((inspect.getdoc(self.call) or "").split("\n\n")[0].split())
        return re.split(r"(?<=\.) (?=[A-Z`])", text)[0].rstrip(".:") + "."


def _short(value: object) -> str:
    return str(getattr(value, "name", repr(value)))


_SCHEDULES: Mapping[str, Callable[..., object]] = {"constant": schedules.constant, **SHAPES}

SCHEDULES: Mapping[str, Function] = {
    name: Function(name=name, kind="schedule", call=function, plain=False)
    for name, function in _SCHEDULES.items()
}
"""The functions that settings which are schedules may call."""


class Value(NamedTuple):
    """The value of a part of an expression."""

    kind: str  # of KINDS, or "number" or "literal"
    of: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads expressions.

    functions  the functions that they may call
    types      annotations of those functions' parameters, and the kinds that fit them
    numbers    names that stand for numbers, such as total_steps
    views      the algorithm's views, which arguments may name
    others     actors that are not views: the expert
    signal     number or schedule -> a signal that has this value at every token
    """

    functions: Mapping[str, Function] = field(default_factory=lambda: SCHEDULES)
    types: Sequence[tuple[object, str]] = ((Schedule, "schedule"),)
    numbers: Mapping[str, int] = field(default_factory=dict)
    views: Collection[str] = ()
    others: Collection[str] = ()
    signal: Callable[[float | Schedule], Any] | None = None

    def read(self, text: object, kind: str, where: str) -> Any:
        """The schedule, signal, gate ... that an expression defines; a number is a constant one.

        Raises ValueError with a sentence that begins with `where`."""
        if isinstance(text, int | float) and not isinstance(text, bool):
            text = repr(text)
        if not isinstance(text, str):
            raise ValueError(f"{where} must be an expression in quotes or a number, got {text!r}")
        return _Reading(" ".join(text.split()), where, self).parse(kind)


@dataclass(frozen=True, slots=True)
class _Reading:
    text: str
    where: str
    reader: Reader

    def parse(self, kind: str) -> object:
        if len(self.text) > LONGEST:
            raise ValueError(f"{self.where} is longer than {LONGEST} characters")
        try:
            tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise self.wrong(
                f"it cannot be read ({error.msg})", column=(error.offset or 1) - 1
            ) from None
        except (ValueError, MemoryError, RecursionError):
            raise ValueError(f"{self.where} cannot be read: it is nested too deeply") from None
        return self.converted(self.value(tree), kind, tree)

    def wrong(self, what: str, node: ast.AST | None = None, *, column: int = 0) -> ValueError:
        """A sentence that begins with the place."""
        # ast counts bytes of UTF-8
        at = len(self.text.encode()[: getattr(node, "col_offset", column)].decode(errors="ignore"))
        excerpt = self.text
        if len(excerpt) > SHOWN:
            start = max(0, at - SHOWN // 2)
            excerpt = f"...{excerpt[start : start + SHOWN]}..."
        return ValueError(f'{self.where}, character {at + 1} of "{excerpt}": {what}')

    # -- values

    def value(self, node: ast.expr) -> Value:
        of = self.any_value(node)
        if of.kind == "number":
            self.need_finite(of, node)
        return of

    def need_finite(self, value: Value, node: ast.expr) -> None:
        """Refuse a number or a schedule beyond all floats. Schedules are asked only where they are
        used, since a sum of many would be asked again with each of its parts."""
        if value.kind == "number" and not _finite(_number(value)):
            raise self.wrong("this is no finite number; use smaller ones", node)
        if value.kind == "schedule" and not all(map(_finite, _probed(value))):
            raise self.wrong("this is no finite number at some steps; use smaller ones", node)

    def any_value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=bool() | str() | None as of):
                return Value("literal", of)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                constants = [part.value for part in parts if isinstance(part, ast.Constant)]
                if len(constants) == len(parts):
                    return Value("literal", constants)
            case ast.Constant(value=int() | float() as of) if _finite(of):
                return Value("number", of)
            case ast.Name(id=name):
                return self.name(name, node)
            case ast.Call(func=ast.Name(id=name)):
                return self.call(name, node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
                result = self.summand(self.value(inner), node)
                return self.product(Value("number", -1), result) if _minus(node) else result
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
                a = self.summand(self.value(left), left)
                b = self.summand(self.value(right), right)
                if "signal" in (a.kind, b.kind):
                    self.need_finite(a, left)
                    self.need_finite(b, right)
                if isinstance(op, ast.Mult):
                    return self.product(a, b)
                return self.sum(a, self.product(Value("number", -1), b) if _minus(node) else b)
        raise self.wrong("only function calls, finite numbers, +, - and * can be used here", node)

    def summand(self, value: Value, node: ast.expr) -> Value:
        if value.kind not in SUMS:
            raise self.wrong(
                f"a {value.kind} does not add or multiply; numbers, schedules and signals do", node
            )
        return value

    def sum(self, a: Value, b: Value) -> Value:
        kind = max(a.kind, b.kind, key=SUMS.index)
        if kind == "signal":
            return Value(kind, self.signal(a) + self.signal(b))
        if kind == "schedule":
            f, g = _schedule(a), _schedule(b)
            return Value(kind, _named(lambda step: f(step) + g(step), f"{_text(a)} + {_text(b)}"))
        return Value(kind, _number(a) + _number(b))

    def product(self, a: Value, b: Value) -> Value:
        kind = max(a.kind, b.kind, key=SUMS.index)
        if kind == "signal":
            if a.kind == b.kind:
                return Value(kind, self.signal(a) * self.signal(b))
            factor, signal = (a, b) if b.kind == "signal" else (b, a)
            by = _number(factor) if factor.kind == "number" else _schedule(factor)
            return Value(kind, by * self.signal(signal))
        if kind == "schedule":
            f, g = _schedule(a), _schedule(b)
            return Value(kind, _named(lambda step: f(step) * g(step), f"{_text(a)} * {_text(b)}"))
        return Value(kind, _number(a) * _number(b))

    def signal(self, value: Value) -> Any:
        """A number or a schedule as a signal that has this value at every token."""
        if value.kind == "signal":
            return value.of
        assert self.reader.signal is not None
        return self.reader.signal(_number(value) if value.kind == "number" else _schedule(value))

    # -- functions

    def name(self, name: str, node: ast.expr) -> Value:
        if name in self.reader.numbers:
            return Value("number", self.reader.numbers[name])
        function = self.function(name, node)
        if not function.plain:
            raise self.wrong(f"{name} must be called, as {function.usage}", node)
        return Value(function.kind, function.call)

    def function(self, name: str, node: ast.expr) -> Function:
        if name not in self.reader.functions:
            near = did_you_mean(name, [*self.reader.functions, *self.reader.numbers])
            raise self.wrong(f"there is no function {name!r}{near}", node)
        return self.reader.functions[name]

    def call(self, name: str, node: ast.Call) -> Value:
        function = self.function(name, node)
        given = self.arguments(function, node)
        self.check_views(function, given, node)
        if function.plain:
            built = partial(function.call, **given)
            text = ast.unparse(node) if given else name
            return Value(function.kind, _named(built, text) if given else function.call)
        try:
            of = function.call(**given)
        except ValueError as error:
            raise self.wrong(f"{error}", node) from None
        return Value(
            function.kind, _named(of, ast.unparse(node)) if function.kind == "schedule" else of
        )

    def arguments(self, function: Function, node: ast.Call) -> dict[str, object]:
        parameters = function.parameters
        by_place = [n for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
        if len(node.args) > len(by_place):
            raise self.wrong(
                f"only {len(by_place)} arguments can be given without their names in {function.usage}",
                node,
            )
        named = [
            *zip(by_place, node.args, strict=False),
            *((k.arg, k.value) for k in node.keywords),
        ]
        hints, values = get_type_hints(function.call), dict[str, object]()
        for name, inner in named:
            if name is None or isinstance(inner, ast.Starred):
                raise self.wrong("arguments are written one by one, without *", inner)
            if name not in parameters:
                near = did_you_mean(name, parameters)
                raise self.wrong(f"{function.usage} has no argument {name!r}{near}", inner)
            if name in values:
                raise self.wrong(f"{name} is given twice to {function.name}", inner)
            values[name] = self.argument(inner, hints[name], f"{function.name}'s {name}")
        missing = [n for n, p in parameters.items() if p.default is p.empty and n not in values]
        if missing:
            raise self.wrong(f"{missing[0]} is missing in {function.usage}", node)
        return values

    def argument(self, node: ast.expr, hint: object, what: str) -> object:
        """An argument, converted as its parameter is annotated."""
        value = self.value(node)
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = [kind for option in options for type_, kind in self.reader.types if option == type_]
        for kind in kinds:
            if value.kind == kind or (value.kind in SUMS and kind in SUMS):
                return self.converted(value, kind, node)
        of = value.of
        if int in options and isinstance(of, float) and self.mentions_a_number(node):
            of = max(1, round(of))
        if value.kind in ("number", "literal") and any(fits(of, option) for option in options):
            return of
        expected = " or ".join(kinds or [in_words(option) for option in options])
        raise self.wrong(f"{what} must be {expected}", node)

    def mentions_a_number(self, node: ast.expr) -> bool:
        """Whether it contains a name such as total_steps, so that a fraction may be rounded."""
        return any(isinstance(n, ast.Name) and n.id in self.reader.numbers for n in ast.walk(node))

    def check_views(self, function: Function, given: Mapping[str, object], node: ast.Call) -> None:
        for name in VIEWS:
            p = function.parameters.get(name)
            view = given.get(name, p.default) if p else None
            known = (*self.reader.views, *(self.reader.others if name == "actor" else ()))
            if isinstance(view, str) and view not in known:
                near = did_you_mean(view, self.reader.views)
                raise self.wrong(
                    f"{function.name} reads a view {view!r}, but there are only "
                    f"{', '.join(known)}{near}",
                    node,
                )

    def converted(self, value: Value, kind: str, node: ast.expr) -> object:
        """A value as the expected kind: numbers become constant schedules and signals."""
        self.need_finite(value, node)
        if kind == "signal" and value.kind in SUMS:
            return self.signal(value)
        if kind == "schedule" and value.kind in ("number", "schedule"):
            return _schedule(value)
        if value.kind != kind:
            raise self.wrong(f"this is a {value.kind}, but a {kind} is expected here", node)
        return value.of


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer larger than any float
        return False


def _minus(node: ast.UnaryOp | ast.BinOp) -> bool:
    return isinstance(node.op, ast.USub | ast.Sub)


def _number(value: Value) -> float:
    assert isinstance(value.of, int | float)
    return value.of


def _schedule(value: Value) -> Schedule:
    return as_schedule(value.of)  # type: ignore[arg-type]


def _probed(value: Value) -> Iterator[float]:
    """A schedule's values at the first steps, and at some later ones. None takes long to compute,
    and what grows beyond all floats is in general beyond them at one of these."""
    at = _schedule(value)
    return map(at, (*range(64), *(2**k for k in range(6, 64))))


def _text(value: Value) -> str:
    return f"{value.of:g}" if value.kind == "number" else str(getattr(value.of, "__name__", ""))


def _named(function: object, text: str) -> Callable[..., object]:
    """A function whose name is the text that it was written as."""

    def of(*arguments: object) -> object:
        assert callable(function)
        return function(*arguments)

    of.__name__ = text
    return of


def fits(value: object, hint: object) -> bool:
    """Whether a literal has an annotation's type; integers fit `float` too."""
    if get_origin(hint) is Literal:
        return any(value == option for option in get_args(hint))
    if get_origin(hint) is Sequence:
        inner = get_args(hint)[0]
        return isinstance(value, list) and all(fits(part, inner) for part in value)
    if hint in (int, float):
        kinds = int if hint is int else int | float
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


WORDS = {float: "a number", int: "an integer", bool: "true or false", str: "a string"}


def takes_schedule(hint: object) -> bool:
    """Whether an annotation is `float | Schedule`."""
    return any(part == Schedule for part in get_args(hint))


def in_words(hint: object) -> str:
    """An annotation in plain words, for messages.

    >>> in_words(float | None), in_words(int)
    ('a number', 'an integer')
    """
    if isinstance(hint, type):
        return WORDS.get(hint, hint.__name__)
    options = [part for part in get_args(hint) if part is not type(None)]
    if options and all(isinstance(part, str) for part in options):
        return " or ".join(f'"{part}"' for part in options)
    if takes_schedule(hint):
        return 'a number or a schedule such as "linear(1, 0, 100)"'
    if get_origin(hint) is not None and isinstance(get_origin(hint), type) and options:
        kind = get_origin(hint)
        if kind in (list, tuple) or "Sequence" in str(kind):
            return "a list"
        if kind is dict or "Mapping" in str(kind):
            return "a table"
    return " or ".join(in_words(part) for part in options) if options else str(hint)
