"""Seconds of a training step with episodes played in turn and one step ahead.

    OMP_NUM_THREADS=1 python benchmarks/ahead.py [--repeats 3] [--steps 8] [--pause 0.05] [--method opd]

trains a small student on doors, in an environment that takes `--pause` seconds for each step and in
one that takes none, in turn and one step ahead, alternating, in one process. The first step, beside
which nothing is learnt, and the last, beside which nothing is played, are left out. Prints a table in
Markdown: means over repeats with 95 % intervals (Student's t), and the ratio of the two of each
repeat.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.config.toml_file import parse
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.runs import train
from tutelage.runs.train import Unwatched
from tutelage.types import Observation

T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""Student's t by degrees of freedom, 95 % on both sides."""
WORKERS = 4
"""Processes for the environment that pauses, so that its episodes pause at the same time."""


class Pausing(DoorsEnv):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause

    def step(self, action: str) -> Observation:
        time.sleep(self.pause)
        return super().step(action)


@dataclass(frozen=True)
class PausingDoors(Doors):
    rooms: int = 3
    pause: float = 0.05

    def make(self) -> DoorsEnv:
        return Pausing(self.pause)


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
                "suite": "ahead:PausingDoors",
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
    """Mean seconds of a step: all of it, playing, learning and waiting."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        train.train(settings(folder, arguments, pause=pause, ahead=ahead), watch=Unwatched())
        steps = lines(folder, "timings.jsonl")[1:-1]
        stale = [
            line.get("staleness", {"max": 0})["max"] for line in lines(folder, "metrics.jsonl")
        ]
    assert set(stale[1:]) == {ahead}, "episodes were played with other weights than was asked for"
    playing = ("generate", "environment", "prompts")
    mean = statistics.fmean
    total = mean(step["seconds"]["all"] for step in steps)
    if ahead:
        play = mean(step["ahead"]["all"] for step in steps)
        wait = mean(step["seconds"]["wait"] for step in steps)
        return {"all": total, "play": play, "learn": total - wait, "wait": wait}
    # laying out the step's prompts counts as playing here too, which is a few milliseconds
    play = mean(sum(step["seconds"].get(name, 0.0) for name in playing) for step in steps)
    return {"all": total, "play": play, "learn": total - play, "wait": 0.0}


def interval(values: list[float]) -> str:
    middle = statistics.fmean(values)
    if len(values) < 2:
        return f"{middle:.2f}"
    half = T95.get(len(values) - 1, 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{middle:.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--method", choices=sorted(METHODS), default="opd")
    arguments = parser.parse_args()
    print("| environment | | a step | playing | learning | waiting | ratio | n |")
    print("|---|---|---|---|---|---|---|---|")
    for pause in (arguments.pause, 0.0):
        found: dict[int, list[dict[str, float]]] = {0: [], 1: []}
        for _ in range(arguments.repeats):
            for ahead in found:
                found[ahead].append(measure(arguments, pause=pause, ahead=ahead))
        pairs = zip(found[1], found[0], strict=True)
        ratio = interval([one["all"] / other["all"] for one, other in pairs])
        for ahead, every in found.items():
            columns = [interval([x[name] for x in every]) for name in every[0]]
            what = f"{pause * 1000:.0f} ms a step" if pause else "no pause"
            how = "one step ahead" if ahead else "in turn"
            cells = (what, how, *columns, ratio if ahead else "", str(len(every)))
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
