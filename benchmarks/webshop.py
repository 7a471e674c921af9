"""How fast WebShop is: start, steps, resets, searches, memory, and a shop that processes share.

    OMP_NUM_THREADS=1 python benchmarks/webshop.py

prints a table in Markdown. A step is one action of a shopper's walk, with the page, the list of
what can be clicked and the state; walks are played once before they are measured, so that their
searches are warm. Seconds are seconds of the processor, so that neighbours on the machine matter
less.
"""

import argparse
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from tutelage_worlds.webshop import WebShop, files
from tutelage_worlds.webshop.generate import generate

LIVE = (1, 64, 1024)
Row = tuple[str, str, str]
Walk = list[str]


def walks(suite: WebShop, count: int, steps: int) -> list[Walk]:
    """Walks that search with the words of the instruction and click about, but never buy."""
    walks_taken = []
    for i, task in enumerate(suite.tasks("train")[:count]):
        rng, env = random.Random(i), suite.make()
        seen, walk = env.reset(task), []
        query = suite.describe(task).partition(", and price")[0]
        for _ in range(steps):
            clicks = [
                a for a in seen.actions if a not in ("click[buy now]", "click[back to search]")
            ]
            search = seen.actions[0].startswith("search") or rng.random() < 0.15
            walk.append(f"search[{query}]" if search else rng.choice(clicks))
            seen = env.step(walk[-1])
        walks_taken.append(walk)
    return walks_taken


def timed(act: Callable[[], int], repeats: int) -> str:
    """How many things a second `act` does: the median and the range of the repeats."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        count = act()
        rates.append(count / (time.process_time() - start))
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def speed(suite: WebShop, what: str, count: int, steps: int, repeats: int) -> Iterator[Row]:
    tasks, played = suite.tasks("train")[:count], walks(suite, count, steps)
    env, shop = suite.make(), suite.shop()

    def observe() -> int:
        for task, walk in zip(tasks, played, strict=True):
            env.reset(task)
            for action in walk:
                env.step(action)
        return count * steps

    def begin() -> int:
        for task in tasks:
            env.reset(task)
        return count

    def find() -> int:
        for task in tasks:
            shop._full_text(suite.describe(task))
        return count

    observe()
    over = f"{count} visits x {steps} steps"
    yield f"steps/s, {what}", timed(observe, repeats), over
    yield f"resets/s, {what}", timed(begin, repeats), f"{count} tasks"
    if suite.mode == "text":
        yield f"searches/s that were never made before, {what}", timed(find, repeats), over


def starts(products: int, repeats: int) -> Row:
    code = (
        "import time\nbegin = time.process_time()\n"
        "from tutelage_worlds.webshop import WebShop\n"
        f"WebShop(products={products}).shop()\nprint(time.process_time() - begin)"
    )
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(repeats)
    ]
    value = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
    return f"seconds to start, {products:,} products", value, "imports, products and index"


def memory(live: int) -> None:
    """Print how many KiB a live visit takes after ten steps."""
    suite = WebShop(products=1000, test=0, dev=0)
    walk = walks(suite, 1, 10)[0]
    tasks = list(suite.tasks("train"))
    tracemalloc.start()
    envs = []
    for i in range(live):
        env = suite.make()
        env.reset(tasks[i % len(tasks)])
        for action in walk:
            env.step(action)
        envs.append(env)
    print(tracemalloc.get_traced_memory()[0] / 1024 / len(envs))


def memory_row(live: int) -> Row:
    command = [sys.executable, __file__, "--memory", str(live)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"KiB per live visit, {live:,} of them", f"{float(output):,.1f}", "10 steps each"


def on_disk(products: int) -> Iterator[Row]:
    """A shop of many products that is built in a folder and opened."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        goods = generate(products)
        files.write(data, goods.products, goods.attributes, goods.humans)
        code = (
            "import sys, time\n"
            "from tutelage_worlds.webshop.__main__ import main\n"
            "main(sys.argv[1:])\n"
            "status = open('/proc/self/status').read().partition('VmHWM:')[2]\n"
            "print(time.process_time(), int(status.split()[0]) / 1e3)"
        )
        command = [sys.executable, "-c", code, folder, f"{folder}/shop"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, peak = map(float, output.split())
        size = sum(path.stat().st_size for path in (data / "shop").iterdir()) / 1e6
        code = (
            "import resource, sys, time\n"
            "from tutelage_worlds.webshop import WebShop\n"
            "import numpy\n"
            "now = lambda: int(open('/proc/self/statm').read().split()[1])\n"
            "before, begin = now(), time.process_time()\n"
            "shop = WebShop(data=sys.argv[1]).shop()\n"
            "opened = time.process_time() - begin\n"
            "for i in range(200):\n    shop.search(shop.goal(i).text)\n"
            "searches = (time.process_time() - begin - opened) / 200 * 1e3\n"
            "print(opened, searches, (now() - before) * resource.getpagesize() / 1e6)"
        )
        opened, search, more = subprocess.run(
            [sys.executable, "-c", code, f"{folder}/shop"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    what = f"{products:,} products in a folder of {size:,.0f} MB"
    yield "seconds and MB at most to build", f"{seconds:.0f}, {peak:,.0f}", what
    yield "seconds to open, in each process", f"{float(opened):.2f}", what
    yield "ms for a new search", f"{float(search):.1f}", what
    yield "MB that a process adds, mapped pages included", f"{float(more):,.0f}", what


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=200, help="visits per measurement")
    parser.add_argument("--steps", type=int, default=50, help="steps per visit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--products",
        type=int,
        nargs="+",
        default=[100_000],
        help="of the shops on disk; the original has 1.18 million",
    )
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    rows: list[Row] = []
    for mode in ("text", "text_rich"):
        suite = WebShop(test=0, dev=0, mode=mode)
        what = f"{mode}, {len(suite.shop().products):,} products"
        rows += speed(suite, what, options.visits, options.steps, options.repeats)
    rows += [starts(products, options.repeats) for products in (1_000, 10_000)]
    rows += [memory_row(live) for live in LIVE]
    for products in options.products:
        rows += on_disk(products)
    print(f"Python {platform.python_version()}, one process, median of {options.repeats} (range)\n")
    print("| webshop | measured | over |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
