"""Sends a run's JSON lines to trackers.

The lines on the disk are the record; a sink is sent copies. Each works in a thread of its own, so
that a slow or failing one holds up no step, and `.sinks.json` notes how many lines of each file it
has had: what it missed is sent later, by the run itself, when the run is continued, or by
`tutelage send`.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tutelage.config import json_text
from tutelage.config.schema import Config
from tutelage.config.toml_file import resolved
from tutelage.errors import NAME, ConfigError, RunError, install
from tutelage.rollout.disk import write_whole
from tutelage.rollout.record import Line
from tutelage.runs.folder import CONFIG
from tutelage.runs.trackers import KINDS, PACKAGES, Sink, flat

STATE = ".sinks.json"
FILES = ("metrics.jsonl", "timings.jsonl", "evals.jsonl", "episodes.jsonl")
TRACES = 4
"""Episodes of a step that are sent to a sink that shows conversations."""
PORTION = 200
"""Lines that are sent before the count of them is noted."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for what is still to be sent."""
RETRY = 30.0
"""Seconds after a failure before the next attempt."""


def check(names: Sequence[str]) -> None:
    """Raise ConfigError for a sink that does not exist or is not installed."""
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"there is no sink {name!r}; there are {', '.join(PACKAGES)}")
        if find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"the sink {name} needs the package {PACKAGES[name]}, which is not installed; "
                f"install it with `{install(name)}`"
            )


# -- sending


