"""Splits of any length, whose tasks are made from their numbers when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from tutelage.types import Task


def in_turns(families: Sequence[str]) -> list[int]:
    """Positions in an order in which families take turns, each in its own order: the first tasks
    of a split, which are the panel of an evaluation, then are of every family.

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
    """The first `length` tasks of a split, of which number i is `make(*about, i)`, always the same.

    Two are equal if these are: `make` is a function of a module, so that a copy that comes from
    another process compares equal.
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
