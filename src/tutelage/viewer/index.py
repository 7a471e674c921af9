"""An index of a run's episodes in SQLite, made once and extended as the run's files grow.

A row for each line of episodes.jsonl holds where the line stands, and what episodes are filtered
by; a full-text table holds the text of turns. Lines of columns.jsonl are found by their key. The
index lies outside of the run folder, so that a folder that cannot be written can be shown.

A resumed run cuts its files back: the index then finds the last line that is still the same, by
the lines' checksums, and reads on from there.
"""

import hashlib
import math
import os
import re
import sqlite3
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.config import json_text
from tutelage.config.plain_file import open_plain
from tutelage.errors import RunError

VERSION = 4
"""Of the tables; an index of another version is rebuilt."""
EPISODES, COLUMNS = "episodes.jsonl", "columns.jsonl"
ANSWERS = 64
"""Size of the cache of answers."""
BATCH = 400
"""Lines that are written in one transaction: a reader never waits long."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS episodes (
  id INTEGER PRIMARY KEY AUTOINCREMENT, start INTEGER NOT NULL, length INTEGER NOT NULL,
  crc INTEGER NOT NULL, phase TEXT, step INTEGER, policy TEXT, split TEXT, task TEXT, family TEXT,
  grp TEXT, copy INTEGER, stop TEXT, won INTEGER, score REAL, ret REAL, error TEXT,
  turns INTEGER, tokens INTEGER, invalid INTEGER, actors TEXT);
CREATE INDEX IF NOT EXISTS by_step ON episodes (step, id);
CREATE INDEX IF NOT EXISTS by_task ON episodes (task);
CREATE TABLE IF NOT EXISTS lines (
  id INTEGER PRIMARY KEY AUTOINCREMENT, start INTEGER NOT NULL, length INTEGER NOT NULL,
  crc INTEGER NOT NULL, phase TEXT, step INTEGER, task TEXT, copy INTEGER);
CREATE INDEX IF NOT EXISTS by_key ON lines (step, task, copy);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, content='', tokenize='unicode61');
"""

LISTED = [
    *("id", "phase", "step", "policy", "split", "task", "family", "grp", "copy", "stop", "won"),
    *("score", "ret", "error", "turns", "tokens", "invalid", "actors"),
]
"""Columns of a list of episodes."""
FACETS = ("phase", "split", "family", "stop", "policy")
"""What episodes are filtered by as it stands; the page offers the values that there are."""
# by step means by time: the warm start's steps come before those of the training
ORDERS = {
    "step": "id",
    "return": "ret",
    "turns": "turns",
    "invalid": "invalid",
    "tokens": "tokens",
    "task": "task",
}


class Place(NamedTuple):
    """Where a line stands in its file."""

    start: int
    length: int


class Filter(NamedTuple):
    """A filter of episodes; None and "" match all."""

    text: str = ""
    low_step: int | None = None
    high_step: int | None = None
    low_return: float | None = None
    high_return: float | None = None
    won: bool | None = None
    invalid: bool | None = None
    actor: str = ""
    task: str = ""
    group: str = ""
    phase: str = ""
    split: str = ""
    family: str = ""
    stop: str = ""
    policy: str = ""


