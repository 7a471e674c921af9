"""The README: its environment trains with its algorithm, its commands run, its counts are true."""

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.algorithms import ALGORITHMS
from tutelage.cli.main import main
from tutelage.envs.registry import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(.*?)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SNIPPETS = {info.split('"')[1]: code for info, code in FENCES if "title=" in info}
COMMANDS = [
    line.split("#")[0].strip()
    for info, code in FENCES
    if info == "sh"
    for line in code.splitlines()
    if line.startswith("tutelage ")
]
TINY = "{ hidden = 16, context = 512 }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in SNIPPETS.items():
        (tmp_path / name).write_text(code)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "tutelage", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_there_are_snippets_and_commands() -> None:
    assert set(SNIPPETS) >= {"guess.py", "annealed.py"}
    assert all(len(code.splitlines()) <= 30 for code in SNIPPETS.values())
    assert len(COMMANDS) >= 4


def test_the_custom_environment_keeps_the_contract(folder: Path) -> None:
    assert "guess:Guess" in README
    run(folder, "check-env", "guess:Guess")


def test_the_custom_algorithm_trains_in_the_custom_environment(folder: Path) -> None:
    (folder / "run.toml").write_text(
        f"""
[run]
steps = 2
checkpoint_every = 2
[env]
suite = "guess:Guess"
[rollout]
tasks_per_step = 2
group_size = 2
max_turns = 3
max_new_tokens = 4
[algorithm]
name = "annealed:annealed"
[update]
lr = 1e-3
[policy]
build = {TINY}
layers = 1
tokenizer = "teacher"
[policies.teacher]
build = {TINY}
layers = 1
[eval]
every = 2
split = "train"
tasks = 3
"""
    )
    assert "step 1" in run(folder, "train", "run.toml")
    assert (folder / "runs/run/metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Checked as far as is quick: files exist, settings resolve, options are known."""
    words = shlex.split(command)[1:]
    monkeypatch.chdir(tmp_path)
    if words[0] == "train":
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        plan = [w for w in words if w != "--resume" and w != "--dry-run"]
        assert main([*plan, "--dry-run"]) == 0
    else:
        with pytest.raises(SystemExit) as end:
            main([words[0], "--help"])
        assert not end.value.code
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_the_counts_of_the_first_lines_are_true(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    counts = re.search(r"(\d+) methods(?:,| and) (\d+)\s+suites of environments", text)
    assert counts
    assert int(counts[1]) == len(set(ALGORITHMS) - {"compose"})
    assert int(counts[2]) == len(set(SHIPPED) - {"doors"})


def test_it_fits_on_three_screens() -> None:
    """150 lines of 100 columns, links as they are shown."""
    shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", README)
    assert sum(max(1, math.ceil(len(line) / 100)) for line in shown.splitlines()) <= 150
