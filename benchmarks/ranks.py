"""One process beside several ranks: that they agree, and what a step takes.

    OMP_NUM_THREADS=1 python benchmarks/ranks.py [--ranks 2] [--repeats 3] [--steps 4] [--smoke]
        [FILE SECTION.KEY=VALUE ...]

trains a household example, or a file with settings like those of `tutelage train`, for 1 and for
`--steps` more steps, in one process and with `torchrun`, in turn, and prints a table in Markdown.
Seconds of the clock are medians over steps and repeats, of which the first step is left out.
Processor seconds are those of all processes together: what the longer runs took more than the short
ones, by step, and are left out where starting a process varies more than that. `--smoke` trains a
tiny model on doors instead. The exit status is 1 where the ranks played other episodes than the one
process, or their losses differ by more than 1e-6.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "household_opd.toml"
HOUSEHOLD = (
    'policy.model="builtin:household-teacher"',
    "rollout.tasks_per_step=8",
    "rollout.group_size=2",
    "rollout.max_turns=9",
    "rollout.max_new_tokens=16",
    "update.minibatches=1",
    "update.epochs=1",
    "eval.every=0",
    "warm_start.steps=1",
)
DOORS = """
[env]
suite = "doors"
[rollout]
tasks_per_step = 4
group_size = 2
max_turns = 3
max_new_tokens = 4
[algorithm]
name = "grpo"
kl = 0.1
[update]
lr = 3e-4
[policy]
layers = 1
build = { hidden = 16, context = 160 }
"""


def train(folder: Path, file: Path, ranks: int, settings: list[str]) -> float:
    """Train in a folder. Processor seconds of all processes."""
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*start, "tutelage", "train", str(file), f"run.folder={folder}", "--quiet", *settings]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def differ(one: Path, other: Path) -> str:
    """What two runs do not share; empty where they agree."""
    played = [
        [
            (e["task"]["id"], e["copy"], e["stop"], [turn["tokens"] for turn in e["turns"]])
            for e in lines(folder, "episodes.jsonl")
        ]
        for folder in (one, other)
    ]
    if played[0] != played[1]:
        return "they played other episodes"
    pairs = zip(lines(one, "metrics.jsonl"), lines(other, "metrics.jsonl"), strict=True)
    apart = max(abs(a["loss"] - b["loss"]) for a, b in pairs)
    return f"their losses differ by {apart:.3g}" if apart > 1e-6 else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path)
    parser.add_argument("settings", metavar="SECTION.KEY=VALUE", nargs="*")
    given = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], given.ranks: []}
    work: dict[int, list[float]] = {1: [], given.ranks: []}
    with tempfile.TemporaryDirectory() as place:
        file, settings = given.file or EXAMPLE, given.settings if given.file else list(HOUSEHOLD)
        if given.smoke:
            file, settings = Path(place) / "doors.toml", []
            file.write_text(DOORS)
        for repeat in range(given.repeats):
            long = {}
            for ranks in seconds:
                took = {}
                for steps in (1, 1 + given.steps):
                    folder = Path(place) / f"{repeat}-{ranks}-{steps}"
                    took[steps] = train(folder, file, ranks, [*settings, f"run.steps={steps}"])
                long[ranks] = folder
                timed = [line["seconds"]["all"] for line in lines(folder, "timings.jsonl")]
                seconds[ranks] += timed[1:]
                work[ranks].append((took[1 + given.steps] - took[1]) / given.steps)
            if problem := differ(long[1], long[given.ranks]):
                sys.stderr.write(f"{given.ranks} ranks and one process do not agree: {problem}\n")
                return 1
    print(f"{platform.machine()}, {os.cpu_count()} CPUs; {given.repeats} runs of each, in turn.\n")
    print("| ranks | seconds a step (range) | n | processor seconds a step, all ranks |")
    print("|---|---|---|---|")
    for ranks, each in seconds.items():
        more = statistics.median(work[ranks])
        print(
            f"| {ranks} | {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) | "
            f"{len(each)} | {f'{more:.2f}' if more > 0 else 'too few steps to tell'} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
