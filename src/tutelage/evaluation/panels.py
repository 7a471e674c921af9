"""Panels that everybody can name: explicit lists of tasks and seeds, with a hash of what they show."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import JsonValue

from tutelage.config.plain_file import read_text
from tutelage.envs.base import Suite
from tutelage.errors import ConfigError, did_you_mean
from tutelage.evaluation.evaluate import Panel, fingerprint
from tutelage.types import Task

FOLDER = Path(__file__).parents[1] / "assets" / "panels"
"""A file NAME.json for each panel; `scripts/write_panels.py` writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPanel:
    """A panel as its file describes it.

    suite, options  what is played
    seed            of every draw of an evaluation on it; its repeats draw differently
    tasks           each task's id and its own seed, in the order in which they are reported
    fingerprint     of what the tasks show first: a suite that words anything otherwise has another
    """

    name: str
    suite: str
    options: Mapping[str, JsonValue]
    split: str
    seed: int
    tasks: tuple[tuple[str, int], ...]
    fingerprint: str


@cache
def shipped() -> Mapping[str, NamedPanel]:
    """The panels of this package, by name."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.json"))}


def find(name: str) -> NamedPanel:
    """A panel by its name, or by the path of a file of one.

    Raises ConfigError where there is none.
    """
    if name in shipped():
        return shipped()[name]
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise ConfigError(f"there is no file {path}; give the file or the name of a panel")
        return _read(path)
    raise ConfigError(
        f"there is no panel {name!r}{did_you_mean(name, shipped())}; there are "
        f"{', '.join(shipped())}, and a file of your own, FILE.json"
    )


def _read(path: Path) -> NamedPanel:
    try:
        found = json.loads(read_text(path))
        return NamedPanel(
            name=path.stem,
            suite=str(found["suite"]),
            options=dict(found["options"]),
            split=str(found["split"]),
            seed=int(found["seed"]),
            tasks=tuple((str(name), int(seed)) for name, seed in found["tasks"]),
            fingerprint=str(found["fingerprint"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is no panel ({type(error).__name__}: {error}); it needs suite, options, split, "
            "seed, tasks as [[id, seed], ...] and fingerprint"
        ) from error


def written(named: NamedPanel) -> str:
    """The text of a panel's file."""
    head = {
        "suite": named.suite,
        "options": dict(named.options),
        "split": named.split,
        "seed": named.seed,
        "fingerprint": named.fingerprint,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    tasks = ",\n".join(f"  {json.dumps(list(task))}" for task in named.tasks)
    return "{\n" + "\n".join(lines) + '\n "tasks": [\n' + tasks + "\n ]\n}\n"


def chosen(suite: Suite, named: NamedPanel) -> Panel:
    """The tasks of a panel, in its order.

    Raises ConfigError where the suite lacks one of them, or shows something else in one: results
    would not compare with those of others.
    """
    there: dict[str, Task] = {}
    wanted = dict(named.tasks)
    available = suite.tasks(named.split)
    for i in range(len(available)):
        task = available[i]
        if task.id in wanted:
            there[task.id] = task
            if len(there) == len(wanted):
                break
    missing = [name for name in wanted if name not in there]
    moved = [name for name, task in there.items() if task.seed != wanted[name]]
    if missing or moved:
        what = f"has no task {missing[0]}" if missing else f"has another seed for {moved[0]}"
        raise ConfigError(
            f"the split {named.split} of {named.suite} {what}, so the panel {named.name} cannot be "
            "played on it; use the release that the panel is from, or another panel"
        )
    tasks = tuple(there[name] for name, _ in named.tasks)
    found = fingerprint(suite, tasks)
    if found != named.fingerprint:
        raise ConfigError(
            f"the tasks of the panel {named.name} show something else here (fingerprint {found}, "
            f"not {named.fingerprint}), so results would not compare; use the release and the data "
            "that the panel is from"
        )
    return Panel(split=named.split, tasks=tasks, fingerprint=found)


def named(split: str, fingerprint: str) -> str:
    """The name of the shipped panel with a fingerprint; empty if there is none."""
    same = [
        panel.name
        for panel in shipped().values()
        if (panel.split, panel.fingerprint) == (split, fingerprint)
    ]
    return same[0] if same else ""


def name_of(panel: Panel) -> str:
    """The name of the shipped panel that consists of the same tasks; empty if there is none."""
    return named(panel.split, panel.fingerprint)


def described(panel: Panel) -> str:
    """How a table names what was played."""
    return in_words(panel.split, panel.fingerprint)


def in_words(split: str, fingerprint: str) -> str:
    """The same of a panel that is known by its fingerprint alone.

    >>> in_words("unseen", "0123")
    'not on a shipped panel (0123)'
    """
    name = named(split, fingerprint)
    return f"panel {name} ({fingerprint})" if name else f"not on a shipped panel ({fingerprint})"
