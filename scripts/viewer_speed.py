"""Measure the viewer on a large run folder: the index, first paint, filters. See large_run.py.

python scripts/viewer_speed.py FOLDER [--cache FOLDER] [--repeats 5]

First paint and filters are measured in Chromium (CHROMIUM, or the one on the PATH): from the
address being opened to the browser's first contentful paint and to the first row of the table, and
from a choice to the table that shows it.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import sync_playwright

from tutelage.viewer import server
from tutelage.viewer.index import Filter, Index
from tutelage.viewer.shelf import Shelf

FILTERS = {
    "lost": Filter(won=False),
    "family, steps, invalid": Filter(
        family="look_at_obj_in_light", low_step=100, high_step=400, invalid=True
    ),
    "one word": Filter(text="newspaper"),
    "four words in order": Filter(text='"go to fridge 4"'),
    "word, actor, lost": Filter(text="kettle", actor="teacher", won=False),
}

CHOICES: dict[str, Callable[[Any], object]] = {
    "choice of an outcome": lambda page: page.select_option("#won", "no"),
    "choice of a family": lambda page: page.select_option("#family", index=2),
    "a word typed (waits 100 ms for the next key)": lambda page: page.fill("#search", "kettle"),
}


def middle(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ms (at most {max(values):.0f})"


def in_browser(address: str, run: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each look, by name."""
    found: dict[str, list[float]] = {}
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def paint(name: str, where: str, rows: str) -> Any:
            page = browser.new_context().new_page()
            since = time.perf_counter()
            page.goto(f"{address}{where}")
            page.wait_for_selector(rows)
            found.setdefault(f"{name}, first row", []).append(1e3 * (time.perf_counter() - since))
            first = page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
            found.setdefault(f"{name}, first paint", []).append(first)
            return page

        for k in range(repeats):
            paint("runs", "#/", "#runs tbody tr").context.close()
            page = paint("episodes", f"#/episodes/{run}?low_step={k}", "#episodes tbody tr")
            for name, act in CHOICES.items():
                before = page.inner_text("#count")
                since = time.perf_counter()
                act(page)
                while page.inner_text("#count") == before:
                    time.sleep(0.005)
                found.setdefault(name, []).append(1e3 * (time.perf_counter() - since))
            page.context.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="keep the index here (default: a new one)")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    cache = asked.cache or Path(tempfile.mkdtemp())
    since, cpu = time.perf_counter(), time.process_time()
    index = Index(asked.folder, cache=cache)
    index.update()
    print(
        f"index of {index.count()} episodes: {time.perf_counter() - since:.0f} s, of which "
        f"{time.process_time() - cpu:.0f} s of this processor; {index.path.stat().st_size / 1e6:.0f} MB",
        flush=True,
    )
    since = time.perf_counter()
    index.update()
    print(f"again: {1e3 * (time.perf_counter() - since):.0f} ms", flush=True)
    for name, wanted in FILTERS.items():
        times = []
        for _ in range(asked.repeats):
            fresh = Index(asked.folder, cache=cache)  # one that remembers no answer
            since = time.perf_counter()
            total = fresh.search(wanted)["total"]
            times.append(1e3 * (time.perf_counter() - since))
        print(f"search, {name}: {total} episodes, {middle(times)}", flush=True)
    shelf = Shelf([asked.folder], cache=cache)
    listening = server.bound("127.0.0.1", 0)
    config = uvicorn.Config(server.application(shelf), log_level="warning", lifespan="off")
    running = uvicorn.Server(config)
    shelf.start()
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    run = next(iter(shelf.folders))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    for name, times in in_browser(address, run, asked.repeats).items():
        print(f"browser, {name}: {middle(times)}", flush=True)
    running.should_exit = True
    shelf.stop()


if __name__ == "__main__":
    main()
