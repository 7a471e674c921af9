"""Files of a user are read once in a process, and again for a suite that is made after they changed."""

from collections.abc import Callable, Hashable
from functools import _lru_cache_wrapper, lru_cache, wraps
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
Mark = tuple[tuple[str, int, int], ...]
MOST: Final = 1000
"""Files of a folder whose sizes and times are compared."""
_READ: Final[list[tuple[dict[tuple[object, ...], Mark], Callable[[], None]]]] = []
"""Of each function: what its arguments named when they were read, and how all of it is forgotten."""


def read_once(size: int) -> "Callable[[Callable[..., T]], _lru_cache_wrapper[T]]":
    """Keep what a function made of the files that its positional arguments name, for the last `size`
    of them."""

    def decorated(function: Callable[..., T]) -> "_lru_cache_wrapper[T]":
        marks: dict[tuple[object, ...], Mark] = {}

        @lru_cache(size)
        @wraps(function)
        def read(*arguments: Hashable) -> T:
            marks[arguments] = mark(arguments)  # before: what changes meanwhile is read again
            return function(*arguments)

        _READ.append((marks, read.cache_clear))
        return read

    return decorated


def forget_changed() -> None:
    """Forget what was read of files that have been exchanged since. Suites call it where they are
    made; an episode does not look at files."""
    for marks, forget in _READ:
        if any(mark(arguments) != found for arguments, found in marks.items()):
            marks.clear()
            forget()


def mark(arguments: tuple[object, ...]) -> Mark:
    """Path, size and time of change of every file that the arguments name, alone or by its folder."""
    found: list[tuple[str, int, int]] = []
    for value in arguments:
        path = Path(value).expanduser() if isinstance(value, str | Path) and value else None
        if path is None or not path.exists():
            continue
        files = [path] if path.is_file() else sorted(path.rglob("*"))[:MOST]
        for file in files:
            try:
                there = file.stat()
            except OSError:  # it has been removed just now
                continue
            found.append((str(file.absolute()), there.st_size, there.st_mtime_ns))
    return tuple(found)
