"""The seven data sets from local files, and error messages for broken files."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.search_qa_corpora import TOWNS, lines, rows

from tutelage.cli.main import main
from tutelage.envs.requirements import Need
from tutelage.errors import ConfigError
from tutelage.evaluation.evaluate import panel
from tutelage_worlds.search_qa import DataError, SearchQA, needs
from tutelage_worlds.search_qa.questions import SOURCES, load


def asked(text: str, *golds: str, **more: Any) -> dict[str, Any]:
    return {"id": "test_0", "question": text, "golden_answers": list(golds), **more}


SUPPORT = {"supporting_facts": {"title": ["Lima", "Oslo", "Lima"], "sent_id": [0, 1, 2]}}


@pytest.fixture
def flash(tmp_path: Path) -> Path:
    """FlashRAG's folders: some data sets have a test split, some only dev."""
    for source in SOURCES:
        split = "test" if source in ("nq", "triviaqa", "popqa", "bamboogle") else "dev"
        results = [asked(f"{source} {k}", "Alna", "the Alna", metadata=SUPPORT) for k in range(3)]
        lines(tmp_path / "qa" / source / f"{split}.jsonl", results)
    for source in ("nq", "hotpotqa"):
        lines(tmp_path / "qa" / source / "train.jsonl", [asked(f"{source}", "Alna")])
    lines(tmp_path / "corpus.jsonl", rows(TOWNS))
    return tmp_path


def suite(folder: Path, **more: Any) -> SearchQA:
    return SearchQA(data=folder / "qa", corpus=folder / "corpus.jsonl", retriever="lucene", **more)


def test_the_seven_data_sets_take_turns(flash: Path) -> None:
    result = suite(flash)
    tasks = list(result.tasks("test"))
    assert [t.family for t in tasks] == [*SOURCES] * 3
    assert tasks[10].id == "search_qa/hotpotqa/test/0000001"
    assert len({t.id for t in tasks}) == 21
    assert result.describe(tasks[10]) == "hotpotqa 1"
    assert {t.family for t in panel(result, "test", 7).tasks} == {*SOURCES}
    assert [t.family for t in result.tasks("train")] == ["nq", "hotpotqa"]
    assert len(result.tasks("dev")) == 9
    few = suite(flash, families=["popqa", "nq"])
    assert [t.family for t in few.tasks("test")] == ["nq", "popqa"] * 3
    assert few.tasks("test")[0] == result.tasks("test")[0]


def test_a_loaded_question_is_played_and_won_by_its_plan(flash: Path) -> None:
    result = suite(flash)
    task = result.tasks("test")[3]
    assert result.answer(task) == "Alna"
    assert result.plan(task) == [
        "<search> Lima </search>",
        "<search> Oslo </search>",
        "<answer> Alna </answer>",
    ]
    env = result.make()
    assert env.reset(task).text == "Question: hotpotqa 0?"
    for action in result.plan(task):
        seen = env.step(action)
    assert (seen.won, seen.reward) == (True, 1.0)
    # its titles are not known: the question itself is searched
    assert result.plan(result.tasks("train")[0])[0] == "<search> nq </search>"
    with pytest.raises(ValueError, match="not one of these questions"):
        env.reset(suite(flash, families=["nq"]).tasks("test")[0].__class__(id="x"))


def test_another_corpus_is_another_panel(flash: Path) -> None:
    result = panel(suite(flash), "test", 7)
    lines(flash / "fewer.jsonl", rows(TOWNS)[1:])
    fewer = SearchQA(data=flash / "qa", corpus=flash / "fewer.jsonl", retriever="lucene")
    served = SearchQA(data=flash / "qa", url="http://localhost:9")
    found = [panel(kind, "test", 7) for kind in (suite(flash, topk=1), fewer, served)]
    assert [other.tasks == result.tasks for other in found] == [True] * 3
    assert [other.fingerprint == result.fingerprint for other in found] == [True, False, False]
    lines(flash / "fewer.jsonl", rows(TOWNS)[2:])
    assert panel(fewer, "test", 7).fingerprint not in {other.fingerprint for other in found}


def test_questions_of_others_are_guessed_at(tmp_path: Path) -> None:
    lines(
        tmp_path / "qa" / "nq" / "test.jsonl",
        [asked("which town is on the Rimac?", "Lima"), asked("zzz?", "Lima")],
    )
    lines(tmp_path / "corpus.jsonl", rows(TOWNS))
    result = suite(tmp_path)
    first, second = result.tasks("test")
    assert result.demonstrate(first) == [
        "<search> which town is on the Rimac </search>",
        "<answer> Lima </answer>",
    ]
    assert result.demonstrate(second)[-1] == "<answer> unknown </answer>"
    assert len(result.thoughts(first)) == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text", ["Do " + " and " * 40_000 + "?", "What is " + "the river of " * 2000 + "x?"]
)
def test_a_question_of_any_length_is_guessed_at(tmp_path: Path, text: str) -> None:
    """However much it looks like one that is understood."""
    lines(tmp_path / "corpus.jsonl", rows(TOWNS))
    lines(tmp_path / "qa" / "nq" / "test.jsonl", [asked(text, "Alna")])
    suite = SearchQA(data=tmp_path / "qa", corpus=tmp_path / "corpus.jsonl", retriever="lucene")
    assert suite.demonstrate(suite.tasks("test")[0])[-1].startswith("<answer> ")


