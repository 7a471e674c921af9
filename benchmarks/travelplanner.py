"""How fast travelplanner is: verdicts, searches, resets, queries, memory.

    OMP_NUM_THREADS=1 python benchmarks/travelplanner.py [--data FOLDER]

prints a table in Markdown; with TravelPlanner's training files, their gold plans are judged as
well. Seconds are seconds of the processor, so that neighbours on the machine matter less.
"""

import argparse
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

from tutelage_worlds.travelplanner import TravelPlanner, Trip, judge
from tutelage_worlds.travelplanner.generate import country
from tutelage_worlds.travelplanner.requests import trip
from tutelage_worlds.travelplanner.solver import solve
from tutelage_worlds.travelplanner.suite import find

LIVE = (1, 64, 1024)
Row = tuple[str, str, str]


def timed(act: Callable[[], int], repeats: int, *, each: float = 0) -> str:
    """How many things a second `act` does, or how long one takes in units of `each` seconds: the
    median and the range of the repeats."""
    values = []
    for _ in range(repeats):
        start = time.process_time()
        count = act()
        spent = time.process_time() - start
        values.append(spent / count / each if each else count / spent)
    shown = "{:,.3f}" if each else "{:,.0f}"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{shown.format(middle)} ({shown.format(least)} to {shown.format(most)})"


def verdicts(trips: list[Trip], what: str, repeats: int) -> Row:
    cases = []
    for one in trips:
        found = solve(one.world, one.query, one.route, one.query.budget)
        cases.append((one, one.gold if one.gold is not None else found.plan if found else None))

    def act() -> int:
        for one, plan in cases:
            judge(one.world, one.query, plan)
        return len(cases)

    return f"ms to judge a plan, {what}", timed(act, repeats, each=1e-3), f"{len(cases)} plans"


def steps(suite: TravelPlanner, what: str, count: int, repeats: int) -> Iterator[Row]:
    tasks = list(suite.tasks("train"))[:count]
    scripts = [suite.demonstrate(task) for task in tasks]
    env = suite.make()

    def play() -> int:
        for task, script in zip(tasks, scripts, strict=True):
            env.reset(task)
            for action in script:
                env.step(action)
        return sum(map(len, scripts))

    def begin() -> int:
        for task in tasks:
            env.reset(task)
        return len(tasks)

    play()
    yield f"steps/s, {what}", timed(play, repeats), f"{count} episodes, resets included"
    yield f"resets/s, {what}", timed(begin, repeats), f"{count} tasks"


def queries(size: str, count: int) -> Row:
    """Queries are kept, so each is made once."""
    country(size)
    start = time.process_time()
    for seed in range(10**6, 10**6 + count):
        trip(size, "train", seed, ("easy", "medium", "hard")[seed % 3], (3, 5, 7)[seed // 3 % 3])
    spent = (time.process_time() - start) / count * 1e3
    return f"ms to make a query that can be met, {size}", f"{spent:.2f}", f"{count} queries"


def memory(live: int) -> Row:
    suite = TravelPlanner(mode="two-stage", train=max(LIVE))
    tasks = list(suite.tasks("train"))[:live]
    scripts = [suite.demonstrate(task) for task in tasks]
    for task in tasks:
        find(task)
    tracemalloc.start()
    envs = []
    for task, script in zip(tasks, scripts, strict=True):
        env = suite.make()
        env.reset(task)
        for action in script[:10]:
            env.step(action)
        envs.append(env)
    size = tracemalloc.get_traced_memory()[0] / 1024 / len(envs)
    tracemalloc.stop()
    return f"KiB per live episode, {live:,} of them", f"{size:,.1f}", "10 searches and notes each"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", help="a folder of TravelPlanner's training files")
    parser.add_argument("--tasks", type=int, default=180)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows: list[Row] = []
    for size in ("full", "small"):
        trips = [
            find(task) for task in list(TravelPlanner(size=size).tasks("train"))[: options.tasks]
        ]
        rows.append(verdicts(trips, f"our {size} country", options.repeats))
    if options.data:
        suite = TravelPlanner(data=options.data)
        trips = [find(task) for task in suite.tasks("train")]
        rows.append(verdicts(trips, "gold plans for training", options.repeats))
    for name, suite in (
        ("two-stage", TravelPlanner(mode="two-stage")),
        ("sole planning", TravelPlanner()),
        ("sole planning, small and brief", TravelPlanner(size="small", brief=True)),
    ):
        rows += steps(suite, name, options.tasks, options.repeats)
    rows += [queries(size, options.tasks) for size in ("full", "small")]
    rows += [memory(live) for live in LIVE]
    print(f"Python {platform.python_version()}, one process, median of {options.repeats} (range)\n")
    print("| travelplanner | measured | over |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
