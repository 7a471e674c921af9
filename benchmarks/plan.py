"""What `tutelage plan` says beside runs: seconds of a step by phase, memory, and a second rank.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [SHAPE ...] [--steps 4] [--seconds 40] [--ranks 2]
        [--processor]

plans each shape, then trains it in one process and with `torchrun`, with a learning rate near 0, so
that episodes stay as long as those that were planned with. Prints a table in Markdown. Seconds are
medians over the steps after the first; with `--processor` they are processor seconds, which other
programs on the machine hardly change: a rank that waits takes none. Memory is the largest resident
set of the one process, less that of a run with a model of 16 hidden units, which is what the
libraries take.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
RATE = "update.lr=1e-12"
DOORS = """
[env]
suite = "doors"
[rollout]
tasks_per_step = 2
group_size = 2
max_turns = 3
max_new_tokens = 4
[algorithm]
name = "grpo"
[policy]
layers = 1
build = { hidden = 16, context = 160 }
"""
SMALL = ("eval.every=0", "run.checkpoint_every=1000", "warm_start.steps=1")
SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "opd, 0.7 million": (
        "household_opd.toml",
        (
            *('policy.model="builtin:household-teacher"', "rollout.tasks_per_step=8"),
            *("rollout.group_size=2", "rollout.max_turns=9", "rollout.max_new_tokens=16", *SMALL),
        ),
    ),
    "grpo, 8 million": (
        "household_grpo.toml",
        (
            "policy={layers=4,tokenizer=2000,build={hidden=384,context=2048}}",
            *("rollout.tasks_per_step=4", "rollout.group_size=4", "rollout.max_turns=9"),
            *("rollout.max_new_tokens=16", "update.minibatches=2", "update.epochs=1", *SMALL),
        ),
    ),
    "grpo, SmolLM2-135M": (
        "guess_smollm2.toml",
        (
            *(
                "policy.lora=0",
                "algorithm.kl=0.05",
                "rollout.tasks_per_step=2",
                "rollout.group_size=2",
            ),
            *("run.steps=3", "eval.every=0", "run.checkpoint_every=1000"),
        ),
    ),
}


PROCESSOR = """
import sys, time
time.perf_counter = time.process_time
from tutelage.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""The command with its clocks in processor seconds."""


def run(command: list[str], folder: Path, *, ranks: int, clock: Path | None) -> tuple[str, int]:
    """Run a command of tutelage; what it printed, and the bytes of its largest resident set."""
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    start += ["-m", "tutelage"] if clock is None else [str(clock)]
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        whole = [*start, *command]
        process = subprocess.Popen(whole, cwd=EXAMPLES, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        err.seek(0)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"{' '.join(command)} ended with {code}: {err.read()}")
        return out.read(), usage.ru_maxrss * 1024


def train(
    file: Path, settings: list[str], folder: Path, *, ranks: int = 1, clock: Path | None
) -> tuple[Any, int]:
    """Seconds by phase of the steps after the first, and the largest resident set."""
    command = ["train", str(file), f"run.folder={folder / 'run'}", "--quiet", *settings]
    _, most = run(command, folder, ranks=ranks, clock=clock)
    text = (folder / "run" / "timings.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, text) if line.get("phase", "train") == "train"]
    seconds = [line["seconds"] for line in lines[1:]]
    phases = {name for line in seconds for name in line}
    return {name: [line.get(name, 0.0) for line in seconds] for name in phases}, most


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--processor", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.shapes) - set(SHAPES):
        parser.error(f"there is no shape {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs\n", flush=True)
    print("| shape | | planned | measured (range) | n |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "doors.toml").write_text(DOORS)
        clock = home / "clock.py" if given.processor else None
        if clock:
            clock.write_text(PROCESSOR)
        learn = partial(train, clock=clock)
        _, libraries = learn(home / "doors.toml", ["run.steps=2", RATE], home)
        for k, name in enumerate(given.shapes):
            example, settings = SHAPES[name]
            file, folder = EXAMPLES / example, home / str(k)
            chosen = [*settings, RATE]
            (folder / "2").mkdir(parents=True)
            command = ["plan", str(file), *chosen, f"--seconds={given.seconds}", "--json"]
            text, _ = run(command, folder, ranks=1, clock=clock)
            planned = json.loads(text)
            chosen.append(f"run.steps={1 + given.steps}")
            one, most = learn(file, chosen, folder)
            other, _ = learn(file, chosen, folder / "2", ranks=given.ranks)
            waits = () if clock is None else ("waiting", "exchange")
            report(name, planned, one, other, most - libraries, given.ranks, waits)
    return 0


def report(
    name: str, planned: Any, one: Any, other: Any, memory: int, ranks: int, waits: tuple[str, ...]
) -> None:
    layouts = {each["cards"]: each for each in planned["layouts"] if not each["grown"]}
    phases, measured = layouts[1]["phases"], one["all"]
    rows = [("a step", layouts[1]["seconds"], measured)]
    for phase in ("generate", "environment", "prompts", "teacher", "update"):
        found = one.get(phase, [0.0])
        extra = phases["optimizer"] if phase == "update" else 0.0
        if statistics.median(found) > 0.02 * statistics.median(measured):
            rows.append((phase, phases[phase] + extra, found))
    if ranks in layouts:
        several = {k: v for k, v in layouts[ranks]["phases"].items() if k not in waits}
        rows.append((f"a step on {ranks} ranks", sum(several.values()), other["all"]))
    for what, planned, found in rows:
        print(
            f"| {name} | {what} | {planned:.2f} s | {statistics.median(found):.2f} s "
            f"({min(found):.2f} to {max(found):.2f}) | {len(found)} |"
        )
    print(
        f"| {name} | memory | {planned['memory'] / 1e6:.0f} MB | {memory / 1e6:.0f} MB | 1 |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
