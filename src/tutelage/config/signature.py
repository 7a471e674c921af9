"""Call a function with settings from a file, checked against the function's signature."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar, get_type_hints

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from tutelage.config.expressions import Reader, in_words, takes_schedule
from tutelage.config.renamed import ALIASES
from tutelage.config.toml_file import write_value
from tutelage.errors import ConfigError, did_you_mean
from tutelage.schedules import Schedule

T = TypeVar("T")


def call(
    function: Callable[..., T],
    given: Mapping[str, JsonValue],
    *,
    where: str,
    filled: Mapping[str, int] | None = None,
) -> T:
    """`function(**given)`, after a check against its annotations.

    where   the section that the settings come from, for messages
    filled  arguments that are not settings, passed if the function has such parameters

    A parameter that may be a schedule also takes an expression such as "linear(1, 0, 80)", which may
    use the names in `filled`: "cosine(1, 0, 0.8 * total_steps)". Raises ConfigError for settings
    that are unknown, missing or of a wrong type.
    """
    filled = filled or {}
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [n for n, p in parameters.items() if n not in filled and p.kind is not p.VAR_KEYWORD]
    for name in given:
        if name not in names and not open_ended:
            takes = f"it takes {', '.join(names)}" if names else "it takes no settings"
            near = _elsewhere(name, names) or did_you_mean(name, names)
            raise ConfigError(
                f"{where}.{name} is not a setting of {_name(function)}{near}; {takes}"
            )
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            raise ConfigError(f"{where}.{name} is missing; {_name(function)} needs it")
    hints = annotations(function)
    values = {n: _fit(v, hints.get(n, object), f"{where}.{n}", filled) for n, v in given.items()}
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


def _elsewhere(name: str, names: Sequence[str]) -> str:
    """The argument that other tools call by this name, if it is one of `names`."""
    found = ALIASES.get(name.lower()) or (f"algorithm.{BETA}" if name == "beta" else "")
    section, _, ours = found.partition(".")
    return f"; did you mean {ours}?" if section == "algorithm" and ours in names else ""


BETA = "kl"
"""What TRL calls beta in GRPO; methods that have a `beta` mean something else by it."""


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", repr(function))


def _fit(value: JsonValue, hint: object, where: str, numbers: Mapping[str, int]) -> object:
    if takes_schedule(hint) and isinstance(value, str):
        return schedule(value, where, numbers)
    # TOML has only lists, which stand for any sequence
    config = ConfigDict(
        strict=not isinstance(value, list), arbitrary_types_allowed=True, allow_inf_nan=False
    )
    try:
        adapter: TypeAdapter[object] = TypeAdapter(hint, config=config)  # type: ignore[arg-type]
        return adapter.validate_python(value)
    except ValidationError:
        given = write_value(value)
        shown = given if len(given) < 60 else f"{given[:57]}..."
        endless = isinstance(value, float) and not math.isfinite(value)
        kind = "a finite number" if endless else in_words(hint)
        raise ConfigError(f"{where} must be {kind}, got {shown}") from None


def schedule(value: str, where: str, numbers: Mapping[str, int] = MappingProxyType({})) -> Schedule:
    """The schedule that "linear(1, 0, 80)" means. Raises ConfigError."""
    try:
        found: Schedule = Reader(numbers=numbers).read(value, "schedule", where)
    except ValueError as error:
        raise ConfigError(f"{error}") from None
    return found
