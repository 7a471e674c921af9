"""Train tiny runs one after the other, kill their workers meanwhile, and watch what is not given back.

python scripts/soak.py [--minutes 120] [--seed 0]

After every run a line tells the memory of this process, its open files, threads and child
processes. The exit status is 1 where, after a first third to warm up, memory grows by more than
MEMORY bytes a run, or where one of the others is at the end more than SLACK above its highest value
after the first three runs. Linux alone tells these numbers.
"""

import argparse
import contextlib
import gc
import multiprocessing as mp
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

MEMORY = 200_000
"""Bytes by which a run may grow the process: allocators do not give everything back at once."""
SLACK = 2
"""Files, threads or child processes that may be there more or less at the moment of counting."""
METHODS = ("grpo", "opsd", "sft")
EPISODES = 16
"""Of a step: tasks_per_step x group_size."""
TABLE: dict[str, Any] = {
    "run": {"folder": "run", "steps": 6, "checkpoint_every": 3},
    "env": {"suite": "tutelage.envs.doors:Doors", "workers": 2, "deadline": 20.0},
    "rollout": {"tasks_per_step": 4, "group_size": 4, "max_turns": 3, "max_new_tokens": 4},
    "update": {"lr": 1e-3},
    "policy": {"layers": 1, "build": {"hidden": 16, "context": 160}},
    "eval": {"every": 3, "tasks": 3},
}


class Sample(NamedTuple):
    """What the process holds after a run."""

    memory: int  # bytes
    files: int
    threads: int
    children: int


class Killer:
    """Watches a run and kills a worker at a drawn moment of about half of its steps, however fast
    the machine is."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.killed = draw, 0
        self._moment: int | None = 1

    def playing(self, done: int, total: int) -> None:
        if self._moment is None or done < self._moment:
            return
        self._moment = None
        if workers := [child.pid for child in mp.active_children() if child.pid is not None]:
            self.killed += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(workers), signal.SIGKILL)

    def stepped(self, line: object, seconds: object) -> None:
        self._moment = self.draw.choice([None, self.draw.randrange(1, EPISODES)])

    def started(self, config: object, phase: str, step: int) -> None: ...
    def tested(self, names: object) -> None: ...
    def evaluated(self, line: object) -> None: ...
    def warned(self, sentence: str) -> None: ...
    def closed(self) -> None: ...


def sample() -> Sample:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    files = len(os.listdir("/proc/self/fd"))
    return Sample(pages * os.sysconf("SC_PAGESIZE"), files, threading.active_count(), len(children))


def slope(values: Sequence[float]) -> float:
    """Growth from one value to the next: least squares."""
    n, middle = len(values), (len(values) - 1) / 2
    mean = sum(values) / n
    square = sum((k - middle) ** 2 for k in range(n))
    return sum((k - middle) * (x - mean) for k, x in enumerate(values)) / square if square else 0.0


def growth(samples: Sequence[Sample]) -> Sample:
    """Of each number, a run, over all but the first third."""
    late = samples[len(samples) // 3 :]
    return Sample(*(slope([each[k] for each in late]) for k in range(4)))  # type: ignore[arg-type]


def grows(samples: Sequence[Sample]) -> bool:
    """Whether something is not given back."""
    early = [max(each) for each in zip(*samples[:3], strict=True)]
    more = [now - then for now, then in zip(samples[-1], early, strict=True)]
    return growth(samples).memory > MEMORY or any(count > SLACK for count in more[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # here, because a worker imports this file when it starts, and torch takes long on a busy machine
    from tutelage.config import toml_file
    from tutelage.errors import TutelageError
    from tutelage.runs import train

    draw, until = random.Random(arguments.seed), time.monotonic() + 60 * arguments.minutes
    samples: list[Sample] = []
    killed = stopped = 0
    while time.monotonic() < until or len(samples) < 4:
        killer = Killer(draw)
        method = METHODS[len(samples) % len(METHODS)]
        with tempfile.TemporaryDirectory() as folder:
            table = {
                **TABLE,
                "run": {**TABLE["run"], "folder": f"{folder}/run"},
                "algorithm": {"name": method},
            }
            try:
                train.train(toml_file.parse(table), watch=killer)
            except TutelageError as error:  # a worker was killed in every attempt of a step
                stopped += 1
                print(f"{method}: {error}", file=sys.stderr)
        killed += killer.killed
        samples.append(sample())
        now = samples[-1]
        print(
            f"run {len(samples)}: {now.memory / 1e6:.1f} MB, {now.files} files, {now.threads} "
            f"threads, {now.children} children; {killed} workers killed, {stopped} runs stopped",
            flush=True,
        )
    more, late = growth(samples), len(samples) - len(samples) // 3
    print(
        f"growth a run over the last {late}: {more.memory / 1e3:+.1f} kB, "
        f"{more.files:+.3f} files, {more.threads:+.3f} threads, {more.children:+.3f} children"
    )
    return int(grows(samples))


if __name__ == "__main__":
    sys.exit(main())
