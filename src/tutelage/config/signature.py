"""A signature is a schema: call a function with settings from a file, or say which one is wrong."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from tutelage.config.toml_file import write_value
from tutelage.errors import ConfigError, did_you_mean
from tutelage.schedules import SHAPES, Schedule

T = TypeVar("T")


def call(
    function: Callable[..., T],
    given: Mapping[str, JsonValue],
    *,
    where: str,
    filled: Mapping[str, int] | None = None,
) -> T:
    """`function(**given)`, checked against its annotations before.

    where   the section that the settings come from, for messages
    filled  arguments that are not settings: handed over where the function takes them

    A parameter that may be a schedule also takes {linear = [start, end, steps]}, and likewise
    cosine and exponential. Raises ConfigError for what is unknown, missing or does not fit.
    """
    filled = filled or {}
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [n for n, p in parameters.items() if n not in filled and p.kind is not p.VAR_KEYWORD]
    for name in given:
        if name not in names and not open_ended:
            takes = f"it takes {', '.join(names)}" if names else "it takes no settings"
            near = did_you_mean(name, names)
            raise ConfigError(
                f"{where}.{name} is not a setting of {_name(function)}{near}; {takes}"
            )
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            raise ConfigError(f"{where}.{name} is missing; {_name(function)} needs it")
    hints = annotations(function)
    values = {n: _fit(v, hints.get(n, object), f"{where}.{n}") for n, v in given.items()}
    extra = {name: value for name, value in filled.items() if name in parameters}
    try:
        return function(**values, **extra)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"[{where}] does not fit {_name(function)}: {error}") from error


def annotations(function: Callable[..., object]) -> dict[str, object]:
    """The annotations of a function's parameters, or of a class's."""
    return get_type_hints(
        vars(function).get("__init__", function) if isinstance(function, type) else function
    )


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", repr(function))


def _fit(value: JsonValue, hint: object, where: str) -> object:
    if takes_schedule(hint) and isinstance(value, dict):
        return schedule(value, where)
    # a list stands for any sequence, and TOML has no other
    config = ConfigDict(strict=not isinstance(value, list), arbitrary_types_allowed=True)
    try:
        adapter: TypeAdapter[object] = TypeAdapter(hint, config=config)  # type: ignore[arg-type]
        return adapter.validate_python(value)
    except ValidationError:
        raise ConfigError(f"{where} must be {describe(hint)}, got {write_value(value)}") from None


def takes_schedule(hint: object) -> bool:
    """Whether an annotation is `float | Schedule`."""
    return any(get_origin(part) is get_origin(Schedule) for part in get_args(hint))


def schedule(value: Mapping[str, JsonValue], where: str) -> Schedule:
    """{linear = [start, end, steps]} as a function of the step."""
    if len(value) != 1 or next(iter(value)) not in SHAPES:
        raise ConfigError(
            f"{where} is no schedule; write {{linear = [start, end, steps]}}, with one of "
            f"{', '.join(SHAPES)}"
        )
    (shape, numbers), *_ = value.items()
    if (
        not isinstance(numbers, list)
        or len(numbers) != 3
        or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
        or not isinstance(numbers[2], int)
    ):
        raise ConfigError(
            f"{where}.{shape} must be [start, end, steps] with whole steps, got "
            f"{write_value(numbers)}"
        )
    start, end, steps = numbers
    try:
        return SHAPES[shape](float(str(start)), float(str(end)), int(str(steps)))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}


def describe(hint: object) -> str:
    """An annotation in words.

    >>> describe(float | None), describe(int)
    ('a number', 'a whole number')
    """
    if isinstance(hint, type):
        return WORDS.get(hint, hint.__name__)
    options = [part for part in get_args(hint) if part is not type(None)]
    if options and all(isinstance(part, str) for part in options):
        return " or ".join(f'"{part}"' for part in options)
    if takes_schedule(hint):
        return "a number or a schedule such as {linear = [1.0, 0.0, 100]}"
    if get_origin(hint) is not None and isinstance(get_origin(hint), type) and options:
        kind = get_origin(hint)
        if kind in (list, tuple) or "Sequence" in str(kind):
            return "a list"
        if kind is dict or "Mapping" in str(kind):
            return "a table"
    return " or ".join(describe(part) for part in options) if options else str(hint)
