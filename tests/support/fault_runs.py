"""The run that the tests of faults damage, and what its refusal leaves behind."""

import os
from pathlib import Path

import pytest

from support.tiny_runs import Quiet, changed, tiny_table
from tutelage.config.schema import Config
from tutelage.errors import ConfigError, PolicyError, RunError
from tutelage.runs import train

TABLE = tiny_table(
    run={"steps": 4, "checkpoint_every": 2},
    rollout={"group_size": 2},
    algorithm={"entropy": 0.01},
    warm_start={"name": "sft", "steps": 1, "lr": 3e-3},
    eval={"every": 2, "tasks": 2},
)


def config(folder: Path | str = "run", **changes: object) -> Config:
    return changed(TABLE, run__folder=str(folder), **changes)


def everything(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder, with what it holds."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def refused(settings: Config, folder: Path, *, resume: bool = False) -> str:
    """What a refusal says; it is one line, and nothing in the folder has changed."""
    before = everything(folder)
    with pytest.raises((RunError, ConfigError, PolicyError)) as refusal:
        train.train(settings, resume=resume, watch=Quiet())
    assert everything(folder) == before
    message = str(refusal.value)
    assert "\n" not in message
    return message
