"""Retrieval of Search-QA: every engine over one corpus, in memory and in a folder."""

import json
import math
import pickle
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from support.search_qa_corpora import TOWNS, lines, rows, small, towns

from tutelage.errors import ConfigError, EnvError
from tutelage_worlds.search_qa import DataError, SearchQA, encoders, retrieval
from tutelage_worlds.search_qa.__main__ import index_folder, main
from tutelage_worlds.search_qa.passages import InMemory, Lines, Passage, load, titled
from tutelage_worlds.search_qa.retrieval import ENGINES, Engine, build, opened
from tutelage_worlds.webshop.analysis import terms

PACKAGES = {"bm25s": "bm25s", "tantivy": "tantivy", "faiss": "faiss", "usearch": "usearch"}


def need(engine: str) -> Engine:
    if engine in PACKAGES:
        pytest.importorskip(PACKAGES[engine])
    return engine  # type: ignore[return-value]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_finds_what_is_named(engine: str, tmp_path: Path) -> None:
    corpus = small()
    result = build(corpus, need(engine), encoder="hashed")
    titles = [corpus[n].title for n in range(0, 240, 12)]
    found = result.search(titles, 5)
    hits = sum(
        t in [hit.passage.title for hit in row] for t, row in zip(titles, found, strict=True)
    )
    assert hits >= len(titles) - 1
    for row in found:
        assert len(row) <= 5
        assert [h.score for h in row] == sorted((h.score for h in row), reverse=True)
    assert found == [result.search([title], 5)[0] for title in titles]
    index_folder(corpus, tmp_path / "index", engine, "hashed")
    again = opened(corpus, tmp_path / "index")
    assert again.engine == engine
    for one, other in zip(again.search(titles, 5), found, strict=True):
        assert [hit.passage for hit in one] == [hit.passage for hit in other]
    assert again.search([], 5) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_any_query_is_searched(engine: str) -> None:
    result = build(towns(), need(engine), encoder="hashed")
    for query in (
        "",
        " ",
        "the",
        "\ud800",
        "🚪" * 50,
        "(a OR b) AND text:[x TO *] \\ \"'",
        "\x00",
        "river " * 50_000,
        " ".join(map(str, range(30_000))),
    ):
        (row,) = result.search([query], 3)
        assert len(row) <= 3
        assert all(math.isfinite(hit.score) for hit in row)
    assert len(result.search(["river"], 100)[0]) == 3
    assert result.search(["river", "x"], 0) == [[], []]
    if engine in ("bm25s", "lucene", "tantivy"):
        assert result.search(["zzz " * 1023 + "oslo", "zzz " * 1024 + "oslo"], 1)[1] == []
        assert len(result.search(["zzz " * 1023 + "oslo"], 1)[0]) == 1
        assert result.search(["the zzz"], 3) == [[]]


def test_bm25_is_the_formula() -> None:
    pytest.importorskip("bm25s")
    corpus, query = small(), "river birthplace of the teacher Susakan Susakan"
    texts = [Counter(terms(corpus[n].contents)) for n in range(len(corpus))]
    average = sum(t.total() for t in texts) / len(texts)
    scores = np.zeros(len(texts))
    for word in terms(query):
        having = sum(word in text for text in texts)
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for n, text in enumerate(texts):
            length = 0.9 * (1 - 0.4 + 0.4 * text.total() / average)
            scores[n] += idf * text[word] / (text[word] + length)
    expected = sorted(range(len(texts)), key=lambda n: (-round(scores[n], 4), n))[:20]
    for engine, exact in (("bm25s", 1e-4), ("lucene", 0.05)):
        found = build(corpus, engine).index.search([query], 20)[0]  # type: ignore[arg-type]
        assert found[0][1] == pytest.approx(scores[found[0][0]], rel=exact)
        if engine == "bm25s":
            assert [round(score, 3) for _, score in found] == [
                round(float(scores[n]), 3) for n in expected
            ]


