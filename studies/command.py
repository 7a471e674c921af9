"""What every study's command does: run what is not finished, say what is, end in good order."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from studies import results, runner
from studies.plan import Run, Study
from tutelage.errors import TutelageError


def guarded(work: Callable[[], int]) -> int:
    """Exit code of `work`; what stops it is said in a sentence."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work()
    except TutelageError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("study: stopped; the same command continues it", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(study: Study, runs: Sequence[Run], path: Path, *, jobs: int) -> int:
    """Run what of `runs` is not finished, `jobs` at a time, and bring the results' file up to date
    after each; 1 if one failed or cannot be run, else 0."""
    journal = runner.journal_of(study)
    problems = {run.name: run.problem for run in runs if run.problem}
    for name, problem in problems.items():
        say(f"{name}: cannot be run: {problem}")

    def settled(job: runner.Job) -> None:
        if job.after is not None:  # a method's run, not what comes before them
            collect(study, journal, path)

    failed = runner.execute(
        runner.jobs_of(study, runs), journal, width=jobs, say=say, settled=settled
    )
    found = collect(study, journal, path)
    say(
        f"{len(found.runs)} of {len(study.runs)} runs are in {path}; "
        f"{len(failed)} failed, {len(problems)} cannot be run"
    )
    return 1 if failed or problems else 0


def collect(study: Study, journal: runner.Journal, path: Path) -> results.Results:
    """Bring the results' file up to date."""
    before = results.read(path) if path.exists() else None
    found = results.collect(study, journal, before)
    results.save(found, path)
    return found


def status(study: Study, runs: Sequence[Run]) -> int:
    """Print where the runs and their starts stand."""
    failures = runner.journal_of(study).failures()
    seeds = {run.seed for run in runs}
    for one in [*(s for s in study.starts if s.seed in seeds), *runs]:
        say(f"{one.group:10} {one.name:24} {standing(one, failures)}")
    return 0


def standing(run: Run, failures: dict[str, str]) -> str:
    """Where a run stands, in words."""
    if run.problem:
        return f"cannot be run: {run.problem}"
    if run.finished:
        return f"finished, {run.steps} steps"
    at = f"{run.done} of {run.steps} steps"
    if runner.busy(run):
        return f"{at}, running"
    return f"{at}, failed: {failures[run.name]}" if run.name in failures else at


def say(text: str) -> None:
    print(text, flush=True)
