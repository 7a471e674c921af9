"""The folders that are shown: where runs are, what each is, how far it is, and its numbers by step.

Folders are read leniently: an error in one is reported in its row, and the others are still shown.
"""

import hashlib
import json
import math
import os
import shlex
import threading
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.config import json_text
from tutelage.config.plain_file import open_plain, read_text
from tutelage.errors import RunError
from tutelage.rollout import record

CONFIG, META, LOCK = "config.toml", "meta.json", ".lock"
EPISODES, METRICS, EVALS = "episodes.jsonl", "metrics.jsonl", "evals.jsonl"
TIMINGS, COLUMNS, SUMMARY, HINTS = "timings.jsonl", "columns.jsonl", "summary.json", "hints.jsonl"
WATCHED = (CONFIG, META, EPISODES, METRICS, EVALS, TIMINGS, COLUMNS, SUMMARY)
DEEP = 5
"""Levels of folders that are searched for runs."""
SKIPPED = frozenset({"checkpoints", "node_modules", "__pycache__"})


def find(paths: Iterable[Path]) -> list["Folder"]:
    """Every run and evaluation at the paths or below them, in the order of their names.

    Raises RunError for a path that is not there.
    """
    found: dict[Path, Folder] = {}
    for path in paths:
        if not path.exists():
            raise RunError(
                f"{path} does not exist; give the folder of a run, or one that holds runs"
            )
        if path.is_file():
            found.setdefault(path.resolve(), Folder(path.parent, path.name))
            continue
        for folder in _below(path, DEEP):
            found.setdefault(folder.resolve(), Folder(folder))
    return list(found.values())


def _below(path: Path, levels: int) -> Iterator[Path]:
    if kind_of(path):
        yield path
    if levels == 0:
        return
    try:
        inner = sorted(
            entry.name
            for entry in os.scandir(path)
            if entry.is_dir(follow_symlinks=False)
            and entry.name not in SKIPPED
            and not entry.name.startswith(".")
        )
    except OSError:
        return
    for name in inner:
        yield from _below(path / name, levels - 1)


def kind_of(path: Path) -> str:
    """What a folder is: "run", "evaluation", "episodes", or "" for none of them."""
    there = {name for name in WATCHED if (path / name).exists()}
    if CONFIG in there and there & {META, EPISODES, METRICS}:
        return "run"
    if EPISODES in there:
        return "evaluation" if SUMMARY in there else "episodes"
    return ""


