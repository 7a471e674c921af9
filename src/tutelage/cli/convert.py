"""`tutelage convert`: recorded episodes as ATIF trajectories or chat messages, and ATIF read back."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage import __version__
from tutelage.errors import RunError
from tutelage.rollout import formats, record

EPISODES = "episodes.jsonl"


def convert(source: Path, out: Path, form: str, *, won: bool) -> int:
    """Write the episodes of a run or a file in another form; their number.

    form  "atif", "messages", or "episodes" to read ATIF
    won   leave out what was lost

    Raises RunError rather than overwrite a file, and for what cannot be read.
    """
    if out.exists():
        raise RunError(f"{out} exists already; choose another file, or remove it")
    path = source / EPISODES if source.is_dir() else source
    if not path.exists():
        raise RunError(f"{path} does not exist; give a run's folder or a file of episodes")
    count = 0
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            for line in _read(path, form):
                if won and not line["won"]:
                    continue
                file.write(record.dump(_written(line, form)) + "\n")
                count += 1
        part.rename(out)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _written(line: Mapping[str, Any], form: str) -> record.Line:
    try:
        if form == "atif":
            return formats.atif(line, version=__version__)
        return formats.messages(line) if form == "messages" else line
    except (KeyError, TypeError) as error:
        raise RunError(
            f"a line is no episode ({type(error).__name__}: {error}); give a file that "
            "`tutelage train` or `tutelage collect` wrote"
        ) from error


def _read(path: Path, form: str) -> Iterator[Mapping[str, Any]]:
    if form != "episodes":
        yield from record.read(path)
        return
    if path.suffix == ".json":  # one trajectory, over several lines
        try:
            trajectories = [json.loads(path.read_text(encoding="utf-8"))]
        except ValueError as error:
            raise RunError(f"{path} is not JSON: {error}") from error
        for trajectory in trajectories:
            yield formats.from_atif(trajectory)
        return
    for trajectory in record.read(path):
        yield formats.from_atif(trajectory)
