"""Real processes that train, killed at random moments and continued until they are done."""

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from support.tiny_runs import Quiet, contents
from tutelage.cli.main import main
from tutelage.config.schema import Config
from tutelage.runs import folder as run_folder
from tutelage.runs import train

KILLS = 3
"""Kills of a chain at most: then it may run to its end."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    message: str


def begin(folder: Path, job: Callable[[], object]) -> int:
    """Start a job in a forked process of its own group, in `folder`; its process id."""
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            job()
            os._exit(0)
        except BaseException:
            (folder / "traceback").write_text(traceback.format_exc())
            os._exit(1)
    return child


def ended(child: int, folder: Path) -> None:
    """Wait for a child that must succeed."""
    status = os.waitpid(child, 0)[1]
    assert status == 0, (folder / "traceback").read_text()


def differing(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


@dataclass(frozen=True, kw_only=True)
class Whole:
    """An undisturbed run: what it wrote, and how long its shortest step took."""

    files: Mapping[str, bytes]
    seconds: float


def undisturbed(config: Config, folder: Path) -> Whole:
    ended(begin(folder, lambda: train.train(config, watch=Quiet())), folder)
    lines = (json.loads(x) for x in (folder / "run/timings.jsonl").read_text().splitlines())
    return Whole(
        files=contents(folder / "run"), seconds=min(line["seconds"]["all"] for line in lines)
    )


def chain(config: Config, folder: Path, *, whole: Whole, seed: int) -> int:
    """Train until it is done, killed by SIGKILL at random moments; how often it was killed.

    A moment is a number of steps, and up to the time of a step after it, but not after the next.
    """
    draw = random.Random(seed)
    steps = whole.files["metrics.jsonl"].count(b"\n")
    kills = 0
    while True:
        resume = (folder / "run" / run_folder.CONFIG).exists()
        child = begin(folder, lambda go=resume: train.train(config, resume=go, watch=Quiet()))
        # the first time before the last step, so that every chain is killed at least once
        after = draw.randrange(steps if kills == 0 else steps + 1)
        later = draw.uniform(0.0, whole.seconds)
        if kills == 0 and after == steps - 1:
            later = 0.0  # the machine may be faster now, and the run over by then
        if kills == KILLS or not _reaches(child, folder / "run" / "metrics.jsonl", after, later):
            if kills == KILLS:
                ended(child, folder)
            assert not (folder / "traceback").exists(), (folder / "traceback").read_text()
            return kills
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1


def _reaches(child: int, log: Path, steps: int, later: float) -> bool:
    """Whether a child logs so many steps and goes on for `later` seconds, or until it logs one more;
    else it has ended."""
    until, reached = None, 0
    while until is None or time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        logged_steps = log.read_bytes().count(b"\n") if log.exists() else 0
        if until is None and logged_steps >= steps:
            until, reached = time.monotonic() + later, logged_steps
        if until is not None and logged_steps > reached:
            return True
        time.sleep(0.002)
    return True


def logged(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def cli(folder: Path, *arguments: str, limit: int = 0, output: int | None = None) -> Ended:
    """A command in a process of its own, in `folder`: its exit code and what it writes to stderr.

    limit   bytes of a file at most, 0 for no limit
    output  a handle for what it prints
    """
    errors, writes = os.pipe()

    def job() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY) if output is None else output, 1)
        os.dup2(writes, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = 70
        try:
            code = main(list(arguments))
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)

    child = begin(folder, job)
    os.close(writes)
    with os.fdopen(errors, errors="replace") as file:
        message = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert "Traceback" not in message, message
    return Ended(code, message)
