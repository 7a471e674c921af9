"""Commands of suites: errors are one sentence and exit code 2."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tutelage_worlds.search_qa.__main__ import main as search_qa
from tutelage_worlds.travelplanner.__main__ import main as travelplanner
from tutelage_worlds.webshop import files
from tutelage_worlds.webshop.__main__ import main as webshop
from tutelage_worlds.webshop.generate import generate

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a corpus, a shop's files and a file."""
    row = {"id": "1", "contents": '"Oslo"\nA town.'}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(row) + "\n")
    result = generate(5, 1)
    files.write(tmp_path, result.products, result.attributes, result.humans)
    return tmp_path


def refused(main: Any, given: list[str], capsys: Captured) -> str:
    """The one line that a command says before it ends with 2."""
    with pytest.raises(SystemExit) as end:
        main(given)
    output = capsys.readouterr().err
    assert end.value.code == 2
    assert output.count("\n") == 1, output
    return output


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("serve {}/corpus.jsonl --port 99999", "--port must be from 0 (any that is free) to 65535"),
        ("serve {}/corpus.jsonl --port -1", "--port must be from 0"),
        ("serve {}/corpus.jsonl --topk 0", "--topk must be at least 1"),
        ("serve {}/corpus.jsonl --host no.such.host.invalid", "cannot listen on no.such.host"),
        ("serve {}/corpus.jsonl --encoder hashed", "--encoder makes vectors"),
        ("serve {}/none.jsonl", "none.jsonl"),
        ("write {}/new --passages 5", "--passages 5 cannot be written: passages = 5"),
        ("write {}/corpus.jsonl", "corpus.jsonl: File exists; name a file or folder that"),
        ("index {}/corpus.jsonl /proc/x", "/proc/x"),
        (
            "index {}/corpus.jsonl {}/new --encoder hashed",
            "the retriever 'lucene' searches by words",
        ),
        ("index {}/corpus.jsonl {}", "is there already"),
    ],
)
def test_search_qa(given: str, part: str, place: Path, capsys: Captured) -> None:
    words = given.replace("{}", str(place)).split()
    lucene = [] if words[0] == "write" else ["--retriever", "lucene"]
    output = refused(search_qa, [*words, *lucene], capsys)
    assert output.startswith("python -m tutelage_worlds.search_qa: ")
    assert part in output
    assert not (place / "new").exists()


def test_a_busy_port(place: Path, capsys: Captured) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        given = ["serve", str(place / "corpus.jsonl"), "--retriever", "lucene", "--port", str(port)]
        assert f"with port {port} ([Errno" in refused(search_qa, given, capsys)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("{} {}/new --products -1", "--products must not be below 0, got -1"),
        ("{} /proc/x", "/proc/x"),
        ("{}/none {}/new", "there is no folder"),
        ("{} {}", "is there already"),
    ],
)
def test_webshop(given: str, part: str, place: Path, capsys: Captured) -> None:
    output = refused(webshop, given.replace("{}", str(place)).split(), capsys)
    assert output.startswith("python -m tutelage_worlds.webshop: ")
    assert part in output


def test_travelplanner(place: Path, capsys: Captured) -> None:
    output = refused(travelplanner, [str(place)], capsys)
    assert output.startswith("python -m tutelage_worlds.travelplanner: there is no flights")
