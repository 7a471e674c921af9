"""Settings given in Python, as the values that a TOML file could hold."""

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

from pydantic import JsonValue

from tutelage.config import toml_file
from tutelage.errors import ConfigError


def plain(value: object, where: str, depth: int = 0) -> JsonValue:
    """Tables, lists, texts, numbers and truth values. A path becomes a text, a scalar of numpy or torch
    a number. Raises ConfigError, which names the setting, for everything else."""
    if depth > toml_file.DEEPEST:
        raise ConfigError(f"{where[:80]} nests tables or lists deeper than {toml_file.DEEPEST}")
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return _exactly(value)
    if isinstance(value, Mapping):
        return table(value, where, depth)
    if isinstance(value, list | tuple):
        return [plain(each, where, depth + 1) for each in value]
    if value is None:
        raise ConfigError(f"{where} is None; leave it out to have its default")
    raise ConfigError(
        f"{where} is {type(value).__name__}, which no TOML file could hold; give a number, a text, a "
        "truth value, a list or a table"
    )


def _exactly(value: bool | float | str) -> JsonValue:
    """The value without a class of its own, such as a member of an enumeration."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else float(value)


def table(value: Mapping[Any, object], where: str = "", depth: int = 0) -> dict[str, JsonValue]:
    """A table whose names are texts. Raises ConfigError."""
    found: dict[str, JsonValue] = {}
    for name, each in value.items():
        if not isinstance(name, str):
            place = where or "the configuration"
            raise ConfigError(f"{place} has the name {name!r:.40}; names of settings are texts")
        found[name] = plain(each, f"{where}.{name}" if where else name, depth + 1)
    return found


def settings(overrides: object) -> list[str]:
    """Settings that replace others as texts "section.key=value".

    overrides  a table by full names, or such texts

    Raises ConfigError.
    """
    if isinstance(overrides, Mapping):
        given = table(cast("Mapping[Any, object]", overrides))
        return [f"{key}={toml_file.write_value(value)}" for key, value in given.items()]
    if isinstance(overrides, Sequence) and not isinstance(overrides, str | bytes):
        if wrong := [each for each in overrides if not isinstance(each, str)]:
            raise ConfigError(
                f'a setting is {type(wrong[0]).__name__}; write each as "section.key=value", or give '
                "a dict"
            )
        return list(overrides)
    raise ConfigError(
        f'overrides is {type(overrides).__name__}; give a dict such as {{"update.lr": 1e-4}}, or a list '
        'such as ["update.lr=1e-4"]'
    )


def whole(name: str, value: object, *, least: int) -> None:
    """Raises ConfigError for an argument that is no whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{name} is {value!r:.40}; give a whole number from {least} on")


def number(name: str, value: object, *, least: float = 0.0, most: float = math.inf) -> None:
    """Raises ConfigError for an argument that is no finite number from `least` to `most`."""
    right = isinstance(value, Real) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type, operator]
        bound = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"
        raise ConfigError(f"{name} is {value!r:.40}; give a number {bound}")
