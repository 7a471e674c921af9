"""The tiny run that the tests of whole runs depart from: two steps on doors, with a new model of one
layer, in seconds on a CPU."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.config import toml_file
from tutelage.config.schema import Config

TINY: dict[str, Any] = {
    "run": {"folder": "run", "steps": 2},
    "env": {"suite": "doors"},
    "rollout": {"tasks_per_step": 2, "max_turns": 3, "max_new_tokens": 4},
    "algorithm": {"name": "grpo"},
    "update": {"lr": 1e-3},
    "policy": {"layers": 1, "build": {"hidden": 16, "context": 160}},
}
TEACHER = {"teacher": {"layers": 1, "build": {"hidden": 32, "context": 160}}}
"""[policies] with a new teacher that is twice as wide."""


def tiny_table(**sections: Any) -> dict[str, Any]:
    """The settings of the tiny run with those of `sections` over them, as files extend each other."""
    return copy.deepcopy(toml_file.merged(TINY, sections))  # tests change what they are given


def tiny_run(**sections: Any) -> Config:
    return toml_file.parse(tiny_table(**sections))


def tiny_file(**sections: Any) -> str:
    """The same as the text of a training file."""
    lines = []
    for name, section in tiny_table(**sections).items():
        parts = section.items() if name == "policies" else [("", section)]
        for part, table in parts:
            lines.append(f"[{name}.{part}]" if part else f"[{name}]")
            lines += [f"{key} = {toml_file.write_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def changed(table: Mapping[str, Any], **changes: object) -> Config:
    """A table with single settings changed: update__lr=1e-4 sets update.lr."""
    changed_table = json.loads(json.dumps(table))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        changed_table[section][name] = value
    return toml_file.parse(changed_table)


UNEQUAL = {"meta.json", "timings.jsonl", ".lock"}
"""Files in which two equal runs differ."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that two equal runs share, checkpoints included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNEQUAL
    }


class Quiet:
    """Watches a run and says nothing."""

    def tested(self, names: object) -> None: ...
    def started(self, config: object, phase: object, step: object) -> None: ...
    def playing(self, done: int, total: int) -> None: ...
    def stepped(self, line: object, seconds: object) -> None: ...
    def evaluated(self, line: object) -> None: ...
    def warned(self, sentence: object) -> None: ...
    def closed(self) -> None: ...
