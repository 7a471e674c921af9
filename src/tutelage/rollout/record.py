"""The one format on disk: a run is a folder of JSON lines, which viewers and plots read.

Lines hold results only, never times: two runs of one configuration write the same bytes.
Seconds go to `timings.jsonl`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tutelage.config import json_text
from tutelage.config.plain_file import open_plain
from tutelage.errors import RunError
from tutelage.types import Episode, Observation, Stop, Taken, Task, Turn

Line = Mapping[str, object]


def dump(line: Line) -> str:
    """One line of JSON. Floats keep the shortest form that reads back equal."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Log:
    """An append-only file of lines that can be truncated to an earlier length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("ab")

    def write(self, line: Line) -> None:
        try:
            self.file.write(dump(line).encode() + b"\n")
        except OSError as error:
            raise RunError(_full(self.path, error)) from error

    def flush(self) -> int:
        """Flush to the operating system, so that lines survive this process; returns the length."""
        try:
            self.file.flush()
        except OSError as error:
            raise RunError(_full(self.path, error)) from error
        return self.file.tell()

    def sync(self) -> int:
        """Sync to disk; returns the length in bytes."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise RunError(_full(self.path, error)) from error
        return self.file.tell()

    def close(self) -> None:
        try:
            self.file.close()
        except OSError as error:
            raise RunError(_full(self.path, error)) from error


def _full(path: Path, error: OSError) -> str:
    return (
        f"{path} could not be written ({error.strerror}); make room or choose another folder, then "
        "continue with `tutelage train --resume` - everything up to the last checkpoint is kept"
    )


def cut(path: Path, length: int) -> None:
    """Drop what was written after a checkpoint took the length of the file."""
    size = path.stat().st_size if path.exists() else 0
    if size < length:
        raise RunError(
            f"{path} is shorter than its checkpoint says ({size} < {length} bytes); "
            "it was changed since, so the run cannot be continued: start a new one"
        )
    if size == length:
        return
    with path.open("r+b") as file:
        file.truncate(length)


def read(path: Path) -> Iterator[dict[str, object]]:
    """The lines of a file; a last line that a crash cut short is left out.

    Raises RunError for a file that cannot be read, and for a line that is no object of JSON.
    """
    try:
        file = open_plain(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from error
    with file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = json_text.table(raw)
            except ValueError as error:
                raise RunError(f"{path}, line {number} is not JSON: {error}") from error
            yield line


def episode_line(episode: Episode, step: int) -> Line:
    """An episode as a line. The admissible actions are left out: the environment can say them."""
    return {
        "step": step,
        "task": asdict(episode.task),
        "group": episode.group,
        "copy": episode.copy,
        "stop": episode.stop.value,
        "won": episode.won,
        "score": episode.score,
        "return": episode.total_reward,
        "error": episode.error,
        "penalties": dict(episode.penalties),
        **({"counts": dict(episode.counts)} if episode.counts else {}),
        "turns": [turn_line(turn) for turn in episode.turns],
    }


def turn_line(turn: Turn) -> Line:
    """A turn as it stands in an episode's line."""
    return {
        "seen": turn.observation.text,
        "actor": turn.actor,
        "taken": turn.taken,
        "text": turn.text,
        "action": turn.action,
        "valid": turn.valid,
        "reward": turn.reward,
        "penalty": turn.penalty,
        "fresh": turn.fresh,
        "prompt": turn.prompt,
        "tokens": turn.tokens,
        "logps": turn.logps,
        **({} if turn.version is None else {"version": turn.version}),
        **({"top_logprobs": turn.top_logprobs} if turn.top_logprobs else {}),
    }


def episode_of(line: Mapping[str, object]) -> Episode:
    """What `episode_line` wrote, read back (states and admissible actions are not recorded)."""
    try:
        task = line["task"]
        turns = line["turns"]
        return Episode(
            task=Task(**_typed(task, dict)),
            group=str(line["group"]),
            copy=int(str(line["copy"])),
            stop=Stop(str(line["stop"])),
            won=bool(line["won"]),
            score=None if line["score"] is None else float(str(line["score"])),
            error=str(line["error"]),
            penalties=_numbers(line["penalties"]),
            counts={name: int(x) for name, x in _numbers(line.get("counts", {})).items()},
            turns=tuple(_turn_of(turn) for turn in _typed(turns, list)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"a recorded episode cannot be read ({type(error).__name__}: {error}); it must be a "
            "line of the episodes.jsonl that `tutelage train` and `tutelage collect` write"
        ) from error


def _typed(value: object, kind: type[Any]) -> Any:
    """The value, which must be of this type. Raises TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.40} is not a {kind.__name__}")
    return value


def _numbers(table: object) -> dict[str, float]:
    return {str(name): float(value) for name, value in _typed(table, dict).items()}


def _taken_of(value: object) -> Taken | None:
    if value is None:
        return None
    at, by = _typed(value, list)
    return Taken(at=int(at), by=str(by))


def _turn_of(line: Mapping[str, object]) -> Turn:
    def ids(name: str) -> tuple[int, ...]:
        return tuple(int(x) for x in _typed(line[name], list))

    return Turn(
        observation=Observation(text=str(line["seen"])),
        actor=str(line["actor"]),
        taken=_taken_of(line.get("taken")),
        text=str(line["text"]),
        action=str(line["action"]),
        valid=bool(line["valid"]),
        reward=float(str(line["reward"])),
        penalty=float(str(line["penalty"])),
        fresh=bool(line["fresh"]),
        prompt=ids("prompt"),
        tokens=ids("tokens"),
        logps=tuple(float(x) for x in _typed(line["logps"], list)),
        version=None if line.get("version") is None else int(str(line["version"])),
        top_logprobs=tuple(_top_of(token) for token in _typed(line.get("top_logprobs", []), list)),
    )


def _top_of(token: object) -> tuple[tuple[int, float], ...]:
    """The pairs of one token, as `Turn.top_logprobs` has them."""
    pairs = tuple((int(i), float(x)) for i, x in _typed(token, list))
    if len({i for i, _ in pairs}) < len(pairs) or not all(i >= 0 and x <= 0 for i, x in pairs):
        raise ValueError(
            "top_logprobs must be pairs of different ids and log-probabilities of at most 0"
        )
    return pairs
