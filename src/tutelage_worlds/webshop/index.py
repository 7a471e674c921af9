"""Full-text search as in Lucene 8 with Anserini's defaults.

BM25 with k1 = 0.9 and b = 0.4, in float32, with field lengths in one byte (arXiv:2207.01206 searches
with Pyserini).

A query is a bag of terms; a document's score is

    sum over terms t of  w_t - w_t / (1 + f(t, d) c(|d|))
    w_t  = n(t, query) ln(1 + (D - D_t + 0.5) / (D_t + 0.5))
    c(l) = 1 / (k1 (1 - b + b l / average))

with D documents, D_t of which have t, f(t, d) times in d. Equal scores are in the order of names.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from tutelage_worlds.webshop.storage import Keys, Place, write_keys

K1, B = np.float32(0.9), np.float32(0.4)
BLOCK = 4_000_000
"""Postings that a build holds in memory before it puts them aside."""
EXACT_LENGTHS = 24
"""Lengths below this fit a byte as they are; of longer ones four binary digits are kept."""


def to_byte(length: int) -> int:
    """A length as one byte, rounded down (Lucene's SmallFloat.intToByte4).

    >>> [to_byte(n) for n in (3, 23, 24, 40, 41, 1000)]
    [3, 23, 24, 40, 40, 87]
    """
    if length < EXACT_LENGTHS:
        return length
    rest = length - EXACT_LENGTHS
    shift = max(0, rest.bit_length() - 4)
    return EXACT_LENGTHS + (rest if rest < 8 else (rest >> shift & 7) | (shift + 1) << 3)


def from_byte(code: int) -> int:
    """The length that a byte stands for.

    >>> [from_byte(to_byte(n)) for n in (3, 23, 24, 40, 41, 1000)]
    [3, 23, 24, 40, 40, 984]
    """
    if code < EXACT_LENGTHS:
        return code
    shift, bits = divmod(code - EXACT_LENGTHS, 8)
    return EXACT_LENGTHS + (bits if not shift else (8 + bits) << (shift - 1))


class Builder:
    """Takes documents in order and writes an inverted index of them."""

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name = place, name
        self._terms: dict[str, int] = {}
        self._lengths = array("I")
        self._open: tuple[array[int], array[int], array[int]] = (array("I"), array("I"), array("H"))
        self._blocks: list[tuple[NDArray[np.generic], ...]] = []

    def add(self, terms: Iterable[str]) -> None:
        """The next document."""
        words, documents, counts = self._open
        number, length = len(self._lengths), 0
        for term, count in Counter(terms).items():
            words.append(self._terms.setdefault(term, len(self._terms)))
            documents.append(number)
            counts.append(min(count, 0xFFFF))
            length += count
        self._lengths.append(length)
        if len(words) >= BLOCK:
            self._put_aside()

    def _put_aside(self) -> None:
        columns = [np.array(column) for column in self._open]
        self._blocks.append(tuple(self.place.scratch(column) for column in columns))
        self._open = (array("I"), array("I"), array("H"))

    def write(self) -> None:
        self._put_aside()
        order = sorted(self._terms, key=lambda term: term.encode("utf-8", "surrogatepass"))
        write_keys(self.place, f"{self.name}.terms", order)
        rank = np.empty(len(order), np.int64)
        rank[[self._terms[term] for term in order]] = np.arange(len(order))
        spread = np.zeros(len(order), np.int64)
        for words, *_ in self._blocks:
            spread += np.bincount(rank[words], minlength=len(order))
        starts = self.place.array(f"{self.name}.starts", "u8", len(order) + 1)
        starts[1:] = np.cumsum(spread)
        total = int(spread.sum())
        documents = self.place.array(f"{self.name}.documents", "u4", total)
        counts = self.place.array(f"{self.name}.counts", "u2", total)
        free = np.asarray(starts[:-1], np.int64).copy()
        for words, where, how_often in self._blocks:
            term = rank[words]
            along = np.argsort(term, kind="stable")
            term = term[along]
            first = np.searchsorted(term, term, side="left")
            target = free[term] + np.arange(len(term)) - first
            documents[target] = where[along]
            counts[target] = how_often[along]
            free += np.bincount(term, minlength=len(order))
        norms = self.place.array(f"{self.name}.norms", "u1", len(self._lengths))
        norms[:] = [to_byte(length) for length in self._lengths]
        sums = self.place.array(f"{self.name}.sums", "u8", 2)
        sums[:] = (sum(length > 0 for length in self._lengths), sum(self._lengths))


class Index:
    """What a `Builder` wrote."""

    def __init__(self, place: Place, name: str) -> None:
        def column(part: str, kind: str) -> NDArray[np.generic]:
            return np.frombuffer(place.buffer(f"{name}.{part}"), kind)

        self._terms = Keys(place, f"{name}.terms")
        self._starts = place.buffer(f"{name}.starts").cast("Q")
        self._documents = column("documents", "u4")
        self._counts = column("counts", "u2")
        self._norms = column("norms", "u1")
        filled, length = (int(n) for n in column("sums", "u8"))
        self._filled = filled
        average = np.float32(length / filled) if filled else np.float32(1)
        lengths = np.array([from_byte(code) for code in range(256)], np.float32)
        self._inverse = np.float32(1) / (K1 * ((np.float32(1) - B) + B * lengths / average))

    def having(self, term: str) -> Sequence[int]:
        """The documents with a term, in their order."""
        place = self._terms.get(term)
        if place is None:
            return ()
        found: list[int] = self._documents[self._starts[place] : self._starts[place + 1]].tolist()
        return found

    def __len__(self) -> int:
        return len(self._norms)

    def scores(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """The score of every document [documents], 0 for one without any of the terms."""
        scores = np.zeros(len(self._norms), np.float64)
        for term, count in Counter(terms).items():
            place = self._terms.get(term)
            if place is None:
                continue
            part = slice(self._starts[place], self._starts[place + 1])
            documents = self._documents[part]
            have = len(documents)
            idf = np.float32(log(1 + (self._filled - have + 0.5) / (have + 0.5)))
            weight = np.float32(count) * idf
            tf = self._counts[part].astype(np.float32) * self._inverse[self._norms[documents]]
            scores[documents] += weight - weight / (np.float32(1) + tf)
        return scores

    def search(self, terms: Iterable[str], limit: int, rank: NDArray[np.generic]) -> list[int]:
        """The `limit` documents of the highest scores; `rank` [documents] orders equal ones."""
        scores = self.scores(terms)
        found = np.flatnonzero(scores)
        values = scores[found].astype(np.float32)
        if len(found) > limit:
            least = np.partition(values, len(values) - limit)[len(values) - limit]
            found, values = found[values >= least], values[values >= least]
        order: list[int] = found[np.lexsort((rank[found], -values))][:limit].tolist()
        return order
