"""Training tells what was asked for: nothing, JSON, or a display with the course of success."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_runs import tiny_file

from tutelage.cli.main import main
from tutelage.cli.progress import LiveDisplay, sparkline, watch_for

LINE: Mapping[str, object] = {"phase": "train", "step": 0, "won": 1, "episodes": 2, "loss": 0.5}


def evaluated(won: int, **more: object) -> Mapping[str, object]:
    return {"step": 0, "won": won, "n": 8, **more}


def test_the_display_draws_the_course_of_success() -> None:
    view = watch_for(Console(file=io.StringIO(), force_terminal=True, width=100))
    assert isinstance(view, LiveDisplay)
    view.track.steps = 4
    for line in (evaluated(0), evaluated(8, hint="plan"), evaluated(4), evaluated(8)):
        view.evaluated(line)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(view._shown())
    assert "evaluation: \u2581\u2585\u2588  8/8 = 100 %" in console.export_text()
    assert sparkline([0.5] * 100) == "\u2585" * 30


def test_the_display_names_the_phases_that_take_time() -> None:
    view = watch_for(Console(file=io.StringIO(), force_terminal=True, width=100))
    assert isinstance(view, LiveDisplay)
    seconds = {"all": 10.0, "generate": 4.0, "environment": 0.01, "prompts": 1.0, "update": 4.9}
    view.track.steps = 4
    view.track.add({**LINE, "grad_norm": 1.0, "broken": 0}, seconds)
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(view._shown())
    assert "generate 40 %  prompts 10 %  update 49 %" in console.export_text()


def test_every_event_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    watch = watch_for(Console(), as_json=True)
    watch.stepped(LINE, {"all": 2.0})
    watch.evaluated(evaluated(3))
    watch.warned("look out")
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"event": "step", **LINE, "seconds": {"all": 2.0}},
        {"event": "evaluation", **evaluated(3)},
        {"event": "note", "text": "look out"},
    ]
    assert err == ""


def test_quiet_prints_notes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    watch = watch_for(Console(), quiet=True)
    watch.stepped(LINE, {"all": 2.0})
    watch.evaluated(evaluated(3))
    assert capsys.readouterr() == ("", "")
    watch.warned("look out")
    assert capsys.readouterr() == ("", "note: look out\n")


@pytest.mark.slow
def test_a_run_tells_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(tiny_file(run={"steps": 2}))
    assert main(["train", "my.toml", "run.folder=a", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["train", "my.toml", "run.folder=b", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == [0, 1]
    assert lines[0]["event"] in ("started", "note")
