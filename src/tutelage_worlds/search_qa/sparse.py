"""Sparse retrieval: BM25 over the terms of Lucene's English analysis, as in Search-R1.

k1 = 0.9 and b = 0.4 as in Pyserini (tantivy has its own, 1.2 and 0.75).

bm25s    score = sum over query words of  ln(1 + (D - D_t + 0.5) / (D_t + 0.5))  f / (f + c(|d|)),
         c(l) = k1 (1 - b + b l / average), lengths exact (arXiv:2407.03618, method "lucene")
lucene   the same with lengths in one byte, as Lucene keeps them (`webshop.index`)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tutelage_worlds.search_qa.passages import Corpus, each
from tutelage_worlds.search_qa.ranked import Index, Kind, Numbered, best, package
from tutelage_worlds.webshop.analysis import terms

K1, B = 0.9, 0.4
LONGEST: Final = 1024
"""Words of a query that count: Lucene refuses more."""
HEAP: Final = 64_000_000
"""Bytes that tantivy may use while it builds."""


class Bm25s:
    def __init__(self, model: Any) -> None:
        self._model = model

    def search(self, queries: Sequence[str], k: int) -> list[list[Numbered]]:
        return [self._one(terms(query)[:LONGEST], k) for query in queries]

    def _one(self, words: list[str], k: int) -> list[Numbered]:
        known = self._model.vocab_dict
        ids = [known[word] for word in words if word in known]
        return best(self._model.get_scores_from_ids(ids), k) if ids else []


def _build_bm25s(corpus: Corpus, *, folder: Path | None) -> Index:
    model = package("bm25s", "bm25s").BM25(k1=K1, b=B, method="lucene")
    vocabulary: dict[str, int] = {}
    texts = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in terms(p.contents)]
        for p in each(corpus)
    ]
    if not vocabulary:
        # a corpus without any word has no average length: give it the empty one, never asked for
        texts[0] = [vocabulary.setdefault("", 0)]
    model.index((texts, vocabulary), show_progress=False)
    if folder is not None:
        model.save(folder, show_progress=False)
    return Bm25s(model)


def _load_bm25s(folder: Path) -> Index:
    return Bm25s(package("bm25s", "bm25s").BM25.load(folder, mmap=True, show_progress=False))


class Lucene:
    def __init__(self, place: Any) -> None:
        from tutelage_worlds.webshop.index import Index as Postings

        self._postings = Postings(place, "text")

    def search(self, queries: Sequence[str], k: int) -> list[list[Numbered]]:
        scored = (self._postings.scores(terms(query)[:LONGEST]) for query in queries)
        return [best(scores.astype("f4"), k) for scores in scored]


class Tantivy:
    def __init__(self, index: Any) -> None:
        self._index = index
        self._package = package("tantivy", "tantivy")
        index.reload()
        self._searcher = index.searcher()

    def search(self, queries: Sequence[str], k: int) -> list[list[Numbered]]:
        return [self._one(terms(query)[:LONGEST], k) for query in queries]

    def _one(self, words: list[str], k: int) -> list[Numbered]:
        query, occur = self._package.Query, self._package.Occur.Should
        parts = [(occur, query.term_query(self._index.schema, "text", word)) for word in words]
        # more than k, so that equal scores can be put in the order of the corpus
        found = self._searcher.search(query.boolean_query(parts), 4 * k).hits
        numbered = [
            (int(self._searcher.doc(place)["number"][0]), float(score)) for score, place in found
        ]
        return sorted(numbered, key=lambda hit: (-hit[1], hit[0]))[:k]


def _build_tantivy(corpus: Corpus, *, folder: Path | None) -> Index:
    tantivy = package("tantivy", "tantivy")
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
    schema.add_unsigned_field("number", stored=True)
    index = tantivy.Index(schema.build(), path=None if folder is None else str(folder))
    writer = index.writer(HEAP, 1)
    for number, p in enumerate(each(corpus)):
        writer.add_document(tantivy.Document(text=" ".join(terms(p.contents)), number=number))
    writer.commit()
    writer.wait_merging_threads()
    return Tantivy(index)


def _load_tantivy(folder: Path) -> Index:
    return Tantivy(package("tantivy", "tantivy").Index.open(str(folder)))


def _build_lucene(corpus: Corpus, *, folder: Path | None) -> Index:
    from tutelage_worlds.webshop.index import Builder
    from tutelage_worlds.webshop.storage import Folder, Memory

    place = Memory() if folder is None else Folder(folder)
    builder = Builder(place, "text")
    for p in each(corpus):
        builder.add(terms(p.contents))
    builder.write()
    return Lucene(place)


def _load_lucene(folder: Path) -> Index:
    from tutelage_worlds.webshop.storage import Folder

    return Lucene(Folder(folder))


BM25S: Final = Kind(_build_bm25s, _load_bm25s)
LUCENE: Final = Kind(_build_lucene, _load_lucene)
TANTIVY: Final = Kind(_build_tantivy, _load_tantivy)
