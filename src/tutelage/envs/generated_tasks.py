"""Splits of any length, whose tasks are generated from their index when they are read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from tutelage.types import Task


def in_turns(families: Sequence[str]) -> list[int]:
    """Positions in round-robin order over families, each family in its own order, so that the
    first tasks of a split (the panel of an evaluation) cover every family.

    >>> in_turns(["nq", "nq", "nq", "popqa", "popqa"])
    [0, 3, 1, 4, 2]
    """
    rounds: list[int] = []
    counts: dict[str, int] = {}
    for family in families:
        rounds.append(counts.get(family, 0))
        counts[family] = rounds[-1] + 1
    first = {family: k for k, family in enumerate(counts)}
    return sorted(range(len(families)), key=lambda i: (rounds[i], first[families[i]]))


@dataclass(frozen=True, slots=True)
class LazyTasks(Sequence[Task]):
    """The first `length` tasks of a split, of which task i is `make(*about, i)`, always the same.

    Two are equal if their fields are equal. `make` is a module-level function, so that a copy that
    was pickled in another process compares equal.
    """

    split: str
    length: int
    make: Callable[..., Task]
    about: tuple[object, ...]

    def _task(self, index: int) -> Task:
        return self.make(*self.about, index)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self._task(i) for i in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(
                f"There is no task {index}: the split {self.split!r} has {self.length}."
            )
        return self._task(index % self.length)

    def __iter__(self) -> Iterator[Task]:
        return map(self._task, range(self.length))
