"""Tasks that a user lists, by a function or in a file of JSON lines."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.config.trust import NAMED
from tutelage.envs.guard import Broken, attempt
from tutelage.envs.named_code import named
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Task

Listed = Sequence[Task | Mapping[str, Any] | str]


def listed_tasks(listed: str | Callable[..., Any], split: str, *, prefix: str) -> list[Task]:
    """The tasks of a split.

    listed  a function of the name of a split, itself or as "module:name", or a file of JSON lines
    prefix  what the ids of tasks without one begin with
    """
    found: Listed
    if isinstance(listed, str) and not NAMED.fullmatch(listed):
        found = _lines(Path(listed), split)
    else:
        found = function(listed, where="env.options.tasks", what="a function that lists tasks")(
            split
        )
    return [task_of(each, split, k, prefix) for k, each in enumerate(found)]


def function(given: str | Callable[..., Any], *, where: str, what: str) -> Callable[..., Any]:
    """A user's function, itself or as "module:name". Raises ConfigError where there is none."""
    if not isinstance(given, str):
        return given
    module, _, name = given.partition(":")
    found = named(module, name, where=where, what=what, declared=lambda found: False)
    return found  # type: ignore[return-value]


def task_of(value: Task | Mapping[str, Any] | str, split: str, index: int, prefix: str) -> Task:
    """A task as it is listed: a `Task`, a text, or a table with `id`, `family`, `seed` and data."""
    if isinstance(value, Task):
        return value
    if isinstance(value, str):
        value = {"question": value}
    if not isinstance(value, Mapping):
        raise EnvError(
            f"task {index} of {split} is {type(value).__name__}; list texts, dicts or "
            "tutelage.types.Task"
        )
    data = {
        str(k): v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
        for k, v in value.items()
        if k not in ("id", "family", "seed", "split")
    }
    seed = value.get("seed", index)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise EnvError(f"task {index} of {split} has the seed {seed!r}; give a whole number")
    return Task(
        id=str(value.get("id", f"{prefix}/{split}/{index:07d}")),
        family=str(value.get("family", "")),
        seed=seed,
        data=data,
    )


def _lines(path: Path, split: str) -> list[Mapping[str, Any]]:
    """The tasks of a split in a file of JSON lines; a line without a split is in train."""
    found: list[Mapping[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                value = attempt(f"line {number} of {path}", lambda text=line: json.loads(text))  # type: ignore[misc]
                if not isinstance(value, dict):
                    raise ConfigError(
                        f"env.options.tasks: line {number} of {path} is not a JSON object; write "
                        'each task as {"id": ..., ...}'
                    )
                if value.get("split", "train") == split:
                    found.append(value)
    except Broken as error:
        raise ConfigError(f"env.options.tasks: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"env.options.tasks: {path} cannot be read ({error})") from error
    return found
