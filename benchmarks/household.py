"""How fast the household is: steps, resets, memory, and TextWorld on the same games if installed.

    OMP_NUM_THREADS=1 python benchmarks/household.py

prints a table in Markdown. A step is one admissible command drawn at random, with the answer, the
list of admissible commands and the test of the goal; TextWorld plays the very same commands in the
same process. Seconds are seconds of the processor, so that neighbours on the machine matter less.
"""

import argparse
import importlib.util
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tutelage_worlds.household import Game, Household, Scene, generate, write

REFERENCE = Path(__file__).parents[1] / "tests" / "parity" / "reference.py"
SIZES = ("small", "full")
Row = tuple[str, str, str]


def commands(scene: Scene, steps: int, seed: int) -> list[str]:
    """A random walk of admissible commands."""
    rng, game, walk = random.Random(seed), Game(scene), []
    for _ in range(steps):
        walk.append(rng.choice(game.admissible()))
        game.step(walk[-1])
    return walk


def timed(act: Callable[[], int], repeats: int) -> str:
    """How many things a second `act` does: the median and the range of the repeats."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        count = act()
        rates.append(count / (time.process_time() - start))
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def speed(size: str, games: int, steps: int, repeats: int) -> Iterator[Row]:
    tasks = Household(train=games, size=size).tasks("train")
    scenes = [generate("train", task.seed, size) for task in tasks]
    walks = [commands(scene, steps, seed) for seed, scene in enumerate(scenes)]

    def play() -> int:
        for scene, walk in zip(scenes, walks, strict=True):
            game = Game(scene)
            for command in walk:
                game.step(command)
                game.admissible()
                _ = game.won
        return games * steps

    env = Household(train=games, size=size).make()

    def observe() -> int:
        for task, walk in zip(tasks, walks, strict=True):
            env.reset(task)
            for command in walk:
                env.step(command)
        return games * steps

    def begin() -> int:
        for task in tasks:
            env.reset(task)
        return games

    yield f"steps/s, engine, {size}", timed(play, repeats), f"{games} games x {steps} steps"
    yield f"steps/s, environment, {size}", timed(observe, repeats), f"{games} games x {steps} steps"
    yield f"resets/s, new game each time, {size}", timed(begin, repeats), f"{games} games"


def memory(size: str, games: int) -> None:
    """Print how many KiB of memory a live game takes that was played for 30 steps."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    live = []
    for seed in range(games):
        scene = generate("train", seed, size)
        game = Game(scene)
        rng = random.Random(seed)
        for _ in range(30):
            game.step(rng.choice(game.admissible()))
        live.append(game)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / len(live))


def memory_row(size: str, games: int) -> Row:
    command = [sys.executable, __file__, "--memory", size, "--games", str(games)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"KiB per live game, {size}", f"{float(output):,.0f}", f"{games} games, 30 steps each"


def textworld(size: str, games: int, steps: int, repeats: int) -> Iterator[Row]:
    """The same games and commands in TextWorld and here, in turns."""
    spec = importlib.util.spec_from_file_location("reference", REFERENCE)
    if spec is None or spec.loader is None:
        return
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    if reason := reference.missing():
        print(f"TextWorld was not measured: {reason}.\n")
        return
    scenes = [generate("train", seed, size) for seed in range(games)]
    walks = [commands(scene, steps, seed) for seed, scene in enumerate(scenes)]
    with tempfile.TemporaryDirectory() as folder:
        theirs = []
        for i, scene in enumerate(scenes):
            path = Path(folder) / f"{i}.tw-pddl"
            write(scene, path, *reference.find_domain())
            theirs.append(reference.ReferenceGame(path))
        ratios, rates = [], []
        for _ in range(repeats):
            start = time.process_time()
            for game, walk in zip(theirs, walks, strict=True):
                game.reset()
                for command in walk:
                    game.step(command)
            middle = time.process_time()
            for scene, walk in zip(scenes, walks, strict=True):
                ours = Game(scene)
                for command in walk:
                    ours.step(command)
                    ours.admissible()
                    _ = ours.won
            end = time.process_time()
            rates.append(games * steps / (middle - start))
            ratios.append((middle - start) / (end - middle))
    rate = f"{statistics.median(rates):,.1f} ({min(rates):,.1f} to {max(rates):,.1f})"
    ratio = f"{statistics.median(ratios):,.0f} ({min(ratios):,.0f} to {max(ratios):,.0f})"
    what = f"{games} games x {steps} steps, one reset each"
    yield f"steps/s, TextWorld, {size}", rate, what
    yield f"times as fast as TextWorld, {size}", ratio, what


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--games", type=int, default=200, help="games per measurement")
    parser.add_argument("--steps", type=int, default=50, help="steps per game")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--live", type=int, default=1000, help="games alive at once")
    parser.add_argument("--memory", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory(options.memory, options.games)
        return
    rows: list[Row] = []
    for size in SIZES:
        rows += speed(size, options.games, options.steps, options.repeats)
        rows.append(memory_row(size, options.live))
    for size in SIZES:
        rows += textworld(size, 4, min(options.steps, 20), options.repeats)
    print(f"Python {platform.python_version()}, one process, median of {options.repeats} (range)\n")
    print("| household | measured | over |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
