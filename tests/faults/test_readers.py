"""Commands that only read a run: what is damaged in it is one sentence, or is left out; never a
traceback."""

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_runs import tiny_file

from tutelage.cli.main import main
from tutelage.config import json_text, toml_file
from tutelage.errors import ConfigError, RunError
from tutelage.rollout import record
from tutelage.runs import meta
from tutelage.viewer import server
from tutelage.viewer.index import Index
from tutelage.viewer.runs import Folder
from tutelage.viewer.text import tokenizer_of

COMMANDS = {
    "runs": ["runs", "run"],
    "show": ["show", "run"],
    "view": ["view", "run", "--html", "page.html"],
    "compare": ["compare", "run"],
    "convert": ["convert", "run", "out.jsonl", "--to", "messages"],
}
READ_BY = {
    "meta.json": ["runs", "view", "compare"],
    "metrics.jsonl": ["runs", "compare"],
    "timings.jsonl": ["compare"],
    "evals.jsonl": ["runs", "compare"],
    "episodes.jsonl": ["show", "convert"],
    "latest": ["view"],
}
"""The commands that read each file."""


def _texts_for_numbers(path: Path) -> None:
    path.write_bytes(re.sub(rb"(:)(-?\d+\.?\d*)", rb'\1"x"', path.read_bytes()))


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_RDONLY)  # a socket's path has at most 107 bytes
        server.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a number": lambda path: path.write_text("3\n"),
    "an empty object": lambda path: path.write_text("{}\n"),
    "deep": lambda path: path.write_text("[" * 50_000 + "\n"),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00\n"),
    "texts for numbers": _texts_for_numbers,
    "a folder": lambda path: _instead(path, Path.mkdir),
    "a link to itself": lambda path: _instead(path, lambda p: p.symlink_to(p.name)),
    "a named pipe": lambda path: _instead(path, os.mkfifo),
    "a socket": lambda path: _instead(path, _socket),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READ_BY)
def test_it_is_read_or_refused_in_one_sentence(
    run: Path,
    name: str,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run.parent / "cache"))
    DAMAGES[damage](run / name)
    for command in READ_BY[name]:
        code = main(COMMANDS[command])  # another exception than a sentence's ends the test
        message = capsys.readouterr().err.strip()
        assert code in (0, 2), message
        assert len(message.splitlines()) == (code == 2), message
        assert not code or re.match(r"tutelage: run\b.*", message)


@pytest.mark.parametrize("name", ["config.toml", ".lock", "columns.jsonl", "hints.jsonl"])
def test_a_named_pipe_in_a_folder_is_never_waited_for(
    run: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run.parent / "cache"))
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    ask = [*COMMANDS.values(), ["train", "run", "--resume"], ["export", "run", "out"]]
    for arguments in ask if name == "config.toml" else COMMANDS.values():
        code = main(arguments)
        message = capsys.readouterr().err.strip()
        assert code in (0, 2), message
        assert len([line for line in message.splitlines() if "note:" not in line]) == (code == 2)


def test_what_a_shell_puts_in_the_place_of_a_file_is_read(tmp_path: Path) -> None:
    """As in `tutelage train <(generate)`, which names the end of a pipe."""
    reads, writes = os.pipe()
    os.write(writes, tiny_file().encode())
    os.close(writes)
    try:
        assert toml_file.load(Path(f"/dev/fd/{reads}")).env.suite == "doors"
    finally:
        os.close(reads)
    with pytest.raises(ConfigError, match=r"/dev/zero has .* characters, .* so it is no"):
        toml_file.load(Path("/dev/zero"))


