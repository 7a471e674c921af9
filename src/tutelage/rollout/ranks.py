"""Ranks: the processes that share a training run, of which most runs have one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """One process alone: everything is its own, and nothing is sent.

    `runs.distributed` has the ranks of `torchrun`. Every rank calls `gather` and `sum_` the same
    number of times in the same order, also where it has nothing to give.

    rank  number of this process; rank 0 writes and speaks
    size  number of processes
    """

    rank: int = 0
    size: int = 1

    def gather(self, value: Any) -> list[Any]:
        """Each rank's value, in the order of ranks, on every rank."""
        return [value]

    def sum_(self, tensors: Iterable[Any]) -> None:
        """Replace tensors by their sums over ranks, in place; equal bytes on every rank."""

    def first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self.gather(value)[0]

    def owners(self, groups: Iterable[str], before: int = 0) -> dict[str, int]:
        """The rank that plays each group of a step: dealt in turn, groups being whole.

        before  number of groups that the step has dealt already

        >>> Ranks(size=2).owners(["a", "b", "a", "c"])
        {'a': 0, 'b': 1, 'c': 0}
        """
        names = dict.fromkeys(groups)
        return {group: place % self.size for place, group in enumerate(names, before)}

    def refuse_unlike(self, facts: Mapping[str, str], sentence: str) -> None:
        """Raises ConfigError on every rank where a fact of one is not that of rank 0. The sentence
        goes on after "rank K", with {name}, {value} and {first}."""
        every = self.gather(dict(facts))
        for rank, other in enumerate(every):
            for name, first in every[0].items():
                if other.get(name) != first:
                    words = sentence.format(name=name, value=other.get(name), first=first)
                    raise ConfigError(f"rank {rank} {words}")


ALONE = Ranks()
"""The ranks of a run of one process."""
