"""Settings given in Python, as the values that a TOML file could hold."""

import os
from collections.abc import Mapping, Sequence
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
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return table(value, where, depth)
    if isinstance(value, list | tuple):
        return [plain(each, where, depth + 1) for each in value]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item(), where, depth + 1)
    if value is None:
        raise ConfigError(f"{where} is None; leave it out to have its default")
    raise ConfigError(
        f"{where} is {type(value).__name__}, which no TOML file could hold; give a number, a text, a "
        "truth value, a list or a table"
    )


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
