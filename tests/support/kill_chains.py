"""Real processes that train, killed at random moments and continued until they are done."""

import json
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tutelage.config.schema import Config
from tutelage.runs import folder as run_folder
from tutelage.runs import train

UNEQUAL = {"meta.json", "timings.jsonl", ".lock"}
"""Files in which two equal runs differ."""
KILLS = 3
"""Kills of a chain at most: then it may run to its end."""


class Silent:
    """Watches a run and shows nothing."""

    def tested(self, names: object) -> None: ...
    def started(self, config: object, phase: object, step: object) -> None: ...
    def playing(self, done: int, total: int) -> None: ...
    def stepped(self, line: object, seconds: object) -> None: ...
    def evaluated(self, line: object) -> None: ...
    def warned(self, sentence: object) -> None: ...
    def closed(self) -> None: ...


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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that two equal runs share, checkpoints included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNEQUAL
    }


def differing(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


@dataclass(frozen=True, kw_only=True)
class Whole:
    """An undisturbed run: what it wrote, and how long it took."""

    files: Mapping[str, bytes]
    seconds: float


def undisturbed(config: Config, folder: Path) -> Whole:
    began = time.monotonic()
    ended(begin(folder, lambda: train.train(config, watch=Silent())), folder)
    return Whole(files=contents(folder / "run"), seconds=time.monotonic() - began)


def chain(config: Config, folder: Path, *, seconds: float, seed: int) -> int:
    """Train until it is done, killed by SIGKILL at random moments of a run of so many seconds; how
    often it was killed."""
    draw = random.Random(seed)
    kills = 0
    while True:
        resume = (folder / "run" / run_folder.CONFIG).exists()
        child = begin(folder, lambda go=resume: train.train(config, resume=go, watch=Silent()))
        until = time.monotonic() + draw.uniform(0.15, 1.0) * seconds
        if kills < KILLS:
            while time.monotonic() < until and os.waitpid(child, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
            else:
                if time.monotonic() < until:
                    assert not (folder / "traceback").exists(), (folder / "traceback").read_text()
                    return kills
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
        else:
            ended(child, folder)
            return kills


def logged(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]
