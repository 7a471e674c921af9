"""How fast tau_bench is: steps, resets, the final reward, memory, and tau-bench itself if given.

    OMP_NUM_THREADS=1 python benchmarks/tau_bench.py [--data FOLDER] [--clone FOLDER]

prints a table in Markdown. Steps are those of demonstrations (replies, look-ups and changes), the
final reward is the step that ends a conversation. `--data` measures tau-bench's own tasks, a folder
as `env.options.data` takes it, or the environment variable TAU_BENCH_DATA; `--clone`, or TAU_BENCH,
names a clone of sierra-research/tau-bench, which plays the same calls with the same scripted
customer in the same process, and without which only this world is measured. Through make:

    TAU_BENCH=CLONE TAU_BENCH_DATA=CLONE/tau_bench/envs/retail make bench ONLY=tau_bench

Seconds are seconds of the processor, so that neighbours on the machine matter less.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from tutelage.types import Task
from tutelage_worlds.tau_bench import Scripted, TauBench, load
from tutelage_worlds.tau_bench.scenario import Scenario
from tutelage_worlds.tau_bench.suite import find

LIVE = (1, 64, 1024)
Row = tuple[str, str, str]


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median and the range."""
    middle, low, high = statistics.median(values), min(values), max(values)
    shape = ",.0f" if middle >= 100 else ",.3g"
    return f"{middle:{shape}}{unit} ({low:{shape}} to {high:{shape}})"


def timed(act: Callable[[], int], repeats: int) -> str:
    """How many things a second `act` does."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        count = act()
        rates.append(count / (time.process_time() - start))
    return spread(rates)


def speed(name: str, suite: TauBench, tasks: Sequence[Task], repeats: int) -> Iterator[Row]:
    scripts = [list(suite.demonstrate(task)) for task in tasks]
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

    def plan() -> int:
        for task in tasks:
            suite.plan(task)
        return len(tasks)

    over = f"{len(tasks)} tasks"
    yield f"steps/s, {name}", timed(play, repeats), f"demonstrations of {over}, resets included"
    yield f"resets/s, {name}", timed(begin, repeats), over
    yield f"plans/s, {name}", timed(plan, repeats), over
    yield f"final reward, {name}", ends(suite, tasks, scripts, repeats), over


def ends(suite: TauBench, tasks: Sequence[Task], scripts: Sequence[list[str]], repeats: int) -> str:
    """Milliseconds of the last step, over fresh goals: nothing is known from an earlier end."""
    taken = []
    env = suite.make()
    for _ in range(repeats):
        for task, script in zip(tasks, scripts, strict=True):
            find(task)[0].goals.clear()
            start = time.process_time()
            env.reset(task)  # where the task's own actions are replayed
            first = time.process_time() - start
            for action in script[:-1]:
                env.step(action)
            start = time.process_time()
            env.step(script[-1])
            taken.append(1000 * (first + time.process_time() - start))
    return spread(taken, " ms") + ", with the goal's replay"


def memory(live: int) -> None:
    """Print how many KiB Python holds for a live conversation, besides the shop that all share."""
    suite = TauBench()
    tasks = suite.tasks("train")
    scripts = [list(suite.demonstrate(tasks[k % 300])) for k in range(live)]
    tracemalloc.start()
    envs = []
    for k, script in enumerate(scripts):
        env = suite.make()
        env.reset(tasks[k % 300])
        for action in script[:-1]:
            env.step(action)
        envs.append(env)
    print(tracemalloc.get_traced_memory()[0] / 1024 / len(envs))


def memory_row(live: int) -> Row:
    command = [sys.executable, __file__, "--memory", str(live)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"KiB per live conversation, {live}", f"{float(output):,.1f}", "before its last step"


# -- tau-bench itself


class Adapter:
    """Our scripted customer as tau-bench talks to one."""

    def __init__(self) -> None:
        self.customer = Scripted()
        self.scenario = Scenario(id="", user_id="", instruction="", actions=())

    def reset(self, instruction: str | None = None) -> str:
        return self.customer.open(self.scenario)

    def step(self, content: str) -> str:
        return self.customer.answer(content)

    def get_total_cost(self) -> float:
        return 0.0


def original(clone: str, repeats: int) -> Iterator[Row]:
    """The same calls in tau-bench and here, in turns."""
    stub = ModuleType("litellm")
    stub.completion = None  # type: ignore[attr-defined]
    sys.modules.setdefault("litellm", stub)
    sys.path.insert(0, clone)
    import tau_bench.envs.base as base  # type: ignore[import-not-found]
    from tau_bench.envs.retail import MockRetailDomainEnv  # type: ignore[import-not-found]

    base.load_user = lambda **_: Adapter()
    theirs: Any = MockRetailDomainEnv(task_split="train", task_index=0)
    suite = TauBench(data=f"{clone}/tau_bench/envs/retail")
    tasks, env = suite.tasks("train")[:10], suite.make()
    scripts = [list(suite.demonstrate(task)) for task in tasks]
    rates: dict[str, list[float]] = {"reset": [], "step": [], "end": []}
    for _ in range(repeats):
        spent = {"reset": 0.0, "step": 0.0, "end": 0.0}
        ours = dict(spent)
        for k, script in enumerate(scripts):
            theirs.user.scenario = find(tasks[k])[1]
            clock(ours, "reset", partial(env.reset, tasks[k]))
            clock(spent, "reset", partial(theirs.reset, k))
            for action in script:
                call = json.loads(action)
                kind = "end" if action is script[-1] else "step"
                theirs_action = base.Action(name=call["name"], kwargs=call["arguments"])
                clock(ours, kind, partial(env.step, action))
                clock(spent, kind, partial(theirs.step, theirs_action))
        steps = sum(map(len, scripts)) - len(scripts)
        counts = {"reset": len(scripts), "step": steps, "end": len(scripts)}
        for kind, total in spent.items():
            rates[kind].append(1000 * total / counts[kind])
            rates.setdefault(f"times {kind}", []).append(total / ours[kind])
    for kind, name in (("reset", "a reset"), ("step", "a step"), ("end", "the last step")):
        yield f"tau-bench, {name}", spread(rates[kind], " ms"), "10 tasks of train"
        yield f"times as fast, {name}", spread(rates[f"times {kind}"]), "the same calls"


def clock(spent: dict[str, float], kind: str, act: Callable[[], object]) -> None:
    start = time.process_time()
    act()
    spent[kind] += time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--data", default=os.environ.get("TAU_BENCH_DATA", ""), help="tasks (TAU_BENCH_DATA)"
    )
    parser.add_argument(
        "--clone", default=os.environ.get("TAU_BENCH", ""), help="the original (TAU_BENCH)"
    )
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    rows: list[Row] = []
    for size in ("small", "full"):
        suite = TauBench(size=size, train=options.tasks)
        rows += speed(size, suite, suite.tasks("train"), options.repeats)
    if options.data:
        start = time.process_time()
        load(options.data)
        took = f"{time.process_time() - start:.2f} s"
        rows.append(("files read and checked", took, "once in a process"))
        suite = TauBench(data=options.data)
        rows += speed("tau-bench's tasks", suite, suite.tasks("train"), options.repeats)
    rows += [memory_row(live) for live in LIVE]
    if options.clone:
        rows += original(options.clone, options.repeats)
    else:
        print("tau-bench itself was not measured: no clone of it was named.\n")
    print(f"Python {platform.python_version()}, one process, median of {options.repeats} (range)\n")
    print("| tau_bench | measured | over |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
