"""A run is a folder: claimed once, described, locked while it is trained in, and continued.

config.toml      every setting as resolved
meta.json        versions, machine, seed, the panel's fingerprint
episodes.jsonl   every episode that was played; metrics.jsonl, evals.jsonl, columns.jsonl
hints.jsonl      the hints that the student wrote for itself
timings.jsonl    the only file besides meta.json that two equal runs do not share
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch

from tutelage import __version__, cpu
from tutelage.config.schema import Config
from tutelage.config.toml_file import differences, load, write
from tutelage.errors import NAME, RunError
from tutelage.rollout import record
from tutelage.runs import checkpoint

CONFIG, META, LOCK = "config.toml", "meta.json", ".lock"
HINTS = "hints.jsonl"
LOGS = ("episodes.jsonl", "metrics.jsonl", "evals.jsonl", "columns.jsonl", HINTS)
TIMINGS = "timings.jsonl"
HARMLESS = {
    "run.folder",
    "run.checkpoint_every",
    "policy.gradient_checkpointing",
}
"""Settings that change no result, so that a run may be continued with others."""


@dataclass(kw_only=True)
class RunFolder:
    """An open run: its logs, and where it stands (None before the first checkpoint)."""

    path: Path
    state: checkpoint.State | None
    lock: int
    logs: dict[str, record.Log] = field(default_factory=dict)

    def log(self, name: str) -> record.Log:
        if name not in self.logs:
            self.logs[name] = record.Log(self.path / name)
        return self.logs[name]

    def flush(self) -> dict[str, int]:
        """Hand all lines to the system, so that they outlive this process; the files' lengths."""
        if TIMINGS in self.logs:
            self.logs[TIMINGS].flush()
        return {name: self.log(name).flush() for name in LOGS}

    def lengths(self) -> dict[str, int]:
        """Put all lines on the disk, so that they outlive the machine; the files' lengths."""
        if TIMINGS in self.logs:
            self.logs[TIMINGS].sync()
        return {name: self.log(name).sync() for name in LOGS}

    def close(self) -> None:
        try:
            for log in self.logs.values():
                log.close()
        finally:
            os.close(self.lock)


def claim(config: Config, *, steps_matter: bool, resume: bool) -> RunFolder:
    """Make a run's folder, or go back to its last checkpoint. `begin` then makes it a run.

    steps_matter  whether a schedule depends on run.steps, which then must not change

    Raises RunError for a folder that holds a run (without `resume`) or holds none (with it), whose
    settings differ, or in which another process trains.
    """
    path = Path(config.run.folder)
    there = (path / CONFIG).exists()
    if there and not resume:
        raise RunError(
            f"{path} already holds a run; continue it with --resume, or choose another folder "
            "with run.folder=NAME"
        )
    if resume and not there:
        raise RunError(f"{path} holds no run to continue; start it without --resume")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be used ({error.strerror}); choose another run.folder"
        ) from None
    try:
        if there:
            _same_settings(path, config, steps_matter=steps_matter)
        return _open(path, lock)
    except BaseException:
        os.close(lock)
        raise


def _open(path: Path, lock: int) -> RunFolder:
    checkpoint.clean(path)
    state = None
    if (path / checkpoint.LATEST).exists():
        state = checkpoint.read_state(checkpoint.latest(path))
    for name in LOGS:
        record.cut(path / name, state.logs.get(name, 0) if state else 0)
    _cut_timings(path)
    return RunFolder(path=path, state=state, lock=lock)


def _cut_timings(path: Path) -> None:
    """As many lines as there are metrics: its length is in no checkpoint, since it differs from
    run to run."""
    if not (path / TIMINGS).exists():
        return
    metrics, timings = path / "metrics.jsonl", (path / TIMINGS).read_bytes()
    steps = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    lines = timings.splitlines(keepends=True)[:steps]
    record.cut(path / TIMINGS, sum(len(line) for line in lines if line.endswith(b"\n")))


def _lock(path: Path) -> int:
    """Held until the folder is closed or the process ends, however it ends."""
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RunError(
            f"another process is training in {path}; wait for it, or choose another run.folder"
        ) from None
    except OSError:
        return handle  # a file system without locks
    return handle


def _same_settings(path: Path, config: Config, *, steps_matter: bool) -> None:
    old = load(path / CONFIG)
    changed = [key for key in differences(old, config) if key not in HARMLESS]
    if changed == ["run.steps"] and config.run.steps > old.run.steps and not steps_matter:
        return
    if "run.steps" in changed:
        raise RunError(
            f"run.steps was {old.run.steps} and is now {config.run.steps}: it can only grow, and "
            "only where no schedule of the algorithm or the learning rate depends on it; set it "
            "back, or start a new run in another run.folder"
        )
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise RunError(
            f"{changed[0]}{more} differs from what {path} was started with, so it cannot be "
            "continued to the same result; set it back, or start a new run in another run.folder"
        )


def standing(path: Path) -> str:
    """How a stopped run can be continued, in words."""
    if not (path / CONFIG).exists():
        return "the run had not begun, and nothing was lost"
    names = checkpoint.names(path)
    where = f"from checkpoint {names[-1]}" if names else "from the beginning"
    return f"`tutelage train {path} --resume` continues {where}"


def begin(folder: RunFolder, config: Config, facts: Mapping[str, object]) -> None:
    """Write the configuration, and in meta.json what else it takes to get the same bytes."""
    meta = {
        "tutelage": __version__,
        "python": platform.python_version(),
        "packages": {n: metadata.version(n) for n in ("torch", "transformers", "tokenizers")},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "matmul": cpu.matmul(),
        "onednn": cpu.onednn(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": _commit(),
        "command": _command(),
        "seed": config.run.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **facts,
    }
    described = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
    for name, text in ((META, described), (CONFIG, write(config))):
        try:
            checkpoint.write_whole(folder.path / name, text)
        except OSError as error:
            raise RunError(checkpoint.no_room(folder.path / name, error)) from error


def _command() -> str:
    """What was typed; empty where a run is started from Python."""
    name, *arguments = sys.argv or [""]
    if Path(name).stem == NAME or Path(name).parts[-2:] == (NAME, "__main__.py"):
        return shlex.join([NAME, *arguments])
    return ""


def _commit() -> str:
    """The commit of the working directory, or empty outside of a repository."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip()
