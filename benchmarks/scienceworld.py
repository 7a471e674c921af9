"""How fast and large ScienceWorld is here: gold paths, resets, memory, beside its own interface.

    OMP_NUM_THREADS=1 python benchmarks/scienceworld.py

prints a table in Markdown. The gold paths of all tasks are played once to warm the machine up and
then measured. Seconds are seconds of the processor, of this process and the Java machine together
(with its compiler and its garbage collection), so that neighbours on the computer matter less.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tutelage_worlds.scienceworld import simulator
from tutelage_worlds.scienceworld.catalogue import TASKS
from tutelage_worlds.scienceworld.simulator import Simulator

Row = tuple[str, str, str]
TICKS = os.sysconf("SC_CLK_TCK")


def seconds(process: int | None) -> float:
    """Of the processor, that this process and another have taken."""
    times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() + sum(map(int, times)) / TICKS


def resident(process: int | None) -> float:
    """MB of memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def gold(machine: Simulator, passes: int) -> Iterator[Row]:
    """All gold paths so many times, after once to warm the machine up."""
    ways = {task: machine.gold(task, 0, "") for task in TASKS}
    means: list[float] = []
    resets: list[float] = []
    taken: dict[str, list[float]] = {task: [] for task in TASKS}
    won = 0
    for k in range(passes + 1):
        for task, way in ways.items():
            before = seconds(machine.process)
            game, _, shown = machine.begin(task, 0, "")
            begun = seconds(machine.process)
            for action in way:
                shown = machine.act(game, action)
            game.end()
            won += k == 0 and shown.done and shown.score == 1.0
            if k:
                resets.append(begun - before)
                taken[task].append(seconds(machine.process) - begun)
        if k:
            means.append(statistics.mean(len(ways[t]) / taken[t][-1] for t in TASKS))
    rates = {t: len(ways[t]) / statistics.median(taken[t]) for t in TASKS}
    slow, fast = (f(rates, key=rates.__getitem__) for f in (min, max))
    steps = sum(map(len, ways.values()))
    yield "gold paths that end at 100", f"{won} of {len(TASKS)}", "variation 0"
    spread = f"{statistics.median(means):,.0f} ({min(means):,.0f} to {max(means):,.0f})"
    yield "steps/s on gold paths, mean of the tasks", spread, f"{passes} passes of {steps} steps"
    ends = f"{rates[slow]:,.0f} ({slow}) to {rates[fast]:,.0f} ({fast})"
    yield "steps/s, slowest and fastest task", ends, "steps with look, inventory and state"
    whole = steps * passes / sum(map(sum, taken.values()))
    yield "steps/s, all steps together", f"{whole:,.0f}", "two genetics tasks are a quarter of them"
    yield "resets/s", f"{1 / statistics.median(resets):,.1f}", "median"


def memory(live: int, heap: int) -> Row:
    """Of a machine that holds so many games, each of which was played for twenty steps."""
    machine = Simulator(heap)
    games = [machine.begin(TASKS[k % len(TASKS)], k // len(TASKS), "")[0] for k in range(live)]
    for game in games:
        for action in ("look around", "open door to kitchen", "wait1", "inventory") * 5:
            machine.act(game, action)
    size = resident(machine.process)
    machine.shutdown()
    return f"MB per live game, {live:,} of them", f"{size / live:,.0f}", f"{size:,.0f} MB in all"


def original(passes: int) -> Iterator[Row]:
    """ScienceWorldEnv.step, which lists all valid actions each time."""
    # the library, not this script of the same name: main() takes this folder off sys.path
    from scienceworld import ScienceWorldEnv  # type: ignore[attr-defined]

    env = ScienceWorldEnv()
    process = env._gateway.java_process.pid
    for task in ("find-animal", "power-component"):
        for k in range(passes):
            env.load(task, 0, "", generateGoldPath=True)
            way = env.get_gold_action_sequence()
            env.reset()
            before = seconds(process)
            for action in way:
                env.step(action)
            taken = seconds(process) - before
            if k == passes - 1:
                yield f"steps/s of ScienceWorldEnv, {task}", f"{len(way) / taken:,.0f}", ""
    yield "MB of its machine", f"{resident(process):,.0f}", "one game to a machine"
    env.close()


def main() -> None:
    # this file is called like the package that it measures
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--passes", type=int, default=3, help="over the gold paths, after one to warm up"
    )
    parser.add_argument("--live", type=int, nargs="*", default=(1, 8, 64))
    options = parser.parse_args()
    machine = simulator.simulator(512)
    rows = list(gold(machine, options.passes))
    rows.append(("MB of the machine after all of it", f"{resident(machine.process):,.0f}", ""))
    machine.shutdown()
    rows += [memory(live, 1024 if live > 16 else 512) for live in options.live]
    rows += original(2)
    print(f"Python {platform.python_version()}, a heap of 512 MB (1,024 for 64 games)\n")
    print("| scienceworld | measured | over |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
