"""Checkpoints that are whole or not there: weights, optimiser, and how long every log was.

checkpoints/step-000020/   model.safetensors ..., optimizer.safetensors, state.json
latest                     the name of the newest whole one
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.errors import RunError
from tutelage.policies.base import Trainable

LATEST = "latest"
FOLDER = "checkpoints"
START = "step-000000"
KEEP = 2
"""The newest checkpoints that stay: the last, and one before it should that be damaged."""
STATE = "state.json"
INTERRUPTED = "interrupted"
"""An empty file in a checkpoint that Ctrl-C made."""
Skills = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a run stands after a checkpoint."""

    phase: str  # "warm_start" or "train"
    step: int  # steps of the phase that are done
    logs: Mapping[str, int]  # file name -> length in bytes
    skills: Skills = field(default_factory=dict)  # what each skill has earned, by task family

    @property
    def name(self) -> str:
        return f"{'step' if self.phase == 'train' else 'warm'}-{self.step:06d}"


def save(
    folder: Path,
    state: State,
    student: Trainable,
    optimizer: torch.optim.Optimizer,
    *,
    pinned: str = "",
    interrupted: bool = False,
) -> None:
    """Write a checkpoint beside the others, then point `latest` at it, then drop old ones.

    interrupted  made by Ctrl-C between two regular ones: it drops none, and the next regular one
                 replaces it
    """
    target = folder / FOLDER / state.name
    draft = folder / FOLDER / f".{state.name}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        student.save(draft)
        _as_before(folder, draft)
        save_file(optimizer_tensors(optimizer), draft / "optimizer.safetensors")
        (draft / STATE).write_text(_text(state))
        if interrupted:
            (draft / INTERRUPTED).touch()
        for path in draft.iterdir():
            _sync(path)
        _sync(draft)
        if target.exists():
            shutil.rmtree(target)  # made by a run that was killed before it pointed here
        draft.rename(target)
        _sync(target.parent)
        write_whole(folder / LATEST, state.name + "\n")
    except OSError as error:
        raise RunError(no_room(target, error)) from error
    except SafetensorError as error:
        raise RunError(no_room(target, OSError(0, str(error)))) from error
    if not interrupted:
        drop_interrupted(folder)
        prune(folder, {state.name, pinned})


def _text(state: State) -> str:
    return json.dumps(asdict(state), indent=1) + "\n"


def was_interrupted(folder: Path) -> bool:
    """Whether the newest checkpoint is one that Ctrl-C made."""
    return (folder / LATEST).exists() and (latest(folder) / INTERRUPTED).exists()


def confirm(folder: Path, state: State) -> None:
    """Make the newest checkpoint, which Ctrl-C made, a regular one of the same weights."""
    newest = latest(folder)
    write_whole(newest / STATE, _text(state))
    (newest / INTERRUPTED).unlink()


def drop_interrupted(folder: Path) -> None:
    """Drop the checkpoints that Ctrl-C made, but for the newest of all."""
    newest = latest(folder).name
    for name in names(folder):
        if name != newest and (folder / FOLDER / name / INTERRUPTED).exists():
            _drop(folder, name)


def _as_before(folder: Path, draft: Path) -> None:
    """Take what training never changes, such as the tokenizer, from the checkpoint before: read
    and written again, its files would hold other notes on where they came from."""
    if not (folder / LATEST).exists():
        return
    for old in latest(folder).iterdir():
        if (
            old.suffix in (".json", ".jinja")
            and (draft / old.name).exists()
            and ("safetensors" not in old.name)
        ):
            shutil.copyfile(old, draft / old.name)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and counts by parameter number."""
    return {
        f"{index}.{name}": value
        for index, kept in optimizer.state_dict()["state"].items()
        for name, value in kept.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(path).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new one, never a part."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, encoding="utf-8")
    _sync(draft)
    os.replace(draft, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def latest(folder: Path) -> Path:
    """The newest whole checkpoint of a run."""
    name = (folder / LATEST).read_text().strip()
    found = folder / FOLDER / name
    if not (found / STATE).exists():
        raise RunError(
            f"{folder / LATEST} names the checkpoint {name!r}, which is not in {folder / FOLDER}; "
            "write the name of one that is there into it, or start a new run"
        )
    return found


def read_state(found: Path) -> State:
    try:
        line = json.loads((found / "state.json").read_text())
        return State(**{name: line[name] for name in ("phase", "step", "logs", "skills")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{found / 'state.json'} cannot be read ({error}); write the name of another "
            f"checkpoint into {found.parents[1] / LATEST}, or start a new run"
        ) from error


def no_room(path: Path, error: OSError) -> str:
    return (
        f"{path} could not be written ({error.strerror or error}); make room or choose another "
        "folder, then continue with --resume: everything up to the last checkpoint is kept"
    )


def _order(name: str) -> tuple[bool, str]:
    """Warm starts come first; within a phase, names sort by step."""
    return name.startswith("step"), name


def names(folder: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    found = (folder / FOLDER).glob("*/state.json")
    return sorted((p.parent.name for p in found if p.parent.name[0] != "."), key=_order)


def clean(folder: Path) -> None:
    """Drop what a killed run left: half-written checkpoints, and whole ones it never named."""
    current = latest(folder).name if (folder / LATEST).exists() else ""
    for path in (folder / FOLDER).glob("*"):
        if path.name.startswith(".") or not current or _order(path.name) > _order(current):
            shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, wanted: set[str]) -> None:
    """Drop all checkpoints but the newest two and the wanted ones."""
    for name in names(folder)[:-KEEP]:
        if name not in wanted:
            _drop(folder, name)


def _drop(folder: Path, name: str) -> None:
    """Out of sight in one move: a run killed while it deletes files leaves a draft, which `clean`
    drops, and not half a checkpoint."""
    old, draft = folder / FOLDER / name, folder / FOLDER / f".{name}"
    shutil.rmtree(draft, ignore_errors=True)
    old.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)
