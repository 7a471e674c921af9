"""The whole study in a few minutes: run, killed on the way, continued, rendered.

Budgets are too small to learn anything; what is tried is the machinery, by the commands that the
real study is run with.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from studies import plan, results
from studies.household import STUDY
from studies.plan import Run, Study
from studies.runner import ONE_THREAD
from tutelage.errors import RunError

Say = Callable[[str], None]
PATIENCE = 1200.0
"""Seconds in which some run must have come to a checkpoint."""
EQUAL = ("episodes.jsonl", "metrics.jsonl", "evals.jsonl")


def main(
    folder: Path | None,
    *,
    say: Say,
    study: Path = STUDY,
    over: str = "smoke",
    jobs: int = 2,
) -> int:
    """Try everything in a folder, a temporary one if none is given. Raises RunError for what is
    not as it must be."""
    if folder is None:
        with tempfile.TemporaryDirectory() as root:
            return main(Path(root), say=say, study=study, over=over, jobs=jobs)
    files = ["--study", str(study), "--over", over, "--folder", str(folder / "runs")]
    files += ["--results", str(folder / "results.json")]
    run = [*_command("run"), *files, "--jobs", str(jobs)]
    planned = plan.load(study, folder=folder / "runs", over=over)
    killed = _killed(run, planned)
    say(f"killed with {killed.name} at step {killed.done} of {killed.steps}; once more")
    _must(run, "the study that was killed does not go on")
    if unfinished := [r.name for r in planned.runs if not r.finished]:
        raise RunError(f"the study ended well, but {', '.join(unfinished)} did not finish")
    _as_if_never_killed(planned, killed, folder / "again")
    say(f"{killed.name} is byte for byte what it is without the kill")
    before = (folder / "results.json").read_bytes()
    _must(run, "a finished study cannot be run again")
    if (folder / "results.json").read_bytes() != before:
        raise RunError("a finished study that is run again changes its results")
    _must([*_command("render"), *files, "--out", str(folder / "docs")], "the page was not made")
    _complete(planned, folder)
    say(f"the page: {folder / 'docs' / 'household.md'}")
    return 0


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "studies.household", name]


def _must(command: Sequence[str], otherwise: str) -> None:
    if code := subprocess.run(command, check=False).returncode:
        raise RunError(f"{otherwise}: `{' '.join(command)}` ended with code {code}")


def _killed(command: Sequence[str], planned: Study) -> Run:
    """Start the study, and end it and its runs without warning as soon as one run is under way."""
    process = subprocess.Popen(command, start_new_session=True)
    until = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < until and process.poll() is None:
            for run in planned.runs:
                if 0 < run.done < run.steps:
                    return run
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise RunError("no run of the study came to a checkpoint before its end")


def _as_if_never_killed(planned: Study, killed: Run, folder: Path) -> None:
    """The killed run once more, undisturbed and elsewhere: it writes the same bytes."""
    file = planned.folder / "configs" / f"{killed.folder.name}.toml"
    command = [sys.executable, "-m", "tutelage", "train", str(file), f"run.folder={folder}"]
    # the runner's own environment: another number of threads adds up in another order
    environment = {**os.environ, **ONE_THREAD, **planned.environment}
    if subprocess.run(command, capture_output=True, check=False, env=environment).returncode:
        raise RunError(f"`{' '.join(command)}` failed")
    for name in EQUAL:
        if (folder / name).read_bytes() != (killed.folder / name).read_bytes():
            raise RunError(f"{killed.folder / name} is not what it is without the kill")


def _complete(planned: Study, folder: Path) -> None:
    """Every run is in the results and on the page, and every picture was drawn."""
    found = results.read(folder / "results.json")
    page = (folder / "docs" / "household.md").read_text()
    for run in planned.runs:
        known = [r for r in found.of(run.method) if r.seed == run.seed]
        if not known or known[0].evaluations[-1].step != run.steps or run.key not in page:
            raise RunError(f"{run.name} is not in the results or not on the page")
    if missing := [w for w in ("success.png", "teachers.png") if w not in page]:
        raise RunError(f"the page shows no {missing[0]}")
    for line in page.splitlines():
        if (
            line.startswith("![")
            and not (folder / "docs" / line[line.index("(") + 1 : -1]).exists()
        ):
            raise RunError(f"{line} is on the page, but was not drawn")
