"""What Search-QA wants from the machine."""

from collections.abc import Iterator, Mapping
from typing import Final

from understudy.envs.needs import Need, file, package

_PACKAGES: Final = (
    ("bm25s", "bm25s", "search", "exact BM25 in numpy, the default"),
    ("tantivy", "tantivy", "tantivy", "BM25 for large corpora"),
    ("faiss", "faiss-cpu", "faiss", "exact dense retrieval"),
    ("usearch", "usearch", "usearch", "dense retrieval by a graph"),
)


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """The package of the retriever, unless it is our own or a server; the user's files."""
    retriever = "" if options.get("url") else options.get("retriever", "bm25s")
    for name, distribution, extra, what in _PACKAGES:
        use = f'for retriever = "{name}": {what}'
        yield package(distribution, extra, wanted=bool(options) and retriever == name, use=use)
    table = str(options.get("corpus", "")).endswith(".parquet")
    yield package("pyarrow", "parquet", wanted=table, use="for Parquet files")
    for option in ("data", "corpus", "index"):
        if options.get(option):
            get = "see `Data` in docs/environments/search_qa.md"
            yield file(option, options[option], get)