def cache_folder() -> Path:
    """Where indices lie: below XDG_CACHE_HOME or ~/.cache, else below the temporary folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for root in (Path(home), Path(tempfile.gettempdir())):
        folder = root / "tutelage" / "viewer"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RunError(
        f"no index of the episodes can be written below {home}; set XDG_CACHE_HOME to a folder "
        "that can be written"
    )


class Index:
    """The index of one folder with an episodes.jsonl.

    folder   a run, what `tutelage eval --out` writes, or any folder with an episodes.jsonl
    file     the name of the file of episodes in it
    default_split  the split of tasks that do not say theirs
    """

    def __init__(
        self, folder: Path, *, cache: Path, file: str = EPISODES, default_split: str = ""
    ) -> None:
        self.folder, self.file, self.default_split = folder, folder / file, default_split
        digest = hashlib.sha256(os.path.realpath(self.file).encode()).hexdigest()[:24]
        cache.mkdir(parents=True, exist_ok=True)
        self.path = cache / f"{digest}.sqlite"
        self.done = self.total = 0  # bytes that were read, and those that there are
        self.problem = ""  # what keeps the index from being complete
        self._local = threading.local()
        self._answers: dict[tuple[Any, ...], Any] = {}
        self._state: tuple[Any, ...] = ()
        self._answering = threading.Lock()
        self._making = threading.Lock()
        self._prepare()

    def _prepare(self) -> None:
        """Make the tables; an index of another version, or a broken one, is rebuilt."""
        try:
            with self._writing() as db:
                found = db.execute("SELECT name FROM sqlite_master WHERE name = 'facts'").fetchone()
                version = _fact(db, "version") if found else str(VERSION)
            if version == str(VERSION):
                with self._writing() as db:
                    db.executescript(SCHEMA)
                    db.execute("INSERT OR REPLACE INTO facts VALUES ('version', ?)", (VERSION,))
                return
        except sqlite3.DatabaseError:
            pass
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        with self._writing() as db:
            db.executescript(SCHEMA)
            db.execute("INSERT OR REPLACE INTO facts VALUES ('version', ?)", (VERSION,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")  # a lost index is rebuilt
            with db:
                yield db
        finally:
            db.close()

    @property
    def db(self) -> sqlite3.Connection:
        """A connection for reading, one for each thread."""
        if getattr(self._local, "db", None) is None:
            self._local.db = sqlite3.connect(self.path, timeout=30)
            self._local.db.execute("PRAGMA query_only = ON")
            self._local.db.execute("PRAGMA cache_size = -65536")
        db: sqlite3.Connection = self._local.db
        return db

    # -- reading files

    def update(self, going: Callable[[], bool] = lambda: True) -> bool:
        """Read what is new in the files; whether anything was. `going` is asked between batches."""
        if not self._making.acquire(blocking=False):
            return False  # another thread is at it
        try:
            changed = self._extend(self.file, "episodes", self._episode, going)
            columns = self.folder / COLUMNS
            return self._extend(columns, "lines", self._columns, going) or changed
        finally:
            self._making.release()

    def _extend(
        self,
        path: Path,
        table: str,
        add: "Callable[[sqlite3.Connection, Place, bytes], None]",
        going: Callable[[], bool],
    ) -> bool:
        try:
            size = path.stat().st_size
        except OSError:
            return False
        counts = table == "episodes"
        try:
            opened = open_plain(path)
        except OSError as error:
            self.problem = f"{path} cannot be read ({error.strerror})"
            return False
        with opened as file, self._writing() as db:
            start = self._common(db, file, table, size)
            db.commit()
            if counts:
                self.done, self.total = start, size
            changed = False
            file.seek(start)
            batch = 0
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # being written just now
                try:
                    add(db, Place(start, len(raw)), raw)
                except (
                    ArithmeticError,
                    LookupError,
                    ValueError,
                    TypeError,
                    AttributeError,
                ) as error:
                    self.problem = (
                        f"{path.name}, byte {start}: not a line that a run writes "
                        f"({type(error).__name__}: {error})"
                    )
                start += len(raw)
                changed, batch = True, batch + 1
                if batch == BATCH:
                    db.commit()
                    batch = 0
                    if counts:
                        self.done, self.total = start, max(size, start)
                    if not going():
                        break
            if counts:
                self.done, self.total = start, max(size, start)
        return changed

    @staticmethod
    def _common(db: sqlite3.Connection, file: Any, table: str, size: int) -> int:
        """Where the file stops to be what was read. Rows of what is gone are dropped."""

        def same(row: tuple[int, int, int, int]) -> bool:
            _, start, length, crc = row
            if start + length > size:
                return False
            file.seek(start)
            return zlib.crc32(file.read(length)) == crc

        last = db.execute(
            f"SELECT id, start, length, crc FROM {table} ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if last is None:
            return 0
        if same(last):
            return int(last[1] + last[2])
        rows = db.execute(f"SELECT id, start, length, crc FROM {table} ORDER BY id").fetchall()
        low, high = 0, len(rows)  # a file that was cut and written again keeps a beginning
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if same(rows[middle]) else (low, middle)
        db.execute(f"DELETE FROM {table} WHERE id >= ?", (rows[low][0],))
        return int(rows[low][1])

    def _episode(self, db: sqlite3.Connection, place: Place, raw: bytes) -> None:
        line = json_text.table(raw)
        task, turns = line["task"], line["turns"]
        actors = sorted(
            {str(t["actor"]) for t in turns} | {str(t["taken"][1]) for t in turns if t.get("taken")}
        )
        names = ["start", "length", "crc", *LISTED[1:]]
        cursor = db.execute(
            f"INSERT INTO episodes ({', '.join(names)}) VALUES ({','.join('?' * len(names))})",
            (
                *place,
                zlib.crc32(raw),
                line.get("phase", ""),
                int(_number(line, "step")),
                line.get("policy", ""),
                (task.get("data") or {}).get("split", self.default_split),
                task["id"],
                task.get("family", ""),
                line.get("group", ""),
                int(_number(line, "copy")),
                line.get("stop", ""),
                int(bool(line.get("won"))),
                None if line.get("score") is None else _number(line, "score"),
                _number(line, "return"),
                line.get("error", ""),
                len(turns),
                sum(len(t.get("tokens", ())) for t in turns),
                sum(not t.get("valid", True) for t in turns),
                f",{','.join(actors)},",
            ),
        )
        text = "\n".join(f"{t.get('seen', '')}\n{t.get('text', '')}" for t in turns)
        db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (cursor.lastrowid, text))

    @staticmethod
    def _columns(db: sqlite3.Connection, place: Place, raw: bytes) -> None:
        # the numbers are long and not needed here: the key stands before them
        head, found, _ = raw.partition(b'"columns":')
        key = json_text.parse(head.rstrip().removesuffix(b",") + b"}" if found else raw)
        db.execute(
            "INSERT INTO lines (start, length, crc, phase, step, task, copy) "
            "VALUES (?,?,?,?,?,?,?)",
            (*place, zlib.crc32(raw), key.get("phase", ""), key["step"], key["task"], key["copy"]),
        )

    # -- asking

    def count(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM episodes").fetchone()[0])

    def facets(self) -> dict[str, Any]:
        """The values that episodes have, for filters, and the range of steps and returns."""
        return dict(self._remembered(("facets",)))

    def _facets(self) -> dict[str, Any]:
        kinds = self.db.execute(
            f"SELECT DISTINCT {', '.join(FACETS)}, actors FROM episodes"
        ).fetchall()
        out: dict[str, Any] = {
            name: sorted({kind[k] for kind in kinds} - {"", None}) for k, name in enumerate(FACETS)
        }
        actors = {name for kind in kinds for name in kind[-1].split(",") if name}
        low, high, least, most, n = self.db.execute(
            "SELECT min(step), max(step), min(ret), max(ret), count(*) FROM episodes"
        ).fetchone()
        out |= {"actor": sorted(actors), "steps": [low, high], "returns": [least, most], "n": n}
        return out

    def search(
        self,
        asked: Filter,
        *,
        order: str = "step",
        descending: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Episodes that pass a filter: how many there are, how many of them were won, and rows.

        Raises RunError for an order that there is not.
        """
        if order not in ORDERS:
            raise RunError(f"episodes cannot be ordered by {order!r}; choose {', '.join(ORDERS)}")
        return dict(self._remembered(("search", asked, order, descending, limit, offset)))

    def _search(
        self, asked: Filter, order: str, descending: bool, limit: int, offset: int
    ) -> dict[str, Any]:
        where, values = _where(asked)
        # from the words to the episodes: the other way round takes twice as long
        source = (
            "words CROSS JOIN episodes ON id = words.rowid" if match(asked.text) else "episodes"
        )
        key = "words.rowid" if order == "step" and match(asked.text) else ORDERS[order]
        way = "DESC" if descending else "ASC"
        by = f"{key} {way}" if order == "step" else f"{key} {way}, id {way}"
        db = self.db
        db.execute("BEGIN")  # both statements see the same episodes
        try:
            total, won, mean = db.execute(
                f"SELECT count(*), sum(won), avg(ret) FROM {source}{where}", values
            ).fetchone()
            rows = db.execute(
                f"SELECT {', '.join(LISTED)} FROM {source}{where} ORDER BY {by} LIMIT ? OFFSET ?",
                [*values, limit, offset],
            ).fetchall()
        finally:
            db.execute("COMMIT")
        return {
            "total": total,
            "won": won or 0,
            "return": mean,
            "rows": [dict(zip(LISTED, row, strict=True)) for row in rows],
        }

    def _remembered(self, question: tuple[Any, ...]) -> Any:
        """A cached answer, until the index changes: the page asks repeatedly."""
        state = (self.db.execute("SELECT max(id) FROM episodes").fetchone()[0], self.done)
        with self._answering:
            if state != self._state:
                self._answers.clear()
                self._state = state
            if question in self._answers:
                return self._answers[question]
        kind, *details = question
        answer = self._search(*details) if kind == "search" else self._facets()
        with self._answering:
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            if state == self._state:
                self._answers[question] = answer
        return answer

    def row(self, episode: int) -> dict[str, Any]:
        """What the list shows of one episode. Raises RunError where there is none."""
        found = self.db.execute(
            f"SELECT {', '.join(LISTED)} FROM episodes WHERE id = ?", (episode,)
        ).fetchone()
        if found is None:
            raise RunError(
                f"{self.folder} has no episode {episode}; it may have been cut by a resume"
            )
        return dict(zip(LISTED, found, strict=True))

    def episode(self, episode: int) -> dict[str, Any]:
        """An episode's line of episodes.jsonl."""
        self.row(episode)
        place = self.db.execute(
            "SELECT start, length FROM episodes WHERE id = ?", (episode,)
        ).fetchone()
        return dict(_line(self.file, Place(*place)))

    def columns(self, episode: int) -> dict[str, list[float | None]]:
        """Every recorded signal at each sampled token of an episode; empty where none was."""
        columns: dict[str, list[float | None]] = self.recorded(episode).get("columns", {})
        return columns

    def recorded(self, episode: int) -> dict[str, Any]:
        """An episode's line of columns.jsonl; empty where there is none."""
        row = self.row(episode)
        key = (row["step"], row["task"], row["copy"], row["phase"])
        same = "step = ? AND task = ? AND copy = ? AND phase = ? ORDER BY id"
        places = self.db.execute(f"SELECT start, length FROM lines WHERE {same}", key).fetchall()
        if not places:
            return {}
        # a task that was drawn twice in one step has several lines of one key, in order
        twins = [i for (i,) in self.db.execute(f"SELECT id FROM episodes WHERE {same}", key)]
        place = places[min(twins.index(episode), len(places) - 1)]
        return _line(self.folder / COLUMNS, Place(*place))

    def columns_of_step(self, phase: str, step: int) -> Iterator[Mapping[str, Any]]:
        """All lines of columns.jsonl of one step."""
        for place in self.db.execute(
            "SELECT start, length FROM lines WHERE step = ? AND phase = ? ORDER BY id",
            (step, phase),
        ).fetchall():
            yield _line(self.folder / COLUMNS, Place(*place))

    def recorded_steps(self) -> list[tuple[str, int]]:
        """Phases and steps that columns.jsonl has lines of."""
        return [
            (str(phase), int(step))
            for phase, step in self.db.execute(
                "SELECT phase, step FROM lines GROUP BY phase, step ORDER BY min(id)"
            )
        ]


