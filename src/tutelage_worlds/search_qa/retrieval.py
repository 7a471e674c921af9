"""Build and open search indexes in this process: sparse or dense.

Sparse search uses bm25s, tantivy or an own index, dense search faiss or usearch over vectors of an
encoder. `client` searches on a server instead.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from tutelage.errors import first_line
from tutelage_worlds.json_text import parse
from tutelage_worlds.search_qa import dense, sparse
from tutelage_worlds.search_qa.passages import Corpus, Passage
from tutelage_worlds.search_qa.ranked import Index, Kind
from tutelage_worlds.search_qa.rows import DataError
from tutelage_worlds.webshop.storage import check_sizes, sizes

Engine = Literal["bm25s", "lucene", "tantivy", "faiss", "usearch"]
ENGINES: Final = ("bm25s", "lucene", "tantivy", "faiss", "usearch")
DENSE: Final = ("faiss", "usearch")
MANIFEST: Final = "search_qa.json"
TOP: Final = 3
"""Passages for a query, as in Search-R1."""


class Hit(NamedTuple):
    passage: Passage
    score: float


class Retriever(Protocol):
    """Finds passages for queries."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each query, the best first."""
        ...


class Local:
    """An index and the corpus it was made of."""

    def __init__(self, corpus: Corpus, index: Index, engine: Engine) -> None:
        self.corpus, self.index, self.engine = corpus, index, engine

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        if k < 1:
            return [[] for _ in queries]
        # what no encoding can hold is not worth an exception
        asked = [query.encode("utf-8", "replace").decode() for query in queries]
        found = self.index.search(asked, min(k, len(self.corpus)))
        return [[Hit(self.corpus[n], score) for n, score in hits] for hits in found]


def build(
    corpus: Corpus, engine: Engine, *, encoder: str = "", folder: Path | None = None
) -> Local:
    """Index a corpus: in memory, or in a folder for many runs and processes.

    encoder  what makes vectors (see `encoders`), for faiss and usearch

    Raises ConfigError for a missing package or encoder.
    """
    library = _module(engine)
    settings: dict[str, Any] = {"encoder": encoder} if engine in DENSE else {}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    index: Index = library.build(corpus, folder=folder, **settings)
    if folder is not None:
        says = {
            "engine": engine,
            "corpus": corpus.name,
            "passages": len(corpus),
            "files": sizes(folder),
            **settings,
        }
        (folder / MANIFEST).write_text(json.dumps(says), encoding="utf-8")
    return Local(corpus, index, engine)


def opened(corpus: Corpus, folder: Path) -> Local:
    """An index that `build` left in a folder. Raises DataError if it is of another corpus, or not
    whole."""
    says = _manifest(folder)
    if (says["corpus"], says["passages"]) != (corpus.name, len(corpus)):
        raise DataError(
            f"the index in {folder} was built of {says['corpus']} with {says['passages']} "
            f"passages, not of {corpus.name} with {len(corpus)}; build it again"
        )
    engine = says["engine"]
    settings = {"encoder": says["encoder"]} if engine in DENSE else {}
    try:
        check_sizes(folder, says.get("files", {}))
        index = _module(engine).load(folder, **settings)
    except _DAMAGED as error:
        raise _useless(folder, error) from None
    return Local(corpus, index, engine)


_DAMAGED: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,  # usearch, which opens nothing then
    EOFError,  # numpy
    RuntimeError,  # faiss
)


def _manifest(folder: Path) -> Mapping[str, Any]:
    try:
        says = parse((folder / MANIFEST).read_text(encoding="utf-8"))
        if says["engine"] not in ENGINES or {"corpus", "passages"} - set(says):
            raise ValueError("it says too little")
        if says["engine"] in DENSE and not isinstance(says["encoder"], str):
            raise ValueError("it names no encoder")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _useless(folder, error) from None
    return dict(says)


def _useless(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder} holds no index that can be used ({first_line(error)}); build one: "
        "python -m tutelage_worlds.search_qa index CORPUS FOLDER"
    )


def _module(engine: Engine) -> Kind:
    kinds: dict[str, Kind] = {
        "bm25s": sparse.BM25S,
        "lucene": sparse.LUCENE,
        "tantivy": sparse.TANTIVY,
        "faiss": dense.FAISS,
        "usearch": dense.USEARCH,
    }
    return kinds[engine]
