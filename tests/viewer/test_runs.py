"""Runs are found below folders, and each row says truly what became of the run."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from scripts.large_run import write
from tutelage.errors import RunError
from tutelage.viewer.runs import Folder, Steps, find

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    write(folder, 40, per_step=8, turns=3)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "all" / "one"))


def test_runs_are_found_wherever_they_lie(run: Path) -> None:
    shutil.copytree(run, run.parent / "deeper" / "still" / "two")
    shutil.copytree(run, run / "checkpoints" / "step-000001")  # models are no runs
    evaluation = run.parent / "measured"
    evaluation.mkdir()
    (evaluation / "summary.json").write_text("[]")
    (evaluation / "episodes.jsonl").write_text("")
    found = find([run.parent, run])
    assert [(f.name, f.kind) for f in found] == [
        ("two", "run"),
        ("measured", "evaluation"),
        ("one", "run"),
    ]
    assert len({folder.id for folder in found}) == 3
    alone = find([run / "episodes.jsonl"])
    assert [(f.name, f.kind, f.path) for f in alone] == [("one", "run", run)]
    with pytest.raises(RunError, match="does not exist"):
        find([run / "nowhere"])


def test_a_row_tells_how_far_a_run_is(run: Path) -> None:
    row = Folder(run).summary()
    assert (row["state"], row["done"], row["steps"]) == ("finished", 5, 5)
    assert (row["method"], row["suite"], row["seed"]) == ("grpo", "household", 0)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:3]))
    folder = Folder(run)
    assert (folder.summary()["state"], folder.summary()["done"]) == ("stopped", 3)
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folder.summary()["state"] == "running"
    assert folder.summary()["state"] == "stopped"
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(lines[3:]))
    assert folder.summary()["state"] == "finished"


def test_success_is_of_the_episodes_that_did_not_break(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[0] |= {"episodes": 6, "broken": 2, "won": 3}
    lines[1] |= {"episodes": 4, "broken": 4, "won": 1}
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    series = Folder(run).series(["success"], "train")
    assert series["values"]["success"][:2] == [0.5, 0.25]


BROKEN = {
    "config.toml": ("[run\n", "config.toml cannot be read"),
    "metrics.jsonl": ('{"step": 0}\nnot json\n', "line 2 is not JSON"),
    "evals.jsonl": ("{]\n", "line 1 is not JSON"),
    "meta.json": ("{", "meta.json cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_says_what_is_wrong(run: Path, name: str) -> None:
    text, reason = BROKEN[name]
    (run / name).write_text(text)
    row = Folder(run).summary()
    assert row["state"] == "broken"
    assert reason in row["problem"]


def test_an_evaluation_is_told_without_its_outcomes(run: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "hint": "", "success": 0.1, "low": 0.0, "high": 0.4, "n": 9, "outcomes": [1]},
        {"step": 5, "hint": "", "success": 0.5, "low": 0.3, "high": 0.7, "n": 9, "outcomes": [1]},
        {"step": 5, "hint": "plan", "success": 0.9, "low": 0.8, "high": 1.0, "n": 9},
    ]
    (run / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = Folder(run).summary()
    assert row["evaluation"] == {k: v for k, v in lines[1].items() if k != "outcomes"}
    assert row["evaluations"] == 2


def test_seeds_of_one_configuration_are_one_group(run: Path) -> None:
    other, third = run.parent / "seed 1", run.parent / "other"
    shutil.copytree(run, other)
    shutil.copytree(run, third)
    text = (run / "config.toml").read_text()
    (other / "config.toml").write_text(text.replace("seed = 0", "seed = 1").replace("one", "x"))
    (third / "config.toml").write_text(text.replace('"grpo"', '"rloo"'))
    groups = [Folder(path).summary()["group"] for path in (run, other, third)]
    assert groups[0] == groups[1] != groups[2]


def test_a_command_that_was_recorded_is_shown(run: Path) -> None:
    assert Folder(run).summary()["command"].startswith("tutelage train ")
    meta = json.loads((run / "meta.json").read_text())
    (run / "meta.json").write_text(json.dumps({**meta, "command": "tutelage train x.toml"}))
    assert Folder(run).summary()["command"] == "tutelage train x.toml"


def test_numbers_by_step_come_with_what_was_spent(run: Path) -> None:
    times = [
        {"phase": "train", "step": k, "seconds": {"all": 2.0, "update": 0.5}} for k in range(4)
    ]
    (run / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in times))
    folder = Folder(run)
    assert {"success", "loss", "seconds.update"} <= set(folder.keys("train"))
    assert folder.keys("warm_start") == []
    series = folder.series(["loss", "success", "seconds.update", "nothing"], "train")
    assert series["x"]["step"] == [1, 2, 3, 4, 5]
    assert series["x"]["episodes"] == [8, 16, 24, 32, 40]
    assert series["x"]["seconds"] == [2, 4, 6, 8, 8], "the last step has no time yet"
    assert series["values"]["loss"] == [1 / (k + 1) for k in range(5)]
    assert series["values"]["seconds.update"] == [0.5, 0.5, 0.5, 0.5, None]
    assert series["values"]["nothing"] == [None] * 5
    won = [json.loads(line)["won"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert series["values"]["success"] == [n / 8 for n in won]


def test_a_growing_file_is_read_on_and_a_cut_one_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = Steps(path)
    steps.update()
    assert steps.rows == []
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    steps.update()
    assert [row["step"] for row in steps.rows] == [0, 1]
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n')
    steps.update()
    assert [row["step"] for row in steps.rows] == [0, 1, 2]
    path.write_text('{"step": 0}\n{"step": 7}\n{"step": 8}\n{"step": 9}\n')
    steps.update()
    assert [row["step"] for row in steps.rows] == [0, 7, 8, 9]
    path.unlink()
    steps.update()
    assert steps.rows == []


def test_requests_at_once_read_no_line_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {k}}}\n' for k in range(20_000)))
    steps = Steps(path)
    threads = [threading.Thread(target=steps.update) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["step"] for row in steps.rows] == list(range(20_000))


def test_of_several_policies_the_student_s_result_is_listed(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("")
    lines = [{"name": name, "success": k / 2} for k, name in enumerate(("student", "expert"))]
    (tmp_path / "summary.json").write_text(json.dumps(lines))
    assert Folder(tmp_path).summary()["evaluation"] == lines[0]
    (tmp_path / "summary.json").write_text(json.dumps(lines[1:]))
    assert Folder(tmp_path).summary()["evaluation"] == lines[1]
