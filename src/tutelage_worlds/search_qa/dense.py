"""Dense retrieval over unit vectors of an encoder (`encoders`).

faiss computes exact inner products, as Search-R1's flat index does; usearch searches a graph in half
precision (HNSW, arXiv:1603.09320).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tutelage_worlds.search_qa import encoders
from tutelage_worlds.search_qa.encoders import Encoder
from tutelage_worlds.search_qa.passages import Corpus
from tutelage_worlds.search_qa.ranked import Index, Kind, Numbered, package
from tutelage_worlds.search_qa.rows import DataError

FAISS_FILE, USEARCH_FILE = "faiss.index", "usearch.index"
BATCH: Final = 1024
"""Passages that are encoded at once."""
EXPLORED: Final = 128
"""Candidates per search in the graph: with this number, recall is above 0.99."""


class Faiss:
    def __init__(self, index: Any, encode: Encoder) -> None:
        self._index, self._encode = index, encode

    def search(self, queries: Sequence[str], k: int) -> list[list[Numbered]]:
        if not queries:
            return []
        vectors = _fitting(self._encode(queries, True), self._index.d)
        # one by one: faiss before 1.15 multiplies batches of 20 and more in another way, and rounds
        # otherwise
        found = [self._index.search(vector[None], k) for vector in vectors]
        return [
            _sorted(zip(numbers[0].tolist(), scores[0].tolist(), strict=True))
            for scores, numbers in found
        ]


class Usearch:
    def __init__(self, index: Any, encode: Encoder) -> None:
        self._index, self._encode = index, encode

    def search(self, queries: Sequence[str], k: int) -> list[list[Numbered]]:
        vectors = _fitting(self._encode(queries, True), self._index.ndim) if queries else []
        # one by one: results of a batch depend on its threads
        found = [self._index.search(vector, k, threads=1) for vector in vectors]
        return [_sorted((int(h.key), 1.0 - float(h.distance)) for h in hits) for hits in found]


def _sorted(hits: Any) -> list[Numbered]:
    # faiss fills up with -1 where there are too few
    return sorted((h for h in hits if h[0] >= 0), key=lambda hit: (-hit[1], hit[0]))


def _fitting(vectors: Any, dimensions: int) -> Any:
    if vectors.shape[1] != dimensions:
        raise DataError(
            f"the encoder makes vectors of {vectors.shape[1]} dimensions and the index has "
            f"{dimensions}; build the index with this encoder"
        )
    return vectors


def _batches(corpus: Corpus, encode: Encoder) -> Any:
    for start in range(0, len(corpus), BATCH):
        numbers = range(start, min(start + BATCH, len(corpus)))
        yield numbers, encode([corpus[n].contents for n in numbers], False)


def _build_faiss(corpus: Corpus, *, encoder: str, folder: Path | None) -> Index:
    faiss, encode = package("faiss", "faiss"), encoders.encoder(encoder)
    index: Any = None
    for _, vectors in _batches(corpus, encode):
        if index is None:
            index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
    if folder is not None:
        faiss.write_index(index, str(folder / FAISS_FILE))
    return Faiss(index, encode)


def _load_faiss(folder: Path, *, encoder: str) -> Index:
    faiss = package("faiss", "faiss")
    index = faiss.read_index(str(folder / FAISS_FILE), faiss.IO_FLAG_MMAP)
    return Faiss(index, encoders.encoder(encoder))


def _build_usearch(corpus: Corpus, *, encoder: str, folder: Path | None) -> Index:
    usearch, encode = package("usearch.index", "usearch"), encoders.encoder(encoder)
    index: Any = None
    for numbers, vectors in _batches(corpus, encode):
        if index is None:
            dimensions = vectors.shape[1]
            index = usearch.Index(
                ndim=dimensions, metric="ip", dtype="f16", expansion_search=EXPLORED
            )
        # one thread, so that the graph is the same each time
        index.add(list(numbers), vectors, threads=1)
    if folder is not None:
        index.save(str(folder / USEARCH_FILE))
    return Usearch(index, encode)


def _load_usearch(folder: Path, *, encoder: str) -> Index:
    index = package("usearch.index", "usearch").Index.restore(str(folder / USEARCH_FILE), view=True)
    index.expansion_search = EXPLORED
    return Usearch(index, encoders.encoder(encoder))


FAISS: Final = Kind(_build_faiss, _load_faiss)
USEARCH: Final = Kind(_build_usearch, _load_usearch)
