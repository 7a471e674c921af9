"""The scripts of scripts/ run in their smallest form."""

import json
import os
import runpy
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
ONE_THREAD = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": str(SCRIPTS.parent / "src"),
}

COMMANDS = [path.name for path in sorted(SCRIPTS.glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("script", COMMANDS)
def test_a_script_explains_itself(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)  # as Python does for the script that it runs
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {script}")


def test_the_teacher_is_trained_and_its_files_are_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = import_module("scripts.build_assets")
    target = tmp_path / "teacher"
    build.main(
        [
            "run.steps=1",
            "eval.every=1",
            "run.checkpoint_every=1",
            f'run.folder="{tmp_path / "run"}"',
            "env.options.train=20",
            "rollout.tasks_per_step=2",
            "eval.tasks=1",
            "policy.layers=1",
            f"--target={target}",
        ]
    )
    assert {path.name for path in target.iterdir()} == {*build.MODEL_FILES, "meta.json"}
    assert json.loads((target / "config.json").read_text())["num_hidden_layers"] == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(str(target))


# -- bounds.py


def test_lower_bounds_of_this_project() -> None:
    bounds = import_module("scripts.bounds")
    assert "pydantic==2.12" in bounds.lower_bounds([])
    assert "pytest==8.3" in bounds.lower_bounds(["dev"])
    assert "bm25s==0.3.16" in bounds.lower_bounds(["dev"])  # of the extra `search` in `dev`
    assert "pytest==8.3" not in bounds.lower_bounds([])


@pytest.mark.parametrize(
    ("requirement", "constraint"),
    [
        ("torch>=2.13", "torch==2.13"),
        ("scienceworld==1.2.3", "scienceworld==1.2.3"),
        ("a>=1,<3; python_version < '3.13'", 'a==1; python_version < "3.13"'),
    ],
)
def test_a_lower_bound(requirement: str, constraint: str) -> None:
    assert import_module("scripts.bounds").lower_bound(requirement) == constraint


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch>1"])
def test_a_requirement_without_a_lower_bound_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="needs exactly one bound of >= or =="):
        import_module("scripts.bounds").lower_bound(requirement)


# -- compare_runs.py


def run_folder(
    folder: Path, *, key: str = "return", value: float = 0.5, weights: bytes = b"w"
) -> None:
    checkpoint = folder / "example" / "checkpoints" / "step-000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(weights)
    lines = [{"step": k, "policy": {key: value}, "nan": float("nan")} for k in range(2)]
    (folder / "example" / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))


@pytest.mark.parametrize(
    ("changes", "names", "printed"),
    [
        ({}, "", "example: equal"),
        ({"value": 0.25}, "", "metrics.jsonl:1 .policy.return: 0.5 became 0.25"),
        ({"key": "reward"}, "", "metrics.jsonl:1 .policy.return is only in the old run"),
        ({"key": "reward"}, "return reward\n", "example: equal"),
        ({"weights": b"v"}, "", "checkpoints/step-000001/model.safetensors differs"),
    ],
)
def test_two_runs_are_compared(
    changes: dict[str, object],
    names: str,
    printed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_folder(tmp_path / "old")
    run_folder(tmp_path / "new", **changes)  # type: ignore[arg-type]
    (tmp_path / "names").write_text(names)
    arguments = ["compare", str(tmp_path / "old"), str(tmp_path / "new")]
    status = import_module("scripts.compare_runs").main([*arguments, f"--names={tmp_path}/names"])
    out = capsys.readouterr().out
    assert printed in out
    assert status == (0 if "equal" in printed else 1)


def test_a_run_that_is_missing_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "old")
    (tmp_path / "new").mkdir()
    command = ["compare", str(tmp_path / "old"), str(tmp_path / "new")]
    assert import_module("scripts.compare_runs").main(command) == 1
    assert "example: is not in" in capsys.readouterr().out


def test_a_short_run_is_recorded_and_equals_itself(tmp_path: Path) -> None:
    compare_runs = import_module("scripts.compare_runs")
    assert compare_runs.main(["record", str(tmp_path), "household_sft", "--jobs=1"]) == 0
    assert (tmp_path / "household_sft" / "metrics.jsonl").read_text().count("\n") == 2
    assert compare_runs.main(["compare", str(tmp_path), str(tmp_path)]) == 0


def test_an_example_that_is_not_there_is_not_recorded_in_silence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no example household_stf"):
        import_module("scripts.compare_runs").main(["record", str(tmp_path), "household_stf"])


# -- soak.py


@pytest.mark.parametrize(
    ("last", "grown"),
    [
        ((10**8, 32, 5, 2), False),
        ((10**8, 33, 5, 2), True),  # files
        ((10**8, 30, 29, 2), True),  # threads, of which there are fewer than files
        ((10**8, 30, 5, 6), True),  # child processes
        ((2 * 10**8, 30, 5, 2), True),
    ],
)
def test_what_is_not_given_back_is_seen(last: tuple[int, int, int, int], grown: bool) -> None:
    soak = import_module("scripts.soak")
    samples = [soak.Sample(10**8, 30, 5, 2)] * 11
    assert soak.grows([*samples, soak.Sample(*last)]) is grown


# -- gpu.py


HERE = ("right", "starts in bfloat16", "starts in float32", "sampling", "prompts")
"""Parts that run here; test_benchmarks.py runs the measurements of the others."""


@pytest.mark.nightly
def test_what_a_gpu_is_asked_runs_without_one_in_the_small(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPTS / "gpu.py"),
        "--device",
        "cpu",
        "--tiny",
        "--patience",
        "9",
        "--out",
        str(tmp_path / "report"),
        "--only",
        *HERE,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {part["part"]: part["error"] for part in report["parts"] if not part["ok"]} == {}
    assert ended.returncode == 0, ended.stderr[-2000:]
    gpu = import_module("scripts.gpu")
    assert [part["part"] for part in report["parts"]] == list(HERE)
    assert sum(part.seconds for part in gpu.PARTS.values()) <= 480
    page = (tmp_path / "report.md").read_text()
    assert all(f"## {name}\n" in page for name in HERE)
    checked = [line for part in report["parts"] for line in part["lines"] if "limit" in line]
    packed = all(find_spec(name) for name in ("bitsandbytes", "peft"))
    assert len([line for line in checked if "check" in line]) == 10 + 3 * packed


def test_a_part_that_fails_or_hangs_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = import_module("scripts.gpu")
    jobs = {
        "wrong": 'print(\'{"ok": false, "check": "x"}\')',
        "dies": "import os, json; print('{\"ok\": true}', flush=True); os._exit(9)",
        "hangs": "import time; print('{\"ok\": true}', flush=True); time.sleep(60)",
        "says nothing": "",
        "good": 'print(\'{"ok": true, "check": "x | y", "value": 0.5}\')',
    }
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.Part(3) for name in jobs})
    monkeypatch.setattr(gpu, "command", lambda name, given: [sys.executable, "-c", jobs[name]])
    out = tmp_path / "report"
    assert gpu.main(["--device", "cpu", "--out", str(out), "--only", *jobs]) == 1
    report = json.loads(out.with_suffix(".json").read_text())
    assert [part["ok"] for part in report["parts"]] == [False, False, False, False, True]
    assert [len(part["lines"]) for part in report["parts"]] == [1, 1, 1, 0, 1]
    assert report["parts"][1]["error"] == "exit code 9"
    assert report["parts"][2]["error"] == "not done within its 3 seconds"
    page = out.with_suffix(".md").read_text()
    assert "| wrong | 1 of 1 failed |" in page
    assert "x \\| y" in page
    assert "good: ok" in capsys.readouterr().out
