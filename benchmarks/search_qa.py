"""How fast Search-QA is: start, steps, resets, searches of every retriever, HTTP, memory.

    OMP_NUM_THREADS=1 python benchmarks/search_qa.py

prints a table in Markdown. A step is one action of the reader's walk; walks are played once before
they are measured, so that their searches are remembered, as those of a group's episodes are. New
searches are measured apart. Seconds are seconds of the processor, so that neighbours on the machine
matter less, of client and server together for HTTP; a retriever whose package is not installed is
left out.
"""

import argparse
import importlib.util
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

from tutelage_worlds.search_qa import SearchQA
from tutelage_worlds.search_qa.client import Remote
from tutelage_worlds.search_qa.env import Library
from tutelage_worlds.search_qa.passages import Corpus
from tutelage_worlds.search_qa.retrieval import DENSE, ENGINES, TOP, Local, build
from tutelage_worlds.search_qa.server import Server
from tutelage_worlds.search_qa.world import world

LIVE = (1, 64, 1024)
Row = tuple[str, str, str]


def timed(act: Callable[[], int], repeats: int) -> str:
    """How many things a second `act` does: the median and the range of the repeats."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        count = act()
        rates.append(count / (time.process_time() - start))
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def play(visits: int, repeats: int) -> Iterator[Row]:
    suite = SearchQA(retriever="lucene")
    tasks = suite.tasks("train")[:visits]
    walks = [suite.demonstrate(task) for task in tasks]
    env = suite.make()

    def steps() -> int:
        for task, walk in zip(tasks, walks, strict=True):
            env.reset(task)
            for action in walk:
                env.step(action)
        return sum(map(len, walks))

    def resets() -> int:
        for task in tasks:
            env.reset(task)
        return len(tasks)

    def experts() -> int:
        for task in tasks:
            suite.demonstrate(task)
        return len(tasks)

    steps()
    over = f"{visits} visits, 2,400 passages"
    yield "steps/s, resets included", timed(steps, repeats), over
    yield "resets/s", timed(resets, repeats), over
    yield "demonstrations/s", timed(experts, repeats), over


def retrievers(corpus: Corpus, queries: list[str], repeats: int) -> Iterator[Row]:
    for engine in ENGINES:
        if engine != "lucene" and importlib.util.find_spec(engine) is None:
            continue
        start = time.process_time()
        local = build(corpus, engine, encoder="hashed" if engine in DENSE else "")
        seconds = time.process_time() - start

        def find(local: Local = local) -> int:
            for query in queries:
                local.search([query], TOP)
            return len(queries)

        rate = timed(find, repeats)
        over = f"{len(corpus):,} passages; built in {seconds:.1f} s"
        yield f"new searches/s, {engine}", rate, over


def served(corpus: Corpus, queries: list[str], repeats: int) -> Iterator[Row]:
    with Server(build(corpus, "lucene"), port=0) as server:
        for dialect in ("queries", "query"):
            remote = Remote(server.address, dialect=dialect)

            def ask(remote: Remote = remote) -> int:
                for query in queries:
                    remote.search([query], TOP)
                return len(queries)

            rate = timed(ask, repeats)
            yield (
                f'searches/s over loopback, dialect "{dialect}"',
                rate,
                f"{len(corpus):,} passages",
            )


def memory(live: int) -> Row:
    suite = SearchQA(retriever="lucene")
    tasks = suite.tasks("train")[:live]
    walks = [suite.demonstrate(task) for task in tasks]
    library: Library = suite.library()
    library.find("river")
    tracemalloc.start()
    envs = []
    for task, walk in zip(tasks, walks, strict=True):
        env = suite.make()
        env.reset(task)
        for action in walk[:-1]:
            env.step(action)
        envs.append(env)
    used = tracemalloc.get_traced_memory()[0] / 1024 / len(envs)
    tracemalloc.stop()
    return f"KiB per live visit, {live} of them", f"{used:.1f}", "after its searches"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=300, help="visits per measurement")
    parser.add_argument("--queries", type=int, default=200, help="searches per measurement")
    parser.add_argument("--passages", type=int, default=20_000, help="of the larger corpus")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = list(play(options.visits, options.repeats))
    rows += [memory(live) for live in LIVE]
    for count in (2_400, options.passages):
        corpus = world("full", count, 0).passages
        asked = SearchQA(passages=count, train=options.queries)
        queries = [asked.describe(task) for task in asked.tasks("train")]
        rows += retrievers(corpus, queries, options.repeats)
        if count == 2_400:
            rows += served(corpus, queries, options.repeats)
    print(f"Python {platform.python_version()}, one process, median of {options.repeats} (range)\n")
    print("| search_qa | measured | over |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