def states(folder: Path) -> dict[str, dict[str, Any]]:
    """What is noted of each sink of a run: how many lines of each file it has had, and its own id."""
    try:
        found = json_text.table((folder / STATE).read_text(encoding="utf-8"))
        return {str(name): dict(state) for name, state in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RunError(
            f"{folder / STATE} cannot be read ({type(error).__name__}); remove it, and the sinks begin "
            "anew"
        ) from error


class Tail:
    """The whole lines of a run's file from a number on, as it grows."""

    def __init__(self, path: Path, skip: int) -> None:
        self.path, self.count, self.offset = path, 0, 0
        self.skip = skip

    def read(self, most: int) -> list[tuple[int, dict[str, Any]]]:
        """At most so many lines that are new, each with its number."""
        found: list[tuple[int, dict[str, Any]]] = []
        if not self.path.exists():
            return found
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for raw in file:
                if not raw.endswith(b"\n") or len(found) == most:
                    break
                self.offset += len(raw)
                self.count += 1
                if self.count > self.skip:
                    try:
                        found.append((self.count, json_text.table(raw)))
                    except ValueError as error:
                        raise RunError(
                            f"{self.path}, line {self.count} is not JSON: {error}"
                        ) from error
        return found


@dataclass
class _Sender:
    """Sends one sink what it lacks, in a thread of its own."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    note: "Notes"
    awake: threading.Event = field(default_factory=threading.Event)
    ending: bool = False
    problem: str = ""  # the last one
    behind: bool = True

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.sink: Sink | None = None

    def _work(self) -> None:
        logging.getLogger(PACKAGES[self.name]).setLevel(logging.ERROR)
        while True:
            failed, last = False, self.ending  # lines may come until the end is announced
            try:
                self._send()
            except Exception as error:  # a tracker may fail in any way
                self.problem = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                failed = True
                self._drop()
            if last:
                break
            self.awake.wait(RETRY if failed else None)
            if failed and not self.ending:
                # steps go on meanwhile: they are no reason to try more often
                end = time.monotonic() + RETRY
                while not self.ending and time.monotonic() < end:
                    time.sleep(0.1)
            self.awake.clear()
        self._close()

    def _drop(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            with contextlib.suppress(Exception):
                sink.close()

    def _close(self) -> None:
        sink, self.sink = self.sink, None
        try:
            if sink is not None:
                sink.close()
        except Exception as error:
            self.problem = str(error)[:200]

    def _send(self) -> None:
        self.behind = True
        state = self.note.of(self.name)
        if self.sink is None:
            own = state.setdefault("own", {})
            self.sink = KINDS[self.name](self.folder, self.folder.resolve().name, self.config, own)
            self.note.save()  # an id that was given out is not given out again
            self.tails = {
                name: Tail(self.folder / name, int(state["lines"].get(name, 0))) for name in FILES
            }
            self.warm = _warm(self.folder)
            self.traced: dict[tuple[str, int], int] = {}
        while self._portion(state):
            pass
        self.behind = False

    def _portion(self, state: dict[str, Any]) -> bool:
        """Send some lines of every file; whether there were any."""
        assert self.sink is not None
        sent = False
        for name, tail in self.tails.items():
            lines = tail.read(PORTION)
            for _, line in lines:
                self._line(name, line)
            if lines:
                sent = True
                self.sink.flush()
                state["lines"][name] = lines[-1][0]
                self.note.save()
        return sent

    def _line(self, name: str, line: dict[str, Any]) -> None:
        assert self.sink is not None
        phase = str(line.get("phase", "train"))
        step = int(line["step"])
        if phase != "train":
            self.warm = max(self.warm, step + 1)
        at = step + (self.warm if phase == "train" else 0)
        if name == "episodes.jsonl":
            self.traced[phase, step] = self.traced.get((phase, step), 0) + 1
            if self.traced[phase, step] <= TRACES:
                self.sink.talk(at, line)
            return
        prefix = {"metrics.jsonl": phase, "timings.jsonl": "seconds", "evals.jsonl": "eval"}[name]
        if name == "evals.jsonl" and line.get("hint"):
            prefix = f"eval with {line['hint']}"
        table = line["seconds"] if name == "timings.jsonl" else line
        values = {k: v for k, v in flat(table).items() if k != "step"}
        self.sink.numbers(at, {f"{prefix}/{k}": v for k, v in values.items()})


def _warm(folder: Path) -> int:
    """Steps of the warm start so far."""
    lines = Tail(folder / "metrics.jsonl", 0).read(1 << 60)
    return sum(line.get("phase") != "train" for _, line in lines)


class Notes:
    """`.sinks.json`, which several threads write."""

    def __init__(self, folder: Path) -> None:
        self.path, self.lock = folder / STATE, threading.Lock()
        self.states = states(folder)

    def of(self, name: str) -> dict[str, Any]:
        with self.lock:
            state = self.states.setdefault(name, {})
            state.setdefault("lines", {})
            return state

    def save(self) -> None:
        with self.lock:
            write_whole(self.path, json.dumps(self.states, indent=1) + "\n")


class Sinks:
    """The sinks of one run: those named now, and those that it had before."""

    def __init__(self, folder: Path, config: Config, names: Sequence[str]) -> None:
        check(names)
        note = Notes(folder)
        every = list(dict.fromkeys([*note.states, *names]))
        there = [name for name in every if name in names or _installed(name)]
        self.missing = [name for name in every if name not in there]
        table = dict(resolved(config))
        self.senders = [_Sender(name, folder, table, note) for name in there]
        for sender in self.senders:
            note.of(sender.name)
            sender.thread.start()

    def wake(self) -> None:
        """There are new lines."""
        for sender in self.senders:
            sender.awake.set()

    def close(self, patience: float = PATIENCE) -> list[str]:
        """Send what is left, waiting so many seconds for all of them together; a sentence for each
        sink that lacks lines."""
        for sender in self.senders:
            sender.ending = True
            sender.awake.set()
        end = time.monotonic() + patience
        sentences = []
        for sender in self.senders:
            sender.thread.join(max(0.0, end - time.monotonic()))
            if sender.thread.is_alive():
                sender.problem = sender.problem or "it is still sending"
            if sender.behind or sender.thread.is_alive():
                sentences.append(_behind(sender.name, sender.problem, sender.folder))
        for name in self.missing:
            folder = self.senders[0].folder if self.senders else Path()
            sentences.append(_behind(name, "it is not installed here", folder))
        return sentences


def _installed(name: str) -> bool:
    return name in PACKAGES and find_spec(PACKAGES[name]) is not None


def _behind(name: str, problem: str, folder: Path) -> str:
    return (
        f"{name} lacks lines of the run ({problem}); `{NAME} send {folder} --sink {name}` sends them, "
        "and so does --resume"
    )


class Watch(Protocol):
    """What a run tells how it goes; see `runs.watch`."""

    def started(self, config: Config, phase: str, step: int) -> None: ...
    def tested(self, names: Sequence[str]) -> None: ...
    def playing(self, done: int, total: int) -> None: ...
    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None: ...
    def evaluated(self, line: Line) -> None: ...
    def warned(self, sentence: str) -> None: ...
    def closed(self) -> None: ...


class Sending:
    """A watch that passes everything on, and wakes the run's sinks when there are new lines."""

    def __init__(self, watch: Watch, names: Sequence[str]) -> None:
        check(names)
        self.watch, self.names = watch, tuple(names)
        self.sinks: Sinks | None = None
        self.tested, self.playing, self.warned = watch.tested, watch.playing, watch.warned

    def started(self, config: Config, phase: str, step: int) -> None:
        folder = Path(config.run.folder)
        if self.sinks is None and (self.names or (folder / STATE).exists()):
            try:
                self.sinks = Sinks(folder, config, self.names)
            except (OSError, RunError) as error:
                self.watch.warned(f"nothing is sent to the run's sinks: {error}")
        self.watch.started(config, phase, step)

    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None:
        self._wake()
        self.watch.stepped(line, seconds)

    def evaluated(self, line: Line) -> None:
        self._wake()
        self.watch.evaluated(line)

    def _wake(self) -> None:
        if self.sinks is not None:
            self.sinks.wake()

    def closed(self) -> None:
        sinks, self.sinks = self.sinks, None
        for sentence in sinks.close() if sinks is not None else ():
            self.watch.warned(sentence)
        self.watch.closed()


def send(folder: Path, names: Sequence[str], config: Config) -> list[str]:
    """Send a run's sinks, and those named, what they lack; a sentence for each that still lacks lines.

    Raises ConfigError where there is nothing to send, or no such sink.
    """
    check(names)
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{folder} is not a run's folder: it has no {CONFIG}")
    if not names and not states(folder):
        raise ConfigError(f"{folder} has no sinks yet; name one with --sink {'|'.join(PACKAGES)}")
    return Sinks(folder, config, names).close(patience=3600.0)
