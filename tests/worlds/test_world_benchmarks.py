"""The benchmarks of the suites: which Python runs each, and that each starts there."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OF_WORLDS = ("environments", "webshop", "search_qa", "tau_bench", "scienceworld", "travelplanner")


def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_run", BENCHMARKS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_what_needs_textworld_runs_in_textworlds_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner()
    used: dict[str, str] = {}

    def ran(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        used[Path(command[1]).stem] = command[0]
        return subprocess.CompletedProcess(command, 0, "a table", "")

    monkeypatch.setattr(run.subprocess, "run", ran)
    words = ["household", *OF_WORLDS, "--textworld", "theirs", "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    run.main()
    assert used == {"household": "theirs", **dict.fromkeys(OF_WORLDS, sys.executable)}


@pytest.mark.parametrize("name", OF_WORLDS)
def test_the_ordinary_python_has_what_it_imports(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"]
    env = {"PYTHONPATH": str(BENCHMARKS.parent / "src"), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    if name == "tau_bench":
        assert "TAU_BENCH=CLONE" in done.stdout