def _number(line: Mapping[str, Any], name: str) -> float:
    """A number of a line, 0 where it has none. Raises ValueError for another value."""
    value = line.get(name, 0)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.40}, and a number is expected")
    return value


def _fact(db: sqlite3.Connection, name: str) -> str:
    found = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return str(found[0]) if found else ""


def _line(path: Path, place: Place) -> dict[str, Any]:
    try:
        with open_plain(path) as file:
            file.seek(place.start)
            line: dict[str, Any] = json_text.table(file.read(place.length))
    except (OSError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} changed while it was read ({error}); load the page again"
        ) from error
    return line


_WORD = re.compile(r'"([^"]*)"|(\S+)')


def match(text: str) -> str:
    """A query of FTS5 for what a user typed: all words, those in quotes in their order. The last
    word may be the beginning of one.

    >>> match('soap "go to"')
    '"soap" "go to"'
    >>> match('so')
    '"so"*'
    """
    parts = [(a, True) if a else (b, False) for a, b in _WORD.findall(text)]
    spoken = [(part, quoted) for part, quoted in parts if any(c.isalnum() for c in part)]
    terms = ['"' + part.replace('"', '""') + '"' for part, _ in spoken]
    if spoken and not spoken[-1][1] and text[-1:].isalnum():
        terms[-1] += "*"
    return " ".join(terms)


def _where(asked: Filter) -> tuple[str, list[Any]]:
    clauses: list[str] = []
    values: list[Any] = []

    def also(clause: str, value: Any) -> None:
        clauses.append(clause)
        values.append(value)

    for name in FACETS:
        if value := getattr(asked, name):
            also(f"{name} = ?", value)
    for clause, bound in (
        ("step >= ?", asked.low_step),
        ("step <= ?", asked.high_step),
        ("ret >= ?", asked.low_return),
        ("ret <= ?", asked.high_return),
    ):
        if bound is not None:
            also(clause, bound)
    if asked.won is not None:
        also("won = ?", int(asked.won))
    if asked.invalid is not None:
        clauses.append("invalid > 0" if asked.invalid else "invalid = 0")
    if asked.actor:
        also("instr(actors, ?) > 0", f",{asked.actor},")
    if asked.task:
        also("task = ?", asked.task)
    if asked.group:
        also("grp = ?", asked.group)
    if words := match(asked.text):
        also("words MATCH ?", words)
    return (f" WHERE {' AND '.join(clauses)}" if clauses else ""), values