@pytest.mark.parametrize("form", ["messages", "atif", "parquet"])
def test_convert_writes_over_nothing(
    run: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    out = Path("out.parquet" if form == "parquet" else "out.jsonl")
    foreign = out.with_name(f"out.part{out.suffix}")
    foreign.write_text("somebody's\n")
    assert main(["convert", "run", str(out), "--to", form]) == 0
    assert foreign.read_text() == "somebody's\n"
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == [
        out.name,
        foreign.name,
    ]
    out.unlink()
    out.symlink_to("nowhere")  # a link counts as somebody's too
    assert main(["convert", "run", str(out), "--to", form]) == 2
    assert "out" in capsys.readouterr().err


def test_json_of_others_is_never_a_recursion_error() -> None:
    for text in ("[" * 100_000, b"\xff", "{", ""):
        with pytest.raises(ValueError, match=r"\S"):
            json_text.parse(text)
    for text in ("[]", "null", "3", "true", '"a"'):
        with pytest.raises(ValueError, match="an object is expected"):
            json_text.table(text)


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(RunError, match=r"log cannot be read \(Is a directory\)"):
        list(record.read(tmp_path / "log"))
    (tmp_path / "lines").write_text('{"a": 1}\n[2]\n')
    with pytest.raises(RunError, match=r"lines, line 2 is not JSON: it is a list"):
        list(record.read(tmp_path / "lines"))


def test_an_episode_with_a_text_for_its_return_is_left_out_and_named(run: Path) -> None:
    path = run / "episodes.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps({**json.loads(first), "return": "x"}) + "\n" + "".join(others))
    index = Index(run, cache=run.parent / "cache")
    index.update()
    assert index.count() == len(others)
    assert "return is 'x', and a number is expected" in index.problem


def test_a_result_with_a_text_for_a_number_is_named(run: Path) -> None:
    (run / "evals.jsonl").write_text('{"step": 0, "success": 0.5, "low": [], "n": 2}\n')
    row = Folder(run).summary()
    assert row["state"] == "broken"
    assert "evals.jsonl cannot be read: low of a result is []" in row["problem"]


def test_a_tokenizer_that_is_none_is_one_error(run: Path) -> None:
    newest = run / "checkpoints" / (run / "latest").read_text().strip()
    (newest / "tokenizer.json").write_text("{}")
    with pytest.raises(OSError, match=r"tokenizer.json is no tokenizer"):
        tokenizer_of(run)
    (run / "latest").write_bytes(b"\xff\0")
    assert tokenizer_of(run) is None


def test_a_path_without_a_run_is_not_left_out_of_a_comparison(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    Path("empty").mkdir()
    for other in ("empty", os.devnull, "run/checkpoints"):
        assert main(["compare", "run", other]) == 2
        assert f"there is no run in {other};" in capsys.readouterr().err


def test_a_file_that_is_a_link_to_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop.toml").symlink_to("loop.toml")
    Path("other.toml").write_text('extends = "loop.toml"\n')
    for name in ("loop.toml", "other.toml"):
        assert main(["train", name, "--dry-run"]) == 2
        assert "symbolic links" in capsys.readouterr().err


def test_the_home_folder_in_the_name_of_a_file_that_is_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.toml").write_text(tiny_file())
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.toml").write_text('extends = "~/base.toml"\n')
    assert toml_file.load(tmp_path / "below" / "mine.toml").run.steps == 2


def test_files_that_extend_each_other_without_end_are_refused(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    with pytest.raises(ConfigError, match=r"32.toml is the end of a row of more than 32 files"):
        toml_file.load(tmp_path / "0.toml")
    (tmp_path / "nul.toml").write_text('extends = "a\\u0000"\n')
    with pytest.raises(ConfigError, match="is not a path: embedded null byte"):
        toml_file.load(tmp_path / "nul.toml")


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", -1), ("127.0.0.1", 65536), ("a..b", 0), ("x" * 70, 0)]
)
def test_an_address_that_is_none_is_one_sentence(host: str, port: int) -> None:
    with pytest.raises(RunError, match="cannot be used"):
        server.bound(host, port)


def test_a_run_of_another_version_is_named(run: Path) -> None:
    path = run / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tutelage": "9.9"}))
    assert "(was 9.9)" in meta.moved(run)
