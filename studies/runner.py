"""Running a study: one process a run, a few at a time; what is finished is never run again.

Every run is `tutelage train` with a file of its own, so each can also be repeated by hand. The
journal says what happened; where a run stands is read from its folder, not from the journal.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from studies.plan import TEACHER, Run, Study, key_of
from tutelage.config.toml_file import write
from tutelage.rollout import record
from tutelage.rollout.disk import write_whole
from tutelage.runs.folder import CONFIG, LOCK

POLL = 0.2
GRACE = 30.0
"""Seconds that a stopped run has to end by itself."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}
Say = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Job:
    """Something to run once: a training run, or the teacher on the panel."""

    name: str
    command: Callable[[], list[str]]
    finished: Callable[[], bool]
    busy: Callable[[], bool]
    settle: Callable[[], None] = field(default=lambda: None)
    after: "Job | None" = None
    out: Path  # what it writes to its standard output
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def jobs_of(study: Study, runs: Sequence[Run]) -> list[Job]:
    """The wanted runs and, before them, the starts and the evaluations of [policies.teacher], if
    there is one, that they need."""
    seeds = {run.seed for run in runs if not run.problem}
    starts = {run.seed: _training(study, run, None) for run in study.starts if run.seed in seeds}
    wanted = [_training(study, r, starts[r.seed]) for r in runs if not r.problem]
    taught = sorted(seeds) if TEACHER in study.base.policies else []
    return [*starts.values(), *(_teacher(study, seed) for seed in taught), *wanted]


def _training(study: Study, run: Run, after: Job | None) -> Job:
    assert run.config is not None
    path = study.folder / "configs" / f"{run.folder.name}.toml"
    put(path, write(run.config))
    log = study.folder / "logs" / f"{run.folder.name}.log"

    def command() -> list[str]:
        resume = ["--resume"] if (run.folder / CONFIG).exists() else []
        return [sys.executable, "-m", "tutelage", "train", str(path), *resume]

    return Job(
        name=run.name,
        command=command,
        finished=lambda: run.finished,
        busy=lambda: busy(run),
        after=after,
        out=log,
        log=log,
        environment=study.environment,
    )


def teacher_path(study: Study, seed: int) -> Path:
    """Where the teacher's evaluation with a seed is kept, by what it is made of."""
    c = study.base
    asked = {s: getattr(c, s).model_dump(mode="json") for s in ("env", "context", "eval")}
    teacher = c.policies[TEACHER].model_dump(mode="json")
    limits = {"max_turns": c.rollout.max_turns, "max_new_tokens": c.rollout.max_new_tokens}
    settings = {**asked, "teacher": teacher, "limits": limits}
    key = key_of(settings, str(seed), environment=study.environment)
    return study.folder / f"{TEACHER}-{seed}-{key}.json"


def _teacher(study: Study, seed: int) -> Job:
    path = teacher_path(study, seed)
    draft = path.with_suffix(".part")
    file = study.folder / "configs" / f"{path.stem}.toml"
    run = study.base.run.model_copy(update={"seed": seed})
    put(file, write(study.base.model_copy(update={"run": run})))
    command = [sys.executable, "-m", "tutelage", "eval", str(file), "--policy", TEACHER, "--json"]
    return Job(
        name=f"{TEACHER}-{seed}",
        command=lambda: command,
        finished=path.exists,
        busy=lambda: False,
        settle=lambda: os.replace(draft, path),
        out=draft,
        log=study.folder / "logs" / f"{path.stem}.log",
        environment=study.environment,
    )


def put(path: Path, text: str) -> None:
    """Replace a file at once, in a folder that is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def busy(run: Run) -> bool:
    """Whether some process trains in the run's folder, also one of an earlier call."""
    path = run.folder / LOCK
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@dataclass(kw_only=True)
class Journal:
    """What was started and how it ended, one line each, kept over calls."""

    path: Path

    def write(self, name: str, event: str, **more: object) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "run": name, "event": event, **more}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def failures(self) -> dict[str, str]:
        """The runs whose last attempt failed, and what they said."""
        last: dict[str, str] = {}
        for line in record.read(self.path) if self.path.exists() else ():
            name = str(line["run"])
            last.pop(name, None)
            if line["event"] == "failed":
                last[name] = str(line["reason"])
        return last


def journal_of(study: Study) -> Journal:
    return Journal(path=study.folder / "journal.jsonl")


@dataclass(slots=True)
class _Active:
    job: Job
    process: subprocess.Popen[bytes]
    since: float
    files: list[IO[bytes]]


def execute(
    jobs: Sequence[Job], journal: Journal, *, width: int, say: Say, settled: Callable[[Job], None]
) -> dict[str, str]:
    """Run jobs, `width` at a time, in their order; what failed, with its last line.

    settled  is called after each job that came to its end, with what it made in place
    """
    pending = [job for job in jobs if not job.finished()]
    say(f"{len(jobs) - len(pending)} of {len(jobs)} are finished, {len(pending)} to go")
    active: list[_Active] = []
    failed: dict[str, str] = {}
    with _stopping(active):
        while pending or active:
            for job in [p for p in pending if p.after and p.after.name in failed]:
                failed[job.name] = f"not run, since {job.after.name if job.after else ''} failed"
                pending.remove(job)
                say(f"{job.name}: {failed[job.name]}")
            for job in [p for p in pending if p.finished()]:
                pending.remove(job)
                settled(job)
            ready = [p for p in pending if (p.after is None or p.after.finished()) and not p.busy()]
            for job in ready[: max(0, width - len(active))]:
                pending.remove(job)
                active.append(_start(job))
                journal.write(job.name, "started")
                say(f"{job.name}: started ({len(pending)} wait)")
            for one in [a for a in active if a.process.poll() is not None]:
                active.remove(one)
                if reason := _ended(one, journal, say):
                    failed[one.job.name] = reason
                else:
                    settled(one.job)
            time.sleep(POLL)
    return failed


def _start(job: Job) -> _Active:
    for path in (job.out, job.log):
        path.parent.mkdir(parents=True, exist_ok=True)
    out = job.out.open("ab" if job.out == job.log else "wb")
    files: list[IO[bytes]] = [out, job.log.open("ab")]
    process = subprocess.Popen(
        job.command(),
        stdin=subprocess.DEVNULL,
        stdout=files[0],
        stderr=files[1],
        env={**os.environ, **ONE_THREAD, **job.environment},
    )
    return _Active(job, process, time.perf_counter(), files)


def _ended(one: _Active, journal: Journal, say: Say) -> str:
    """Note how a job ended; empty if well, else what it said last."""
    for file in one.files:
        file.close()
    job, code = one.job, one.process.returncode
    seconds = round(time.perf_counter() - one.since, 1)
    if code == 0:
        job.settle()
        journal.write(job.name, "finished", seconds=seconds)
        say(f"{job.name}: finished after {seconds:.0f} s")
        return ""
    reason = last_line(job.log).replace(f"{Path.cwd()}/", "") or f"ended with code {code}"
    if code < 0:
        reason = f"killed by signal {-code}"
    journal.write(job.name, "failed", seconds=seconds, code=code, reason=reason)
    say(f"{job.name}: FAILED after {seconds:.0f} s: {reason} (all of it: {job.log})")
    return reason


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def _stopping(active: Sequence[_Active]) -> Iterator[None]:
    """Whatever ends the study ends its runs, which go on from their last checkpoint next time."""
    try:
        yield
    finally:
        for one in active:
            one.process.terminate()
        until = time.monotonic() + GRACE
        for one in active:
            try:
                one.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