class Folder:
    """A run, or results of an evaluation, as the page shows it."""

    def __init__(self, path: Path, episodes: str = EPISODES) -> None:
        self.path, self.episodes = path, episodes
        whole = path.resolve() / (episodes if episodes != EPISODES else "")
        self.id = hashlib.sha256(str(whole).encode()).hexdigest()[:12]
        self.name = path.resolve().name if episodes == EPISODES else Path(episodes).stem
        self.kind = kind_of(path) if episodes == EPISODES else "episodes"
        self._seen: tuple[object, ...] = ()
        self._summary: dict[str, Any] = {}
        self.steps = Steps(path / METRICS)
        self.seconds = Steps(path / TIMINGS)

    def signature(self) -> tuple[object, ...]:
        """Changes when a file does."""
        out: list[object] = []
        for name in {*WATCHED, self.episodes}:
            try:
                found = (self.path / name).stat()
                out.append((name, found.st_size, found.st_mtime_ns))
            except OSError:
                continue
        return tuple(sorted(out, key=str))

    def config(self) -> dict[str, Any]:
        """The settings as they were written. Raises RunError for a file that is no TOML."""
        path = self.path / CONFIG
        try:
            return tomllib.loads(read_text(path))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def meta(self) -> dict[str, Any]:
        path = self.path / META
        try:
            return json_text.table(read_text(path))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def evaluations(self) -> list[dict[str, Any]]:
        """Lines of evals.jsonl, or of an evaluation's summary.json."""
        summary = self.path / SUMMARY
        if self.kind == "evaluation":
            try:
                found = json_text.parse(read_text(summary))
                return [_result(line) for line in found]
            except (OSError, ValueError, TypeError) as error:
                raise RunError(f"{summary} cannot be read: {error}") from error
        path = self.path / EVALS
        if not path.exists():
            return []
        lines = list(record.read(path))
        try:
            return [_result(line) for line in lines]
        except ValueError as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def locked(self) -> bool:
        """Whether a process trains in it."""
        try:
            import fcntl

            handle = os.open(self.path / LOCK, os.O_RDONLY | os.O_NONBLOCK)
        except (ImportError, OSError):
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def summary(self) -> dict[str, Any]:
        """A row of the list of runs; read again only when a file changed."""
        signature = self.signature()
        if signature != self._seen:
            self._summary = self._read()
            self._seen = signature
        state = self._summary["state"]
        if self.kind == "run" and state in ("stopped", "running"):
            state = "running" if self.locked() else "stopped"
        return {**self._summary, "state": state, "version": hash(signature) & 0xFFFFFFFF}

    def _read(self) -> dict[str, Any]:
        problem = ""
        config: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        evals: list[dict[str, Any]] = []
        try:
            config, meta, evals = self.config(), self.meta(), self.evaluations()
            self.steps.update()
            self.seconds.update()
        except (RunError, TypeError) as error:
            problem = str(error)
        planned = _get(config, "run", "steps")
        done = sum(row.get("phase", "train") == "train" for row in self.steps.rows)
        warm = sum(row.get("phase") == "warm_start" for row in self.steps.rows)
        state = "stopped"
        if problem:
            state = "broken"
        elif self.kind != "run" or (isinstance(planned, int) and done >= planned > 0):
            state = "finished"
        plain = [line for line in evals if not line.get("hint")]
        # an evaluation may hold several policies: the student's result is the one that is listed
        shown = [line for line in plain if line.get("name", "student") == "student"] or plain
        return {
            "id": self.id,
            "name": self.name,
            "path": str(self.path),
            "kind": self.kind,
            "state": state,
            "problem": problem,
            "method": _get(config, "algorithm", "name") or "",
            "suite": _get(config, "env", "suite") or "",
            "model": _get(config, "policy", "model") or "",
            "seed": _get(config, "run", "seed"),
            "group": _group(config),
            "steps": planned,
            "done": done,
            "warm": warm,
            "evaluation": _brief(shown[-1:]),
            "evaluations": len(plain),
            "command": _command(self.path, self.kind, meta),
            "started": meta.get("started", ""),
            "columns": (self.path / COLUMNS).exists(),
        }

    def series(self, keys: Iterable[str], phase: str) -> dict[str, Any]:
        """Numbers by step, with what has been spent up to each."""
        self.steps.update()
        self.seconds.update()
        spent = {"episodes": 0.0, "tokens": 0.0, "seconds": 0.0}
        seconds = {
            (row.get("phase"), row.get("step")): row for row in self.seconds.rows
        }  # by key: a run that is being written has a metric before its time
        x: dict[str, list[float]] = {"step": [], "episodes": [], "tokens": [], "seconds": []}
        chosen = []
        times = []
        for row in self.steps.rows:
            time = seconds.get((row.get("phase"), row.get("step")), {})
            spent["episodes"] += _number(row.get("episodes"))
            spent["tokens"] += _number(row.get("tokens"))
            spent["seconds"] += _number(time.get("seconds.all"))
            if row.get("phase", "train") == phase:
                chosen.append(row)
                times.append(time)
                x["step"].append(float(row.get("step", len(chosen) - 1)) + 1)
                for name, value in spent.items():
                    x[name].append(value)
        rows = {
            key: [_value(key, row, time) for row, time in zip(chosen, times, strict=True)]
            for key in keys
        }
        return {"x": x, "values": rows}

    def keys(self, phase: str) -> list[str]:
        """Names of all numbers of a phase, those of timings too."""
        self.steps.update()
        self.seconds.update()
        names: dict[str, None] = {}
        for row in (*self.steps.rows, *self.seconds.rows):
            if row.get("phase", "train") == phase:
                names |= dict.fromkeys(k for k in row if k not in ("phase", "step"))
        return (["success"] if "won" in names else []) + list(names)

    def hint_written(self, task: str) -> str:
        """What the student wrote for itself, of a task; "" where it wrote nothing."""
        path = self.path / HINTS
        if path.exists():
            for line in record.read(path):
                if line.get("task") == task:
                    return str(line.get("text", ""))
        return ""


