"""The interface of the engines in `retrieval`: an index that returns passage numbers."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from tutelage.errors import ConfigError, install

Numbered = tuple[int, float]


class Index(Protocol):
    """Finds the numbers of passages."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Numbered]]: ...


class Kind(NamedTuple):
    """How indexes of an engine are made: in memory or in a folder, and opened there."""

    build: Callable[..., Index]
    load: Callable[..., Index]


def package(name: str, engine: str) -> Any:
    """An optional package. Raises ConfigError with the command that brings it."""
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"the retriever {engine!r} needs the package {name}: "
            f'{install("search")}, or set env.options.retriever = "lucene", which needs none'
        ) from None


def best(scores: Any, k: int) -> list[Numbered]:
    """The k highest of an array of scores above 0, equal ones in the order of the corpus."""
    import numpy as np

    found = np.flatnonzero(scores > 0)
    if len(found) > k:
        values = scores[found]
        least = np.partition(values, len(values) - k)[len(values) - k]
        found = found[values >= least]
    order = found[np.lexsort((found, -scores[found]))][:k]
    return [(int(n), float(scores[n])) for n in order]
