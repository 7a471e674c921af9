"""`make worlds`: every built-in suite's examples exist and run."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from studies.worlds.__main__ import EXAMPLES, SMOKED, main
from tutelage.config.toml_file import load
from tutelage.envs.registry import SUITES

ROOT = Path(__file__).parents[2]


def test_every_suite_with_examples_is_tried() -> None:
    assert set(SMOKED) == set(SUITES) - {"doors"}
    for world in SMOKED:
        for kind in ("sft", "grpo"):
            assert load(EXAMPLES / f"{world}_{kind}.toml").env.suite == world


def test_a_smoke_trains_household_as_its_examples_say(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[str] = []

    def ran(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        files.append(Path(command[4]).name)
        return subprocess.CompletedProcess(command, len(files) - 1)

    monkeypatch.setattr(subprocess, "run", ran)
    assert main(["smoke", "household"]) == 1  # of the second
    assert files == ["household_sft.toml", "household_grpo.toml"]


def test_household_has_no_curve_among_the_suites() -> None:
    with pytest.raises(SystemExit):
        main(["run", "household"])


@pytest.mark.parametrize("script", ["run", "nightly"])
def test_what_ci_runs_can_be_run(script: str) -> None:
    path = ROOT / ".ci" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    commands = [line for line in path.read_text().splitlines() if line.startswith("make ")]
    assert commands
    for command in commands:
        done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
