"""`tutelage demo --quick`: its output and its files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.rollout import record

ROWS = ("teacher", "before", "after Guided-OPD", "after plain OPD")


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tutelage", "demo", "--quick", "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,  # beside busy processes, too
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo(folder).stdout


def test_it_prints_and_keeps_a_row_for_each_agent(shown: tuple[Path, str]) -> None:
    folder, printed = shown
    saved = (folder / "results.md").read_text()
    for row in ROWS:
        assert row in printed
        assert f"| {row} |" in saved
    assert "paired on the same tasks" in printed
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_both_methods_start_from_the_same_student_on_the_same_panel(
    shown: tuple[Path, str],
) -> None:
    folder, _ = shown
    first = [
        next(iter(record.read(folder / name / "evals.jsonl"))) for name in ("guided_opd", "opd")
    ]
    assert first[0] == first[1]


def test_a_finished_demo_shows_its_result_again_and_trains_nothing(
    shown: tuple[Path, str],
) -> None:
    folder, _ = shown
    logs = sorted(folder.rglob("*.jsonl"))
    before = [p.read_bytes() for p in logs]
    again = demo(folder)
    assert [p.read_bytes() for p in logs] == before
    assert ROWS[-1] in again.stdout
