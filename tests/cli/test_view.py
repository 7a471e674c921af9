"""The viewer makes the privileged text of a run's views again, and runs no foreign code for it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts.large_run import write as write_run
from tutelage.cli.view import Privileged
from tutelage.config.toml_file import load, write
from tutelage.envs.registry import suite_of
from tutelage.errors import RunError
from tutelage.hints import hint
from tutelage.types import Task
from tutelage.viewer.runs import Folder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ["env.options.train=40", "env.options.unseen=10"]


def run_of(example: str, folder: Path, *more: str) -> tuple[Folder, Task]:
    """The folder of a run of an example that is only begun, and a task of it."""
    config = load(EXAMPLES / f"{example}.toml", [*SMALL, *more])
    folder.mkdir()
    (folder / "config.toml").write_text(write(config))
    (folder / "meta.json").write_text("{}")
    (folder / "episodes.jsonl").write_text("")
    return Folder(folder), suite_of(config.env).tasks("train")[3]


def test_each_view_s_text_is_the_hint_that_the_run_gave(tmp_path: Path) -> None:
    folder, task = run_of("household_sdar", tmp_path / "run", 'algorithm.hint="plan"')
    suite = suite_of(load(folder.path / "config.toml").env)
    plan = hint(suite, task, "plan")
    assert plan
    texts = Privileged()
    assert texts(folder, {"phase": "train", "task": asdict(task)}) == {
        "student": "",
        "teacher": plan,
    }


def test_a_hint_that_the_student_wrote_is_read_from_the_run(tmp_path: Path) -> None:
    folder, task = run_of("household_sdar", tmp_path / "run", 'algorithm.hint="written"')
    line = {"task": task.id, "text": "look in the fridge", "tokens": 5}
    (folder.path / "hints.jsonl").write_text(json.dumps(line) + "\n")
    texts = Privileged()(folder, {"phase": "train", "task": asdict(task)})
    assert "look in the fridge" in texts["teacher"]


def test_a_method_without_privileged_text_has_none(tmp_path: Path) -> None:
    folder, task = run_of("household_grpo", tmp_path / "run")
    assert Privileged()(folder, {"phase": "train", "task": asdict(task)}) == {}


def test_a_suite_of_somebody_else_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = run_of("household_sdar", tmp_path / "run")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap_suite.py").write_text("raise SystemExit('it was run')\n")
    path = folder.path / "config.toml"
    path.write_text(path.read_text().replace('"household"', '"trap_suite:Suite"', 1))
    with pytest.raises(RunError, match="for the suites of this package alone"):
        Privileged()(folder, {"phase": "train", "task": asdict(task)})
    assert "trap_suite" not in sys.modules


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 8, per_step=8, turns=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", "view", str(tmp_path), "--port", "0"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first.startswith("1 run at http://127.0.0.1:")
        address = first.split(" at ")[1].strip()
        with urllib.request.urlopen(f"{address}api/runs", timeout=60) as answer:
            assert json.load(answer)["runs"][0]["done"] == 1
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
