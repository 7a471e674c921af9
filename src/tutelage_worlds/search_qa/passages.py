"""A corpus of passages, in memory or read one by one from a file of any size.

A line of JSON or a row of Parquet holds `id` and `contents`, whose first line is the title in
quotes (Search-R1's corpora, arXiv:2503.09516), or `id`, `title` and `text`.
"""

import json
import mmap
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tutelage_worlds.json_text import parse
from tutelage_worlds.search_qa.rows import DataError, parquet


class Passage(NamedTuple):
    """A passage; the first line of `contents` is its title, in quotes or not."""

    id: str
    contents: str

    @property
    def heading(self) -> str:
        """The title as written in `contents`."""
        return self.contents.partition("\n")[0]

    @property
    def title(self) -> str:
        return self.heading.strip('"')

    @property
    def text(self) -> str:
        """What follows the title."""
        return self.contents.partition("\n")[2]


def titled(identity: str, title: str, text: str) -> Passage:
    """A passage of a title and a text.

    >>> titled("7", "Oslo", "A town.").contents
    '"Oslo"\\nA town.'
    """
    return Passage(identity, f'"{title}"\n{text}')


class Corpus(Protocol):
    """Passages by number."""

    @property
    def name(self) -> str:
        """Changes with the passages."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Passage: ...


class InMemory:
    """Passages that are all there."""

    def __init__(self, name: str, passages: Iterable[Passage]) -> None:
        self.name, self._passages = name, tuple(passages)

    def __len__(self) -> int:
        return len(self._passages)

    def __getitem__(self, number: int) -> Passage:
        return self._passages[number]


class Lines:
    """A file of JSON lines, mapped into memory; a line is read when its passage is asked for.

    ends  where each line ends, in bytes; found by reading the file once if not given
    """

    def __init__(self, path: Path, ends: Sequence[int] | None = None) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                # an empty file cannot be mapped
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                self.ends = _line_ends(file) if ends is None else ends
        except OSError as error:
            raise _unreadable(path, error) from None
        if not len(self.ends):
            raise DataError(f"{path} holds no passages; give a file with one JSON object a line")
        self.name = f"{path.name}-{size}"

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Passage:
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no passage {number}: {self._path} has {len(self)}.")
        number %= len(self)
        start = self.ends[number - 1] if number else 0
        where = f"{self._path}, line {number + 1}"
        try:
            row = parse(self._bytes[start : self.ends[number]])
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}); fix or remove the line") from None
        return passage(row, where)


def _line_ends(file: Iterable[bytes]) -> "array[int]":
    ends, at = array("Q"), 0
    for line in file:
        at += len(line)
        if line.strip():
            ends.append(at)
        elif ends:
            ends[-1] = at
    return ends


class Table:
    """A Parquet file, its columns in Arrow's memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._table = path, parquet(path)
        if not self._table.num_rows:
            raise DataError(f"{path} holds no passages; give a file with one in each row")
        self.name = f"{path.name}-{path.stat().st_size}"

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @cached_property
    def _columns(self) -> Mapping[str, Any]:
        return {name: self._table.column(name) for name in self._table.column_names}

    def __getitem__(self, number: int) -> Passage:
        row = {name: column[number].as_py() for name, column in self._columns.items()}
        return passage(row, f"{self._path}, row {number}")


def passage(row: object, where: str) -> Passage:
    """A passage from a line or row. Raises DataError that names the place."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a passage must be an object with id and contents")
    identity, contents = row.get("id"), row.get("contents")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise DataError(f"{where}: `id` must be a string or an integer")
    if contents is not None:
        if not isinstance(contents, str):
            raise DataError(f"{where}: `contents` must be a string: the title, then the text")
        return Passage(str(identity), contents)
    title, text = row.get("title"), row.get("text")
    if not isinstance(title, str) or not isinstance(text, str):
        raise DataError(f"{where}: there must be `contents`, or `title` and `text`, as strings")
    return titled(str(identity), title, text)


def load(path: Path) -> Lines | Table:
    """The corpus in a file, `.parquet` or JSON lines. Raises DataError for one without use."""
    if not path.is_file():
        raise DataError(
            f"there is no file of passages {path}; set env.options.corpus to a .jsonl or .parquet "
            "file with `id` and `contents` of each"
        )
    return Table(path) if path.suffix == ".parquet" else Lines(path)


def write(path: Path, passages: Iterable[Passage]) -> None:
    """Write passages as Search-R1's corpora are: a line each, with `id` and `contents`."""
    with path.open("w", encoding="utf-8") as file:
        for p in passages:
            line = json.dumps({"id": p.id, "contents": p.contents}, ensure_ascii=False)
            file.write(line + "\n")


def each(corpus: Corpus) -> Iterator[Passage]:
    return (corpus[number] for number in range(len(corpus)))


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}); check its name and rights")
