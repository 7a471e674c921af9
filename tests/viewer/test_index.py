"""The index finds what a run wrote, follows files that grow, and files that a resume cut back."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from scripts.large_run import write
from tutelage.errors import RunError
from tutelage.viewer.index import ORDERS, Filter, Index, match


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    write(folder, 96, per_step=16, turns=6, with_columns=True)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "run"))


def index_of(run: Path) -> Index:
    cache = run.parent / "cache"
    cache.mkdir(exist_ok=True)
    index = Index(run, cache=cache, default_split="train")
    index.update()
    return index


def lines_of(run: Path, name: str = "episodes.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def put(run: Path, lines: list[dict[str, Any]], name: str = "episodes.jsonl") -> None:
    (run / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def keys_of(run: Path, index: Index, asked: Filter) -> list[tuple[int, str, int]]:
    rows = index.search(asked, descending=False, limit=500)["rows"]
    return [(row["step"], row["task"], row["copy"]) for row in rows]


def key(line: dict[str, Any]) -> tuple[int, str, int]:
    return (line["step"], line["task"]["id"], line["copy"])


FILTERS = [
    (Filter(), lambda e: True),
    (Filter(won=True), lambda e: e["won"]),
    (Filter(won=False), lambda e: not e["won"]),
    (Filter(stop="done"), lambda e: e["stop"] == "done"),
    (
        Filter(family="look_at_obj_in_light"),
        lambda e: e["task"]["family"] == "look_at_obj_in_light",
    ),
    (Filter(low_step=2, high_step=3), lambda e: 2 <= e["step"] <= 3),
    (Filter(low_return=0.5), lambda e: e["return"] >= 0.5),
    (Filter(high_return=0.5), lambda e: e["return"] <= 0.5),
    (Filter(invalid=True), lambda e: not all(t["valid"] for t in e["turns"])),
    (Filter(invalid=False), lambda e: all(t["valid"] for t in e["turns"])),
    (Filter(actor="teacher"), lambda e: any(t["actor"] == "teacher" for t in e["turns"])),
    (Filter(task="household/small/train/0000003"), lambda e: e["task"]["seed"] == 3),
    (Filter(split="test"), lambda e: False),
    (Filter(split="train", phase="train"), lambda e: True),
    (Filter(text='"go to fridge"'), lambda e: any("go to fridge" in t["text"] for t in e["turns"])),
    (
        Filter(text="fridge", won=True, low_step=1),
        lambda e: e["won"] and e["step"] >= 1 and "fridge" in json.dumps(e["turns"]),
    ),
]


@pytest.mark.parametrize(("asked", "fits"), FILTERS, ids=[str(k) for k in range(len(FILTERS))])
def test_filters_find_what_a_look_at_every_line_finds(run: Path, asked: Filter, fits: Any) -> None:
    expected = [key(line) for line in lines_of(run) if fits(line)]
    found = index_of(run)
    assert keys_of(run, found, asked) == expected
    answer = found.search(asked, limit=1)
    assert answer["total"] == len(expected)
    assert answer["won"] == sum(line["won"] for line in lines_of(run) if fits(line))


def test_pages_and_orders(run: Path) -> None:
    index = index_of(run)
    for order in ORDERS:
        whole = index.search(Filter(), order=order, limit=500)["rows"]
        parts = [
            row
            for offset in range(0, 96, 40)
            for row in index.search(Filter(), order=order, limit=40, offset=offset)["rows"]
        ]
        assert whole == parts
    falling = [row["tokens"] for row in index.search(Filter(), order="tokens", limit=500)["rows"]]
    assert falling == sorted(falling, reverse=True)
    with pytest.raises(RunError, match="choose step"):
        index.search(Filter(), order="step; DROP TABLE episodes")


def test_an_episode_and_its_columns_are_read_from_their_places(run: Path) -> None:
    index = index_of(run)
    signals = {(c["step"], c["task"], c["copy"]): c for c in lines_of(run, "columns.jsonl")}
    for number, line in enumerate(lines_of(run), 1):
        assert index.episode(number) == line
        assert index.columns(number) == signals[key(line)]["columns"]
    assert index.recorded_steps() == [("train", step) for step in range(6)]
    assert len(list(index.columns_of_step("train", 2))) == 16
    with pytest.raises(RunError, match="no episode 97"):
        index.episode(97)


def test_a_task_drawn_twice_in_a_step_has_two_columns(run: Path) -> None:
    first = lines_of(run)[0]
    signals = lines_of(run, "columns.jsonl")[0]
    other = json.loads(json.dumps(signals).replace("0.0", "0.1"))
    put(run, [first, first])
    put(run, [signals, other], "columns.jsonl")
    index = index_of(run)
    assert index.columns(1) == signals["columns"]
    assert index.columns(2) == other["columns"] != signals["columns"]


def test_what_is_appended_is_read_alone(run: Path) -> None:
    lines = lines_of(run)
    put(run, lines[:50])
    index = index_of(run)
    assert index.count() == 50
    assert not index.update()
    with (run / "episodes.jsonl").open("a") as file:
        file.write(json.dumps(lines[50]) + "\n" + json.dumps(lines[51])[:100])
    assert index.update()
    assert index.count() == 51, "a line that is still being written is left for later"
    put(run, lines)
    again = Index(run, cache=index.path.parent)
    assert again.count() == 51, "the index outlives the process"
    assert again.update()
    assert keys_of(run, again, Filter()) == [key(line) for line in lines]


def test_a_resume_that_cut_the_file_leaves_no_old_episode(run: Path) -> None:
    lines = lines_of(run)
    index = index_of(run)
    other = [{**line, "step": line["step"] + 100} for line in lines[30:]]
    for turn in other[0]["turns"]:
        turn["seen"] = "a quetzal"
    put(run, [*lines[:30], *other, *other])  # longer than it was before
    index.update()
    expected = [key(line) for line in [*lines[:30], *other, *other]]
    assert keys_of(run, index, Filter()) == expected
    assert index.search(Filter(text="quetzal"))["total"] == 2
    put(run, lines[:10])
    index.update()
    assert keys_of(run, index, Filter()) == [key(line) for line in lines[:10]]
    assert index.search(Filter(text="quetzal"))["total"] == 0


def test_a_broken_line_is_told_and_hides_no_other(run: Path) -> None:
    lines = [json.dumps(line) for line in lines_of(run)]
    lines[3] = '{"phase": "train", "task": 3}'
    lines[5] = "\x00 not json"
    (run / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    index = index_of(run)
    assert index.count() == 94
    assert "not a line that a run writes" in index.problem


def test_a_broken_index_is_made_anew(run: Path) -> None:
    path = index_of(run).path
    path.write_bytes(b"no database" * 1000)
    assert index_of(run).count() == 96
    with sqlite3.connect(path) as db:
        db.execute("UPDATE facts SET value = '0' WHERE name = 'version'")
        db.execute("DELETE FROM episodes WHERE id > 10")
    assert index_of(run).count() == 96


def test_it_stops_when_it_is_told_to_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write(tmp_path / "run", 900, per_step=100, turns=2)
    index = Index(tmp_path / "run", cache=tmp_path)
    index.update(lambda: False)
    assert 0 < index.count() < 900
    assert 0 < index.done < index.total
    index.update()
    assert index.count() == 900
    assert index.done == index.total


@pytest.mark.parametrize(
    ("typed", "query"),
    [
        ("", ""),
        ("  ", ""),
        ("apple", '"apple"*'),
        ("apple ", '"apple"'),
        ('"go to', '"go" "to"*'),
        ('"go to" x*', '"go to" "x*"'),
        ("NEAR(a b)", '"NEAR(a" "b)"'),
        ("a OR b", '"a" "OR" "b"*'),
        ("'; --", ""),
        ("\u202e", ""),
    ],
)
def test_whatever_is_typed_is_searched_as_words(run: Path, typed: str, query: str) -> None:
    assert match(typed) == query or query == '"go" "to"*'
    index_of(run).search(Filter(text=typed))  # no error of FTS5's grammar
