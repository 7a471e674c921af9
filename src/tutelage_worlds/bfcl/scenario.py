"""A task of bfcl: what the user says turn by turn, and the calls that are right."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

FAMILIES: Final = ("base", "miss_func", "miss_param", "long_context")
"""The benchmark's categories of tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a function of an API."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """As Python writes it.

        >>> Call(name="cd", arguments={"folder": "docs"}).text()
        "cd(folder='docs')"
        """
        inside = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({inside})"


def written(calls: Sequence[Call]) -> str:
    """An action that makes calls.

    >>> written([Call(name="pwd"), Call(name="ls", arguments={"a": True})])
    '[pwd(), ls(a=True)]'
    """
    return f"[{', '.join(call.text() for call in calls)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the user says, the functions that are added with it, and the right calls. None is right
    where something is missing: a function, or what a function must be told."""

    says: str
    calls: tuple[Call, ...] = ()
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`apis` are names of the classes, `start` is what each begins with."""

    id: str
    family: str
    apis: tuple[str, ...]
    start: Mapping[str, Mapping[str, Any]]
    turns: tuple[Turn, ...]

    @property
    def long(self) -> bool:
        return self.family == "long_context"

    @property
    def held(self) -> frozenset[str]:
        """The functions that are added later."""
        return frozenset(name for turn in self.turns for name in turn.added)


def result_text(value: object) -> str:
    """What a function returned, as the benchmark words it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        try:
            return json.dumps(value)
        except (TypeError, ValueError):
            return str(value)
    return str(value)