class Steps:
    """A file of JSON lines, flattened, read again from where it was left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._at, self._last = 0, b""
        self._reading = threading.Lock()  # several requests come at once

    def update(self) -> None:
        """Read what is new. Raises RunError for a line that is no JSON."""
        with self._reading:
            self._update()

    def _update(self) -> None:
        try:
            size = self.path.stat().st_size
        except OSError:
            self.rows, self._at, self._last = [], 0, b""
            return
        try:
            file = open_plain(self.path)
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror})") from error
        with file:
            if self._at:
                file.seek(max(0, self._at - len(self._last)))
                if size < self._at or file.read(len(self._last)) != self._last:
                    self.rows, self._at = [], 0  # a resume cut it
            file.seek(self._at)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = json_text.table(raw)
                except ValueError as error:
                    raise RunError(
                        f"{self.path}, line {len(self.rows) + 1} is not JSON: {error}"
                    ) from error
                self.rows.append(dict(flat(line)))
                self._at, self._last = self._at + len(raw), raw


def _result(line: object) -> dict[str, Any]:
    """A line of an evaluation. Raises ValueError where what is computed with is no number."""
    if not isinstance(line, Mapping):
        raise ValueError("a result is not an object of JSON")
    for name in ("step", "n", "success", "low", "high"):
        value = line.get(name, 0)
        if value is None:
            continue  # of a policy all of whose episodes broke
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise ValueError(f"{name} of a result is {value!r:.40}, and a number is expected")
    for name in ("outcomes", "scores"):
        for value in _listed(line.get(name) or [], name):
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"{name} of a result has {value!r:.40}, and numbers are expected")
    return dict(line)


def _listed(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} of a result is not a list")
    return value


def flat(line: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and words of a nested table, their names joined by dots.

    >>> dict(flat({"step": 1, "losses": {"kl": 0.5}, "stops": {}}))
    {'step': 1, 'losses.kl': 0.5}
    """
    for key, value in line.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}.")
        elif value is None or isinstance(value, int | float | str):
            yield f"{before}{key}", value


def _value(key: str, row: Mapping[str, Any], time: Mapping[str, Any]) -> Any:
    if key == "success":  # "episodes" counts those that did not break
        whole = _number(row.get("episodes"))
        return _number(row.get("won")) / whole if whole > 0 else None
    return (time if key.startswith("seconds.") else row).get(key)


def _number(value: object) -> float:
    number = float(value) if isinstance(value, int | float) else 0.0
    return number if math.isfinite(number) else 0.0


def _get(config: Mapping[str, Any], section: str, key: str) -> Any:
    found = config.get(section)
    return found.get(key) if isinstance(found, dict) else None


def _group(config: Mapping[str, Any]) -> str:
    """The same for runs that differ in nothing but their seed and their folder."""
    if not config:
        return ""
    run = {k: v for k, v in (config.get("run") or {}).items() if k not in ("seed", "folder")}
    text = json.dumps({**config, "run": run}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _brief(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """An evaluation without its outcomes."""
    return {k: v for line in lines for k, v in line.items() if k not in ("outcomes", "scores")}


def _command(path: Path, kind: str, meta: Mapping[str, Any]) -> str:
    """What was typed, where it was recorded; else what trains the same run again."""
    if meta.get("command"):
        return str(meta["command"])
    if kind == "run":
        return f"tutelage train {shlex.quote(str(path / CONFIG))} run.folder=NEW"
    return ""