def test_search_r1s_own_tables(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = [
        {
            "question": f"q{k}?",
            "data_source": source,
            "prompt": [{"role": "user", "content": "x"}],
            "reward_model": {"style": "rule", "ground_truth": {"target": ["Alna", "b"]}},
        }
        for k, source in enumerate(["searchR1_nq", "nq", "hotpotqa"])
    ]
    (tmp_path / "qa").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "qa" / "train.parquet")
    lines(tmp_path / "corpus.jsonl", rows(TOWNS))
    result = suite(tmp_path)
    assert [t.id for t in result.tasks("train")] == [
        "search_qa/nq/train/0000000",
        "search_qa/hotpotqa/train/0000000",
        "search_qa/nq/train/0000001",
    ]
    assert result.question(result.tasks("train")[2]).golds == ("Alna", "b")
    with pytest.raises(DataError, match="has no questions for 'test'"):
        result.tasks("test")


def test_lines_and_tables_hold_the_same_questions(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    results = [asked("a", "b", "c", data_source="nq", metadata=SUPPORT)]
    lines(tmp_path / "one" / "test.jsonl", results)
    (tmp_path / "two").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(results), tmp_path / "two" / "test.parquet")
    assert load(str(tmp_path / "one"), "test") == load(str(tmp_path / "two"), "test")
    lines(tmp_path / "two" / "test.jsonl", results)
    with pytest.raises(DataError, match="holds both"):
        load(str(tmp_path / "two"), "test", ("nq",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "must be an object"),
        ({"golden_answers": ["a"]}, "`question` must be"),
        ({"question": " ", "golden_answers": ["a"]}, "`question` must be"),
        ({"question": "a"}, "`golden_answers`"),
        (asked("a"), "`golden_answers`"),
        ({"question": "a", "golden_answers": ["", "b"]}, "`golden_answers`"),
        ({"question": "a", "golden_answers": [3]}, "`golden_answers`"),
        ({"question": "a", "reward_model": {"ground_truth": 3}}, "`golden_answers`"),
        ({**asked("a", "b"), "data_source": 4}, "`data_source`"),
    ],
)
def test_errors_in_a_question_are_reported(tmp_path: Path, row: Any, message: str) -> None:
    lines(tmp_path / "test.jsonl", [asked("a", "b"), row])
    with pytest.raises(DataError, match=rf"test.jsonl, line 2.*{message}"):
        load(str(tmp_path), "test")


def test_one_answer_need_not_be_a_list_and_metadata_may_be_anything(tmp_path: Path) -> None:
    metadata: list[Any] = [None, 3, {"supporting_facts": None}, {"supporting_facts": {"title": 3}}]
    found = [{"question": "a", "golden_answers": "b", "metadata": m} for m in metadata]
    lines(tmp_path / "test.jsonl", found)
    loaded = load(str(tmp_path), "test")
    assert {q.golds for q in loaded} == {("b",)}
    assert {q.titles for q in loaded} == {()}
    assert {q.source for q in loaded} == {"questions"}


def test_folders_that_hold_none(flash: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        load(str(flash / "no"), "test")
    with pytest.raises(DataError, match=r"no questions of 'nqq' for 'test'; did you mean nq\?"):
        load(str(flash / "qa"), "test", ("nqq",))
    (flash / "bare").mkdir()
    with pytest.raises(DataError, match=r"there should be train\.parquet or train\.jsonl"):
        load(str(flash / "bare"), "train")
    (flash / "bare" / "train.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="line 1: not JSON"):
        load(str(flash / "bare"), "train")
    (flash / "bare" / "train.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match="line 1: not JSON"):
        load.__wrapped__(str(flash / "bare"), "train")
    (flash / "bare" / "train.jsonl").write_text("\ufeff" + json.dumps(asked("a", "b")))
    assert len(load.__wrapped__(str(flash / "bare"), "train")) == 1
    (flash / "bare" / "test.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot be read"):
        load(str(flash / "bare"), "test")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "test.parquet").write_text("x")
    with pytest.raises(ConfigError, match=r"tutelage\[search\]"):
        load(str(tmp_path), "test")


def test_what_a_run_needs(tmp_path: Path) -> None:
    def wanted(**options: object) -> list[Need]:
        return [need for need in needs(options) if need.required]

    assert [n.name for n in wanted()] == ["bm25s"]
    assert [n.name for n in wanted(size="small")] == ["bm25s"]
    assert [n.name for n in wanted(retriever="faiss")] == ["faiss-cpu"]
    assert wanted(retriever="lucene") == []
    assert wanted(url="http://x") == []
    (tmp_path / "nq").mkdir()
    (tmp_path / "nq/test.jsonl").write_text("x")
    assert "pyarrow" not in [n.name for n in wanted(data=tmp_path, corpus="c.jsonl")]
    (tmp_path / "nq/dev.parquet").write_text("x")
    assert "pyarrow" in [n.name for n in wanted(data=tmp_path, corpus="c.jsonl")]
    named = wanted(retriever="lucene", data="no", corpus="no.parquet", index="no")
    assert [n.name for n in named] == ["pyarrow", "data = no", "corpus = no.parquet", "index = no"]
    assert [n.missing for n in named[1:]] == [True] * 3


def test_settings_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data": "a"}, "set corpus to a file"),
        ({"corpus": "a"}, "set data"),
        ({"url": "http://a", "index": "b"}, "leave corpus and index out"),
        ({"families": ["hops"]}, "the families are single, bridge, chain, compare"),
        ({"families": ["single", "single"]}, "twice"),
        ({"test": -1}, "test = -1"),
        ({"topk": 0}, "topk = 0"),
        ({"words": 0}, "words = 0"),
        ({"passages": 3}, "at least 60"),
    ]
    for settings, text in wrong:
        with pytest.raises(ValueError, match=text):
            SearchQA(**settings)
    assert main(["check-env", "search_qa", "--split", "all"]) != 0
    assert "the splits are train, dev, test" in capsys.readouterr().err
