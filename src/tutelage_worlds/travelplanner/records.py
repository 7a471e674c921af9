"""Records of TravelPlanner's files, one by one, checked."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from tutelage.errors import EnvError
from tutelage_worlds.travelplanner.tables import HEADERS, Row

R = TypeVar("R", bound=Row)


def lines(path: Path) -> Iterator[Any]:
    """The values of a file of JSON lines. Raises EnvError for what is not JSON."""
    try:
        with path.open(encoding="utf-8") as file:
            for k, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise EnvError(f"{path}:{k} is not JSON ({error}); get it again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvError(f"{path} could not be read ({error}); get the file again") from None


def rows_of(kind: type[R], content: Any, where: str) -> tuple[R, ...]:
    """The rows of a table; a text in its place says that there are none."""
    if isinstance(content, str):
        return ()
    if not isinstance(content, list):
        raise EnvError(f"{where} must be a list of objects; get the file again")
    return tuple(row(kind, entry, f"{where}, entry {k}") for k, entry in enumerate(content))


def row(kind: type[R], entry: Any, where: str) -> R:
    """A record under its columns' names."""
    if not isinstance(entry, Mapping):
        raise EnvError(f"{where} must be an object; get the file again")
    hints = get_type_hints(kind)
    values = []
    for name, column in zip(kind._fields, HEADERS[kind], strict=True):
        if column not in entry:
            raise EnvError(f"{where} has no {column!r}; get the file again")
        values.append(_value(entry[column], hints[name], f"{where}, {column!r}"))
    return kind(*values)


def _value(value: Any, kind: type, where: str) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if kind is not str and isinstance(value, int | float) and not isinstance(value, bool):
        made = kind(value)
        if made == value:
            return made
    raise EnvError(f"{where} is {value!r} and must be a {kind.__name__}; get the file again")
