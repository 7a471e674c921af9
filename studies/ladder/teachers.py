"""Teachers that are not much better than their student: checkpoints of one run of imitation."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from studies.plan import episodes_of
from studies.runner import ONE_THREAD, put
from tutelage.config.toml_file import load
from tutelage.errors import RunError
from tutelage.runs import checkpoint
from tutelage.runs.folder import CONFIG

FILE = Path(__file__).with_name("teachers.toml")
FOUND = FILE.with_suffix(".json")
FOLDER = Path("runs/study/ladder/teachers")
STEPS = (8, 22)
"""Steps of imitation after which the student is kept, as FOLDER/after-N, a model's folder."""


def train(families: Sequence[str]) -> None:
    """Train the teachers that are not there yet, and measure them on tasks of the families. Raises
    RunError where a command fails."""
    found = dict(read())
    run = FOLDER / "run"
    for steps in STEPS:
        folder = FOLDER / f"after-{steps}"
        if not folder.exists():
            draft = folder.with_suffix(".part")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(_trained(run, steps), draft)
            os.replace(draft, folder)
        if str(steps) not in found:
            panel = f"env.options.families={json.dumps(list(families))}"
            shown = _tutelage("eval", str(FILE), f"policy.model={folder}", panel, "--json")
            first = json.loads(shown.splitlines()[0])
            found[str(steps)] = {"won": first["won"], "tasks": first["n"]}
            put(FOUND, json.dumps(found) + "\n")


def _trained(run: Path, steps: int) -> Path:
    """The run's checkpoint after so many steps, to which it is trained unless it is there."""
    wanted = run / checkpoint.FOLDER / f"step-{steps:06d}"
    there = checkpoint.names(run)
    if wanted.name not in there:
        if any(int(name.split("-")[1]) > steps for name in there):
            raise RunError(
                f"{run} went on after step {steps} and has no checkpoint of it; delete {run} and "
                "train the teachers anew"
            )
        resume = ["--resume"] if (run / CONFIG).exists() else []
        _tutelage("train", str(FILE), f"run.steps={steps}", f"run.folder={run}", *resume)
    return wanted


def _tutelage(*arguments: str) -> str:
    """What a command writes to its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", *arguments],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RunError(f"tutelage {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def read(path: Path = FOUND) -> Mapping[str, Mapping[str, int]]:
    """Steps of imitation -> tasks of the panel that the teacher wins, and how many there are."""
    found: dict[str, dict[str, int]] = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    )
    return found


def sentence() -> str:
    """For the page: what each teacher wins."""
    config = load(FILE)
    each = episodes_of(config) // config.run.steps
    parts = [
        f"{100 * t['won'] / t['tasks']:.1f} % after {int(steps) * each} demonstrations"
        for steps, t in read().items()
    ]
    return " and ".join(parts)
