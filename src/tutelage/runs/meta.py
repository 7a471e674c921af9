"""A run's meta.json: what its bytes depend on beside the configuration, and what was done to it."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from tutelage import __version__, cpu
from tutelage.config.plain_file import read_text
from tutelage.config.run_mark import META
from tutelage.config.schema import Config
from tutelage.config.toml_file import write
from tutelage.config.trust import SIGNED, ours, signature
from tutelage.errors import NAME, RunError
from tutelage.rollout.disk import write_whole
from tutelage.runs import checkpoint
from tutelage.runs.torchrun import launch_of

CONFIG = "config.toml"
CHANGED, MOVED = "changed_after_divergence", "resumed_elsewhere"
PANEL, OTHER_PANEL = "panel", "panel_changed"
"""The fingerprint of the evaluation's tasks, and those that it was before."""
WRITTEN = "written"
"""The SHA-256 of config.toml, also of the one that is replaced in this moment."""


def machine() -> dict[str, object]:
    """What decides how floats are rounded: the same on two machines, the same bytes on both."""
    launch = launch_of()
    return {
        "ranks": launch.size if launch else 1,
        "packages": {n: metadata.version(n) for n in ("torch", "transformers", "tokenizers")},
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "matmul": cpu.matmul(),
        "onednn": cpu.onednn(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def moved(path: Path) -> str:
    """A sentence for a run that is resumed under other conditions than it had; empty if they are
    the same, or if the run left no record of them."""
    differences = _moved(path)
    if not differences:
        return ""
    listed = ", ".join(f"{name} {now} (was {before})" for name, before, now in differences)
    return (
        f"resumed with {listed}: numbers are rounded differently from here on, so the run will not "
        "have the bytes that it would have had undisturbed"
        + ("; set OMP_NUM_THREADS to keep them" if "threads" in [d[0] for d in differences] else "")
    )


def another_panel(path: Path, now: str) -> str:
    """A sentence for a run whose evaluation's tasks show something else than before it is resumed,
    where `now` is their fingerprint; empty if they show the same, or are not known."""
    before = recorded(path).get(PANEL)
    if not before or not now or before == now:
        return ""
    return (
        f"the tasks of the evaluation show something else than before (fingerprint {now}, was {before}), "
        f"so results from here on do not compare with the earlier ones of {path}, and `{NAME} compare` "
        "refuses the run; put back the suite and its data as they were to avoid that"
    )


def describe(
    path: Path,
    config: Config,
    facts: Mapping[str, object],
    *,
    at: str,
    changed: Mapping[str, object],
) -> None:
    """Write config.toml and meta.json.

    facts    more for meta.json
    at       the checkpoint that a resumed run continues from
    changed  settings that were changed since, with what they were

    Raises RunError for a full disk.
    """
    meta: dict[str, object] = {
        "tutelage": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **machine(),
        "commit": _commit(),
        "command": _command(),
        "seed": config.run.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **facts,
    }
    histories = {
        CHANGED: dict(changed),
        MOVED: {name: before for name, before, _ in _moved(path)},
        OTHER_PANEL: _other_panel(path, facts),
    }
    for name, before in histories.items():
        entries = _entries(path, name)
        if before:
            entries.append({"from": at, "before": before})
        if entries:
            meta[name] = entries
    text = write(config)
    signatures = [x for x in (signature(text), _old_signature(path)) if x]
    meta[SIGNED] = list(dict.fromkeys(signatures))
    # that of the file which is replaced below holds until then
    meta[WRITTEN] = list(dict.fromkeys([_digest(text), *_written(path)]))
    described = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
    for name, content in ((META, described), (CONFIG, text)):
        try:
            write_whole(path / name, content)
        except OSError as error:
            raise RunError(checkpoint.no_room(path / name, error)) from error


def _other_panel(path: Path, facts: Mapping[str, object]) -> dict[str, object]:
    before, now = recorded(path).get(PANEL), str(facts.get(PANEL, ""))
    return {PANEL: before} if another_panel(path, now) else {}


def _moved(path: Path) -> list[tuple[str, object, object]]:
    """(name, before, now) of each condition that changed; packages are listed one by one."""
    before, now = recorded(path), {NAME: __version__, **machine()}
    changes: list[tuple[str, object, object]] = []
    for name in (NAME, "ranks", "threads", "processor", "device", "matmul", "onednn"):
        if name in before and before[name] != now[name]:
            changes.append((name, before[name], now[name]))
    old, new = before.get("packages"), now["packages"]
    if isinstance(old, dict) and isinstance(new, dict):
        changes += [(n, old[n], new[n]) for n in new if n in old and old[n] != new[n]]
    return changes


def recorded(path: Path) -> dict[str, object]:
    """A run's meta.json; empty where it cannot be read."""
    try:
        found = json.loads(read_text(path / META))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _entries(path: Path, name: str) -> list[object]:
    """What meta.json lists under a name so far."""
    entries = recorded(path).get(name)
    return list(entries) if isinstance(entries, list) else []


def is_as_written(path: Path) -> bool:
    """Whether config.toml is what the run wrote, but for line ends; also where that is not known."""
    hashes = recorded(path).get(WRITTEN)
    return not isinstance(hashes, list) or bool(set(_written(path)) & {str(x) for x in hashes})


def _written(path: Path) -> list[str]:
    there = path / CONFIG
    return [_digest(read_text(there))] if there.exists() else []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _old_signature(path: Path) -> str:
    """Of the config.toml that is there, if it is this user's: it holds until it is replaced."""
    there = path / CONFIG
    return signature(read_text(there)) if there.exists() and ours(there) else ""


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
