"""The database of a shop or an airline, with the changes of each episode kept apart.

An episode reads the records of a `Store` and changes copies of its own, so that beginning an
episode costs nothing, and comparing two ends means comparing the few records that were touched.
tau-bench (arXiv:2406.12045) reloads the files for every episode and hashes all of them at its end;
`canonical` keeps the differences that its hash sees: 1 is not 1.0, and -0.0 is not 0.0.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Record = dict[str, Any]
Key = tuple[str, str]
"""A table's name and a record's."""


def copied(value: Any) -> Any:
    """A copy of a JSON value that shares nothing that can change."""
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return [copied(part) for part in value] if isinstance(value, list) else value


def canonical(value: object) -> str:
    """A text that is equal for two JSON values exactly if tau-bench's hash is.

    >>> canonical({"b": [1], "a": 1.0}), canonical({"a": 1, "b": [1]})
    ("(('a', 1.0), ('b', (1,)))", "(('a', 1), ('b', (1,)))")
    """
    return repr(_frozen(value))


def _frozen(value: object) -> object:
    if isinstance(value, dict):
        return tuple((key, _frozen(value[key])) for key in sorted(value))
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return value


class Store:
    """Tables as they are before any episode. Nothing in it is ever changed."""

    def __init__(self, tables: Mapping[str, dict[str, Record]]) -> None:
        self.tables = dict(tables)
        self.emails: dict[str, str] = {}  # in lower case -> the first user that has it
        self.first_names: dict[str, list[str]] = {}  # in lower case -> users, in their order
        self._canonical: dict[Key, str] = {}
        for key, user in self.tables.get("users", {}).items():
            self.emails.setdefault(user["email"].lower(), key)
            self.first_names.setdefault(user["name"]["first_name"].lower(), []).append(key)

    def canonical(self, key: Key) -> str:
        """The canonical text of a record, empty where there is none."""
        if key not in self._canonical:
            record = self.tables[key[0]].get(key[1])
            self._canonical[key] = "" if record is None else canonical(record)
        return self._canonical[key]


class Table:
    """A table as one episode sees it: the store's, with its own changes on top."""

    def __init__(self, base: dict[str, Record]) -> None:
        self._base = base
        self.changed: dict[str, Record] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.changed or key in self._base

    def __getitem__(self, key: str) -> Record:
        """To be read only; `edit` gives a record to be changed."""
        return self.changed[key] if key in self.changed else self._base[key]

    def values(self) -> Iterator[Record]:
        """Every record in the order of the file, new ones last."""
        for key, record in self._base.items():
            yield self.changed.get(key, record)
        yield from (record for key, record in self.changed.items() if key not in self._base)

    def edit(self, key: str) -> Record:
        """The episode's own copy of a record."""
        if key not in self.changed:
            self.changed[key] = copied(self._base[key])
        return self.changed[key]

    def add(self, key: str, record: Record) -> None:
        self.changed[key] = record


class Database:
    """All tables as one episode sees them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tables = {name: Table(base) for name, base in store.tables.items()}

    def __getitem__(self, name: str) -> Table:
        return self.tables[name]

    def changes(self) -> dict[Key, str]:
        """The canonical text of every record that is not what it was."""
        changed = {
            (name, key): canonical(record)
            for name, table in self.tables.items()
            for key, record in table.changed.items()
        }
        return {key: text for key, text in changed.items() if text != self.store.canonical(key)}