def test_equal_scores_are_in_the_order_of_the_corpus() -> None:
    same = InMemory("same", [titled(str(n), "Oslo", "A town.") for n in range(20)])
    for engine in ("bm25s", "lucene", "tantivy"):
        result = build(same, need(engine))
        assert [hit.passage.id for hit in result.search(["oslo"], 4)[0]] == ["0", "1", "2", "3"]


def test_a_corpus_without_words() -> None:
    for engine in ("bm25s", "lucene", "tantivy"):
        result = build(InMemory("none", [Passage("0", ""), Passage("1", "\n")]), need(engine))
        assert result.search(["oslo", ""], 3) == [[], []]


def test_an_index_of_another_corpus_is_refused(tmp_path: Path) -> None:
    index_folder(towns(), tmp_path / "index", "lucene")
    with pytest.raises(DataError, match="built of towns with 3"):
        opened(small(), tmp_path / "index")
    with pytest.raises(DataError, match="is there already"):
        index_folder(towns(), tmp_path / "index", "lucene")
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    with pytest.raises(DataError, match="holds no index"):
        opened(towns(), tmp_path)
    for text in (
        "{",
        "[]",
        '{"engine": "x", "corpus": "", "passages": 1}',
        '{"engine": "lucene"}',
        '{"engine": "faiss", "corpus": "", "passages": 1}',
    ):
        (tmp_path / retrieval.MANIFEST).write_text(text)
        with pytest.raises(DataError, match="holds no index"):
            opened(towns(), tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_that_is_not_whole_is_refused(engine: str, tmp_path: Path) -> None:
    """Also one of an older release, which does not say how large its files are."""
    index_folder(towns(), tmp_path / "index", need(engine), "hashed")
    files = [p for p in (tmp_path / "index").rglob("*") if p.is_file() and p.name[0] != "."]
    assert len(files) > 1
    for path in files:
        whole = path.read_bytes()
        for wrong in (None, b"", whole[: len(whole) // 2], whole + b"more"):
            path.unlink(missing_ok=True)
            if wrong is not None:
                path.write_bytes(wrong)
            with pytest.raises(DataError, match="holds no index that can be used"):
                opened(towns(), tmp_path / "index")
        path.write_bytes(whole)
    manifest = tmp_path / "index" / retrieval.MANIFEST
    says = json.loads(manifest.read_text())
    del says["files"]
    manifest.write_text(json.dumps(says))
    assert len(opened(towns(), tmp_path / "index").search(["oslo"], 1)[0]) == 1
    for path in files:
        if path != manifest:
            path.unlink()
    with pytest.raises(DataError, match="holds no index that can be used"):
        opened(towns(), tmp_path / "index")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("bm25s", "tantivy", "faiss"):
        monkeypatch.setitem(sys.modules, engine, None)
        with pytest.raises(ConfigError, match=r"pip install 'tutelage\[search\]'"):
            build(towns(), engine, encoder="hashed")  # type: ignore[arg-type]


# -- encoders


def turned(texts: Sequence[str], queries: bool) -> np.ndarray:
    """Queries are turned by 90 degrees, so that they find what they do not say."""
    result = np.array([[len(t), 1.0] for t in texts])
    return result[:, ::-1] if queries else result


def short(texts: Sequence[str], queries: bool) -> np.ndarray:
    return np.zeros((1, 2))


def wide(texts: Sequence[str], queries: bool) -> np.ndarray:
    return np.ones((len(texts), 3 if queries else 2))


def ragged(texts: Sequence[str], queries: bool) -> list[list[float]]:
    return [[1.0] * k for k in range(len(texts))]


def wordy(texts: Sequence[str], queries: bool) -> list[list[str]]:
    return [[text] for text in texts]


def failing(texts: Sequence[str], queries: bool) -> np.ndarray:
    raise KeyError("no key")


def test_vectors_have_length_one_and_queries_are_marked() -> None:
    result = encoders.hashed(["the river Alna", "", "river"], queries=False)
    assert result.shape == (3, encoders.DIMENSIONS)
    assert np.linalg.norm(result, axis=1) == pytest.approx([1, 0, 1])
    encode = encoders.encoder(f"{__name__}:turned")
    assert encode(["abc"], True)[0] == pytest.approx([1 / 10**0.5, 3 / 10**0.5])
    assert encode(["abc"], False)[0] == pytest.approx([3 / 10**0.5, 1 / 10**0.5])


def test_what_no_encoding_can_hold_is_replaced() -> None:
    asked = []

    class Encoder:
        def search(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
            asked.extend(queries)
            return [[] for _ in queries]

    retrieval.Local(towns(), Encoder(), "lucene").search(["\ud800 é"], 3)
    assert asked == ["? é"]


def test_encoders_that_are_none() -> None:
    for name, text in (
        ("", "needs an encoder"),
        ("nothing", "neither a folder"),
        ("json:nope", "belongs to Python itself"),
        ("no.such:thing", "could not be imported"),
    ):
        with pytest.raises(ConfigError, match=text):
            encoders.encoder(name)
    for name in ("ragged", "wordy", "failing"):
        with pytest.raises(EnvError, match=rf"the encoder \S+:{name} raised (Value|Key)Error"):
            build(towns(), need("faiss"), encoder=f"{__name__}:{name}")
    with pytest.raises(DataError, match=r"shape \(1, 2\) for 3 texts"):
        build(towns(), need("faiss"), encoder=f"{__name__}:short")
    for engine in ("faiss", "usearch"):
        with pytest.raises(DataError, match="3 dimensions and the index has 2"):
            build(towns(), need(engine), encoder=f"{__name__}:wide").search(["a"], 1)


def test_a_models_vectors_are_means_over_tokens(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    from tutelage.policies.hf.tiny import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer([p.contents for p in TOWNS], entries=300)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"intermediate_size": 32, "vocab_size": len(tokenizer)}
    model = BertModel(BertConfig(**shape, **sizes)).eval()
    for name, before in (("tiny", ("", "")), ("e5-tiny", ("passage: ", "query: "))):
        tokenizer.save_pretrained(tmp_path / name)
        model.save_pretrained(tmp_path / name)
        encode = encoders.encoder(str(tmp_path / name))
        texts = ["A town on the river", "Oslo"]
        for queries in (False, True):
            for text, vector in zip(texts, encode(texts, queries), strict=True):
                ids = tokenizer(before[queries] + text, return_tensors="pt")
                with torch.inference_mode():
                    mean = model(**ids).last_hidden_state[0].mean(0).numpy()
                assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    encode = encoders.encoder(str(tmp_path / "tiny"))
    for texts in (["", "Oslo"], [""]):  # without a token there is no direction
        assert np.linalg.norm(encode(texts, True), axis=1) == pytest.approx([0, 1][: len(texts)])


def test_models_that_are_no_encoders(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, T5Config, T5Model

    from tutelage.policies.hf.tiny import train_tokenizer

    tokenizer = train_tokenizer([p.contents for p in TOWNS], entries=300)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertConfig(
        **sizes, intermediate_size=32, vocab_size=len(tokenizer), max_position_embeddings=8
    )
    t5 = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=len(tokenizer))
    for name, model in (("short", BertModel(bert)), ("cut", BertModel(bert)), ("t5", T5Model(t5))):
        tokenizer.save_pretrained(tmp_path / name)
        model.save_pretrained(tmp_path / name)
    assert encoders.encoder(str(tmp_path / "short"))(["river " * 100], True).shape == (1, 16)
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut")
    (tmp_path / "empty").mkdir()
    for name in ("t5", "cut", "empty"):
        with pytest.raises(ConfigError, match=rf"{name} holds no model that can be used \(.+\)$"):
            encoders.encoder(str(tmp_path / name))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "short")
    encoders.encoder.cache_clear()
    with pytest.raises(ConfigError, match="has no pad_token"):
        encoders.encoder(str(tmp_path / "short"))


# -- corpora


def test_a_file_of_lines_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    path = lines(tmp_path / "corpus.jsonl", rows(TOWNS))
    path.write_text("\n" + path.read_text().replace("\n", "\n\n") + "  \n")
    corpus = load(path)
    assert [corpus[n] for n in range(3)] == list(TOWNS)
    assert (len(corpus), corpus[-1]) == (3, TOWNS[2])
    assert isinstance(corpus, Lines)
    assert [Lines(path, corpus.ends)[n] for n in (2, 0)] == [TOWNS[2], TOWNS[0]]
    with pytest.raises(IndexError, match="has 3"):
        corpus[3]


def test_a_byte_order_mark_and_half_a_character_are_read(tmp_path: Path) -> None:
    """Editors write the one, other programs the other; nothing that is shown can hold it."""
    (tmp_path / "corpus.jsonl").write_text('\ufeff{"id": 1, "contents": "a\\ud83d \\ud83d\\ude00"}')
    assert load(tmp_path / "corpus.jsonl")[0].contents == "a? \U0001f600"


def test_lines_and_tables_hold_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parts = [{"id": 7, "title": "Oslo", "text": "A town."}]
    for result in (rows(TOWNS), parts):
        parquet.write_table(pyarrow.Table.from_pylist(result), tmp_path / "c.parquet")
        table, other = load(tmp_path / "c.parquet"), load(lines(tmp_path / "c.jsonl", result))
        assert [table[n] for n in range(len(table))] == [other[n] for n in range(len(other))]
    assert table[0].contents == '"Oslo"\nA town.'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": 1}', "`contents`, or `title` and `text`"),
        ("[1]", "must be an object"),
        ('{"contents": "a"}', "`id` must be"),
        ('{"id": true, "contents": "a"}', "`id` must be"),
        ('{"id": 1, "contents": 3}', "`contents` must be a string"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_errors_in_a_passage_are_reported_with_their_place(
    row: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"id": 0, "contents": "ok"}}\n{row}\n')
    with pytest.raises(DataError, match=rf"corpus.jsonl, line 2.*{message}"):
        build(load(path), "lucene")


def test_a_corpus_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file of passages"):
        load(tmp_path / "nothing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no passages"):
        load(tmp_path / "empty.jsonl")
    pytest.importorskip("pyarrow")
    (tmp_path / "broken.parquet").write_text("x")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load(tmp_path / "broken.parquet")


# -- with the suite


def test_the_suite_opens_an_index_and_refuses_another_engine(tmp_path: Path) -> None:
    main(["write", str(tmp_path / "own"), "--passages", "600"])
    corpus = tmp_path / "own" / "corpus.jsonl"
    main(["index", str(corpus), str(tmp_path / "index"), "--retriever", "lucene"])
    settings = {"data": tmp_path / "own", "corpus": corpus, "index": tmp_path / "index"}
    suite = SearchQA(**settings, retriever="lucene")
    assert pickle.loads(pickle.dumps(suite)) == suite
    own = SearchQA(passages=600, retriever="lucene")
    draw = Random(0)
    for index in draw.sample(range(300), 20):
        task, actual = suite.tasks("test")[index], own.tasks("test")[index]
        assert (suite.describe(task), suite.answer(task)) == (
            own.describe(actual),
            own.answer(actual),
        )
        assert suite.demonstrate(task) == own.demonstrate(actual)
        assert suite.plan(task) == own.plan(actual)
    with pytest.raises(ConfigError, match="was built for the retriever 'lucene'"):
        SearchQA(**settings).library()
    with pytest.raises(SystemExit, match="2"):
        main(["index", str(corpus), str(tmp_path / "index"), "--retriever", "lucene"])
