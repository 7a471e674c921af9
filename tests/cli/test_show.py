"""Runs and episodes are printed on a terminal, and nothing that a run said moves its cursor."""

import json
import sys
from pathlib import Path

import pytest

from scripts.large_run import write
from tutelage.cli.main import main

ESCAPES = "\x1b[2J\x1b]0;title\x07 \u202egnirts"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "runs" / "one"
    write(path, 24, per_step=8, turns=6, with_columns=True)
    lines = [json.loads(line) for line in (path / "episodes.jsonl").read_text().splitlines()]
    lines[5]["turns"][1] |= {"seen": ESCAPES, "text": f"<think>{ESCAPES}</think>{ESCAPES}"}
    lines[5] |= {"error": ESCAPES, "stop": "error"}
    (path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def episodes(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


def shown(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main([*words]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_runs_are_listed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "runs", str(run.parent))
    assert "finished" in out
    assert "3/3" in out
    assert "grpo" in out
    (row,) = shown(capsys, "runs", str(run.parent), "--json").splitlines()
    assert json.loads(row)["done"] == 3
    (run / "config.toml").write_text("[[[")
    assert "cannot be read" in shown(capsys, "runs", str(run))
    assert "does not exist" in shown(capsys, "runs", str(run / "no"), code=2)


def test_episodes_are_listed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = sum(not line["won"] for line in episodes(run))
    out = shown(capsys, "show", str(run), "--lost", "--limit", "3")
    assert f"{lost} episodes, 0 won" in out
    assert out.count("household/small/train/") == 3
    rows = shown(capsys, "show", str(run), "--step", "1", "--json").splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1] * 8
    assert "leave no episode" in shown(capsys, "show", str(run), "--won", "--lost", code=2)


def test_an_episode_is_printed_in_full(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = episodes(run)[0]
    out = shown(capsys, "show", str(run), "--episode", "1")
    turns = line["turns"]
    assert isinstance(turns, list)
    for turn in turns:
        assert turn["seen"] in out
        assert turn["action"] in out
        assert turn["actor"] in out
    assert json.loads(shown(capsys, "show", str(run), "--episode", "1", "--json")) == line
    out = shown(capsys, "show", str(run), "--episode", "1", "--colour", "gap[teacher|student]")
    assert "gap[teacher|student] from " in out
    error = shown(capsys, "show", str(run), "--episode", "1", "--colour", "gate", code=2)
    assert "recorded are token_mean, gap[teacher|student]" in error
    assert "no episode 99" in shown(capsys, "show", str(run), "--episode", "99", code=2)


def test_control_characters_do_not_reach_the_terminal(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, "show", str(run), "--episode", "6")
    assert "\u241b[2J" in out
    assert not set(out) & {"\x1b", "\x07", "\u202e"}


def test_one_of_several_runs_must_be_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(run.parent / "two", 8, per_step=8, turns=2)
    error = shown(capsys, "show", str(run.parent), code=2)
    assert "holds several runs" in error
    assert str(run) in error
    empty = run.parent.parent / "empty"
    empty.mkdir()
    assert "holds no run" in shown(capsys, "show", str(empty), code=2)


def test_a_page_is_written_to_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette")
    out = run.parent / "page.html"
    text = shown(capsys, "view", str(run), "--html", str(out), "--episodes", "4")
    assert "4 episodes; 20 older ones left out" in text
    assert out.stat().st_size > 100_000
    assert "exists already" in shown(capsys, "view", str(run), "--html", str(out), code=2)


def test_a_missing_extra_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    error = shown(capsys, "view", str(run), code=2)
    assert "pip install 'tutelage[view]'" in error
    assert error.count("\n") == 1


def test_runs_are_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "was not evaluated" in shown(capsys, "compare", str(run), code=2)
    other = run.parent / "other"
    write(other, 24, per_step=8, turns=3)
    text = (other / "config.toml").read_text()
    (other / "config.toml").write_text(text.replace('"grpo"', '"sdar"'))
    for folder, outcomes in ((run, [0, 0, 1, 0] * 10), (other, [1, 1, 1, 0] * 10)):
        line = {"step": 3, "hint": "", "panel": "abc", "split": "unseen", "outcomes": outcomes}
        (folder / "evals.jsonl").write_text(json.dumps(line) + "\n")
    out = shown(capsys, "compare", str(run), str(other))
    assert "+50.0" in out
    assert "better" in out
    plot, table = run.parent / "plot.svg", run.parent / "table.tex"
    shown(capsys, "compare", str(run.parent), "--out", str(table), "--plot", str(plot))
    assert "tabular" in table.read_text()
    assert "<svg" in plot.read_text()
    assert "exists already" in shown(capsys, "compare", str(run), "--out", str(table), code=2)
    assert "must end in" in shown(capsys, "compare", str(run), "--plot", "x.gif", code=2)


def test_the_power_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "power", "--tasks", "200", "--difference", "0.1")
    assert "a true difference of 14.0 points" in out
    assert "takes 393 tasks" in out
    assert "tasks must be at least 2" in shown(capsys, "power", "--tasks", "1", code=2)
