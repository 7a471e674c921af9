"""Files of a user that were exchanged are read again by the next suite."""

import os
from pathlib import Path

from worlds.test_search_qa_files import TOWNS, asked, lines, rows
from worlds.test_tau_bench_files import CANCEL, written
from worlds.test_travelplanner_files import ENTRIES, whole

from tutelage_worlds.read_once import forget_changed, read_once
from tutelage_worlds.search_qa import SearchQA
from tutelage_worlds.tau_bench import TauBench
from tutelage_worlds.travelplanner import TravelPlanner
from tutelage_worlds.webshop import WebShop, files
from tutelage_worlds.webshop.generate import generate


def test_a_file_is_read_again_after_it_has_changed(tmp_path: Path) -> None:
    count = 0

    @read_once(4)
    def read(path: str) -> str:
        nonlocal count
        count += 1
        return "".join(each.read_text() for each in sorted(Path(path).glob("*.txt")))

    (tmp_path / "a.txt").write_text("one")
    for _ in range(2):
        assert read(str(tmp_path)) == "one"
        forget_changed()
    assert count == 1
    before = (tmp_path / "a.txt").stat()
    (tmp_path / "a.txt").write_text("two")
    assert read(str(tmp_path)) == "one"
    forget_changed()
    assert read(str(tmp_path)) == "two"
    (tmp_path / "b.txt").write_text(" and more")
    forget_changed()
    assert read(str(tmp_path)) == "two and more"
    (tmp_path / "b.txt").unlink()
    os.utime(tmp_path / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    forget_changed()
    assert read(str(tmp_path)) == "two"


def test_suites_see_files_that_were_exchanged(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    shop = str(written(tmp_path / "shop", train=[CANCEL], dev=[]))
    assert len(TauBench(data=shop).tasks("train")) == 1
    written(tmp_path / "shop", train=[CANCEL, CANCEL], dev=[])
    assert len(TauBench(data=shop).tasks("train")) == 2

    data, corpus = tmp_path / "qa", tmp_path / "corpus.jsonl"
    lines(corpus, rows(TOWNS))
    for count in (1, 2):
        lines(data / "nq" / "test.jsonl", [asked("where?", "Alna")] * count)
        suite = SearchQA(data=str(data), corpus=str(corpus))
        assert len(suite.tasks("test")) == count

    for count in (30, 20):
        catalogue = generate(count)
        files.write(tmp_path, catalogue.products, catalogue.attributes, catalogue.humans)
        assert len(WebShop(data=tmp_path).shop().products) == count

    for count in (1, 2):
        trips = [entry for entry in ENTRIES if entry["level"] == "easy"][:count]
        (tmp_path / "country").mkdir(exist_ok=True)
        country = str(whole(tmp_path / "country", trips))
        assert len(TravelPlanner(data=country).tasks("validation")) == count
