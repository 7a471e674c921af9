"""Speed and memory of every suite: steps, resets and bytes per live environment.

With 1, 64 and 1,024 environments alive at once, and 1 and 8 for suites in a JVM.

    OMP_NUM_THREADS=1 python benchmarks/environments.py [SUITE ...]

prints a table in Markdown. Environments are stepped in turns, each along the demonstration of its
own task, and begin another task when it ends. Seconds are CPU seconds of this process, for suites in
a JVM wall-clock seconds. Memory is what Python has allocated beyond shared data after all
environments have played some steps; for suites in a JVM it is the growth of this process and its
children. Every row is measured in a process of its own.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

from tutelage.envs.base import Demonstrates, Env, Suite
from tutelage.envs.registry import SUITES
from tutelage.envs.requirements import Need
from tutelage.types import Task

LIVE, LIVE_JAVA = (1, 64, 1024), (1, 8)
POOL = 64
"""Tasks that are played; their demonstrations are looked for before anything is measured."""
CAPTION = """\
Steps with the resets between episodes. Environments in this process have 1, 64 and 1,024 alive at once;
those in a JVM 1 and 8, since games share one JVM with a bounded heap, play one at a time, and take
long to reset. The originals are measured in the sections of the suites.
"""
WARM = 3
"""Steps of every environment before memory is looked at."""


class Player:
    """One environment that plays its tasks one after another."""

    def __init__(self, env: Env, first: int, scripts: Sequence[tuple[Task, Sequence[str]]]) -> None:
        self.env, self.at, self.scripts = env, first, scripts
        self.left: list[str] = []

    def reset(self) -> None:
        task, script = self.scripts[self.at % len(self.scripts)]
        self.at, self.left = self.at + 1, [*script]
        self.env.reset(task)

    def step(self) -> None:
        if self.env.step(self.left.pop(0)).done:
            self.left = []


def needs_of(world: str) -> list[Need]:
    module = importlib.import_module(SUITES[world].partition(":")[0])
    return list(getattr(module, "needs", lambda options: [])({}))


def suite_of(world: str) -> Suite:
    module, _, name = SUITES[world].partition(":")
    suite: Suite = getattr(importlib.import_module(module), name)()
    return suite


def java(world: str) -> bool:
    return any(need.name.startswith("Java") for need in needs_of(world))


def held() -> int:
    """Bytes that this process and all below it hold."""
    parents, pages = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        # others come and go while we look
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")")[1].split()[1])
            pages[int(folder.name)] = int((folder / "statm").read_text().split()[1])
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(pages.get(member, 0) for member in family) * os.sysconf("SC_PAGE_SIZE")


def rate(act: Callable[[], int], clock: Callable[[], float], repeats: int) -> list[float]:
    rates = []
    for _ in range(repeats):
        start = clock()
        count = act()
        rates.append(count / max(clock() - start, 1e-9))
    return rates


def measure(world: str, live: int, steps: int, repeats: int) -> dict[str, list[float]]:
    """Steps and resets a second, and KiB for each of `live` environments."""
    suite = suite_of(world)
    clock = time.perf_counter if java(world) else time.process_time
    assert isinstance(suite, Demonstrates)
    tasks = list(suite.tasks("train")[: min(POOL, live if java(world) else POOL)])
    scripts = [(task, suite.demonstrate(task)) for task in tasks]
    first = Player(suite.make(), 0, scripts)
    first.reset()
    first.step()
    machine = java(world)
    before = held()
    if not machine:
        tracemalloc.start()
    players = [Player(suite.make(), k, scripts) for k in range(live)]

    def begin() -> int:
        for player in players:
            player.reset()
        return live

    def play(count: int) -> int:
        for k in range(count):
            player = players[k % live]
            if not player.left:
                player.reset()
            player.step()
        return count

    begin()
    play(WARM * live)
    bytes_ = held() - before if machine else tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    first.env.close()
    row = {
        "steps": rate(lambda: play(max(steps, live)), clock, repeats),
        "resets": rate(begin, clock, repeats),
        "KiB": [bytes_ / live / 1024],
    }
    for player in players:
        player.env.close()
    return row


def shown(values: Sequence[float]) -> str:
    """The median, and the range of several."""
    middle = statistics.median(values)
    shape = ",.0f" if middle >= 10 else ".2g"
    if len(values) == 1:
        return f"{middle:{shape}}"
    return f"{middle:{shape}} ({min(values):{shape}} to {max(values):{shape}})"


def rows(world: str, options: argparse.Namespace) -> list[str]:
    """Each from a process of its own: memory that was given back is seldom given back wholly."""
    table = []
    for live in LIVE_JAVA if java(world) else LIVE:
        command = [
            sys.executable,
            __file__,
            world,
            "--live",
            str(live),
            "--steps",
            str(options.steps),
            "--repeats",
            str(options.repeats),
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = json.loads(output.splitlines()[-1])
        cells = (world, f"{live:,}", *(shown(found[name]) for name in ("steps", "resets", "KiB")))
        table.append("| " + " | ".join(cells) + " |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("worlds", nargs="*", help="all that are installed")
    parser.add_argument("--steps", type=int, default=5000, help="steps per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--live", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live:
        print(json.dumps(measure(options.worlds[0], options.live, options.steps, options.repeats)))
        return
    worlds = options.worlds or list(SUITES)
    for world in list(worlds):
        if lacking := [need.name for need in needs_of(world) if need.missing]:
            worlds.remove(world)
            print(f"{world} was not measured: it lacks {', '.join(lacking)}.\n")
    print(f"Python {platform.python_version()}, one process, median of {options.repeats} (range)\n")
    print(CAPTION)
    print("| suite | alive | steps/s | resets/s | KiB each |\n|---|---:|---:|---:|---:|")
    for world in worlds:
        print("\n".join(rows(world, options)), flush=True)


if __name__ == "__main__":
    main()
