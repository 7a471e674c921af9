"""Seconds of a training step with episodes played in turn and one step ahead.

    OMP_NUM_THREADS=1 python benchmarks/ahead.py [--repeats 3] [--steps 8] [--pauses 0.05 0]
        [--method opd]

trains a small student on doors, in an environment that takes so many seconds for each step, in turn and
one step ahead, alternating, in one process. The first step, beside which nothing is learnt, and the
last, beside which nothing is played, are left out. Prints a table in Markdown: means over repeats with
95 % intervals (Student's t).

Where other programs use the machine, the clock tells little: two processes get more of its cores than
one. Processor seconds do not depend on that: the sum of those of both processes is what a step takes
where they share a core, and the larger what it takes at least where each has its own.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tutelage.config.toml_file import parse

WORKERS = 4
"""Processes for the environment that pauses, so that its episodes pause at the same time."""


METHODS: dict[str, dict[str, Any]] = {
    "opd": {
        "algorithm": {"name": "opd"},
        "policies": {"teacher": {"layers": 3, "build": {"hidden": 128, "context": 256}}},
    },
    "grpo": {"algorithm": {"name": "grpo", "entropy": 0.01}},
}


def settings(folder: Path, arguments: argparse.Namespace, *, pause: float, ahead: int) -> Any:
    return parse(
        {
            "run": {"folder": str(folder), "steps": arguments.steps, "checkpoint_every": 1000},
            "env": {
                "suite": "pausing:PausingDoors",
                "options": {"pause": pause},
                "workers": WORKERS if pause else 0,
            },
            "rollout": {
                "tasks_per_step": 8,
                "group_size": 4,
                "max_turns": 4,
                "max_new_tokens": 8,
                "concurrency": {"episodes": 32, "ahead": ahead},
            },
            "update": {"lr": 1e-6, "minibatches": 2},
            "policy": {"layers": 2, "build": {"hidden": 96, "context": 256}},
            "eval": {"every": 0},
            **METHODS[arguments.method],
        }
    )


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def measure(arguments: argparse.Namespace, *, pause: float, ahead: int) -> dict[str, float]:
    """Of a step, means: seconds of all of it, and of waiting for episodes; processor seconds of the
    training process, of the one that plays, and of both."""
    # not where worker processes import this script
    from tutelage.runs import train
    from tutelage.runs.watch import Unwatched

    ends: list[float] = []  # processor seconds of this process at the end of each step

    class Processor(Unwatched):
        def stepped(self, line: object, seconds: object) -> None:
            ends.append(time.process_time())

    watch, mean = Processor(), statistics.fmean
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        train.train(settings(folder, arguments, pause=pause, ahead=ahead), watch=watch)
        steps = lines(folder, "timings.jsonl")[1:-1]
        stale = [
            line.get("staleness", {"max": 0})["max"] for line in lines(folder, "metrics.jsonl")
        ]
    assert set(stale[1:]) == {ahead}, "episodes were played with other weights than was asked for"
    trains = (ends[-2] - ends[0]) / len(steps)
    plays = mean(step["ahead"]["processor"] for step in steps) if ahead else 0.0
    return {
        "all": mean(step["seconds"]["all"] for step in steps),
        "wait": mean(step["seconds"].get("wait", 0.0) for step in steps),
        "trains": trains,
        "plays": plays,
        "both": trains + plays,
    }


def interval(values: list[float]) -> str:
    from tutelage.evaluation.statistics import student_t

    middle = statistics.fmean(values)
    if len(values) < 2:
        return f"{middle:.2f}"
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{middle:.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pauses", type=float, nargs="+", default=(0.05, 0.0))
    parser.add_argument("--method", choices=sorted(METHODS), default="opd")
    arguments = parser.parse_args()
    print("| environment | | a step | waiting | processor: trains | plays | both | n |")
    print("|---|---|---|---|---|---|---|---|")
    for pause in arguments.pauses:
        found: dict[int, list[dict[str, float]]] = {0: [], 1: []}
        for _ in range(arguments.repeats):
            for ahead in found:
                found[ahead].append(measure(arguments, pause=pause, ahead=ahead))
        for ahead, every in found.items():
            columns = [interval([x[name] for x in every]) for name in every[0]]
            what = f"{pause * 1000:.0f} ms a step" if pause else "no pause"
            how = "one step ahead" if ahead else "in turn"
            print(f"| {' | '.join((what, how, *columns, str(len(every))))} |", flush=True)


if __name__ == "__main__":
    main()
