"""Rows of local files: JSON lines with the standard library, Parquet with pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, EnvError, install
from tutelage_worlds.json_text import parse

SUFFIXES = (".parquet", ".jsonl")


class DataError(EnvError):
    """A file of questions, passages or vectors that cannot be used."""


def rows(path: Path) -> Iterator[tuple[object, str]]:
    """What a file holds, row by row, each with the name of its place for messages."""
    if path.suffix == ".parquet":
        for number, row in enumerate(_rows(parquet(path))):
            yield row, f"{path}, row {number}"
        return
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json(line, f"{path}, line {number}"), f"{path}, line {number}"
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); it must be JSON lines") from None


def _json(line: str, where: str) -> object:
    try:
        return parse(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); fix or remove the line") from None


def _rows(table: Any) -> Iterator[object]:
    for batch in table.to_batches():
        yield from batch.to_pylist()


def parquet(path: Path) -> Any:
    """A pyarrow table. Raises ConfigError without pyarrow, DataError for a file that is none."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path} is a Parquet file, which needs pyarrow: {install('search')}, or "
            "convert it to JSON lines"
        ) from None
    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file ({error})") from None
