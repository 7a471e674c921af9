"""Arguments of commands that cannot be meant: one sentence, and nothing is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.cli.main import main

EMPTY = {
    "train": [""],
    "runs": [""],
    "show": [""],
    "view": ["", "--html", "page.html"],
    "compare": [""],
    "export": ["run", ""],
    "convert": ["run", "", "--to", "messages"],
    "collect": ["run", "--out", ""],
    "eval": ["run", "--out", ""],
    "doctor": [""],
    "init": ["doors", ""],
    "demo": ["--folder", ""],
    "try": [""],
    "send": ["", "--sink", "tensorboard"],
}


@pytest.mark.parametrize("command", EMPTY)
def test_an_empty_path_is_not_the_folder_of_work(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A variable of the shell that is not set becomes one, and `Path("")` is where one stands."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([command, *EMPTY[command]])
    assert end.value.code == 2
    assert "it is empty; name a file or a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


REFUSED = [
    (["check-env", "doors", "--seconds", "1e9"], "--seconds must be at most 1000000, got 1e+09"),
    (["check-env", "doors", "--seconds", "inf"], "--seconds must be above 0, got inf"),
    (["check-agent", "true", "--seconds", "3e6"], "--seconds must be at most 1000000, got 3e+06"),
    (["bench", "my.toml", "--seconds", "1e300"], "--seconds must be at most 1000000"),
    (["view", "run", "--port", "-1"], "port -1 of 127.0.0.1 cannot be used"),
    (["eval", "run", "--panel", ""], "there is no panel ''"),
    (
        ["collect", "run/config.toml", "--checkpoint", "x"],
        "--checkpoint x is for the folder of a run",
    ),
    (["power", "--tasks", "0"], "tasks must be at least 2, got 0"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED, ids=lambda x: " ".join(x)[:40])
def test_it_is_refused_in_one_sentence(
    given: list[str],
    sentence: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run.parent / "cache"))
    before = sorted(Path().rglob("*"))
    assert main(given) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1
    assert [p for p in sorted(Path().rglob("*")) if "cache" not in p.parts] == before


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"COLUMNS": "0"}],
    ids=str,
)
def test_what_is_printed_fails_on_no_console(environment: dict[str, str], run: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(run.parent / "cache")}
    for command in (["show", "run"], ["show", "run", "--episode", "1"], ["runs", "run"]):
        shown = subprocess.run(
            [sys.executable, "-m", "tutelage", *command],
            cwd=run.parent,
            env={**os.environ, **cache, **environment},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert shown.returncode == 0
        assert not shown.stderr
        assert shown.stdout.strip()
