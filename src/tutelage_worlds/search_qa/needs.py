"""What Search-QA wants from the machine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tutelage.envs.requirements import Need, file, official, package

_PACKAGES: Final = (
    ("bm25s", "bm25s", "exact BM25 in numpy, the default"),
    ("tantivy", "tantivy", "BM25 for large corpora"),
    ("faiss", "faiss-cpu", "exact dense retrieval"),
    ("usearch", "usearch", "dense retrieval by a graph"),
)
GET: Final = (
    "RUC-NLPIR/FlashRAG_datasets and PeterJinGo/wiki-18-corpus of Hugging Face (`Data` in "
    "docs/environments/search_qa.md)"
)


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """The package of the retriever, unless it is our own or a server; the user's files."""
    retriever = "" if options.get("url") else options.get("retriever", "bm25s")
    for name, distribution, what in _PACKAGES:
        use = f'for retriever = "{name}": {what}'
        yield package(distribution, "search", wanted=retriever == name, use=use)
    table = str(options.get("corpus", "")).endswith(".parquet") or _tables(options.get("data"))
    yield package("pyarrow", "search", wanted=table, use="for Parquet files")
    for option in ("data", "corpus", "index"):
        if options.get(option):
            yield file(option, options[option], GET)
    if not options.get("data"):
        yield official("data", GET)


def _tables(data: object) -> bool:
    """Whether questions lie in Parquet files, in their folder or in those of data sets."""
    folder = Path(str(data or "")).expanduser()
    return bool(data) and any(any(folder.glob(each)) for each in ("*.parquet", "*/*.parquet"))
