"""Break the core on purpose, one bug at a time: every one must be caught by its tests.

    python tests/mutants.py            all of them, a line each; exit code 1 if one survives
    python tests/mutants.py credit     those whose file or name contains a word

Each is applied to a temporary copy of the tree, and reverted there.
"""

import argparse
import multiprocessing as mp
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

ROOT = Path(__file__).parents[1]
RAW = argparse.RawDescriptionHelpFormatter
MEMORY = 12 << 30
"""Bytes that a test process may ask for: a bug may make one grow without end."""
SECONDS = 600
"""After which a mutant that made its tests hang counts as caught, as does one that ends them."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: `old` becomes `new`, once, in src/tutelage/`file`."""

    file: str
    name: str
    old: str
    new: str
    tests: tuple[str, ...]


def load() -> list[Mutant]:
    """All of them. The lists are long, so they live beside this file, by area."""
    import mutations

    modules = [import_module(f"mutations.{m.name}") for m in iter_modules(mutations.__path__)]
    return [
        Mutant(file, name, old, new, tests)
        for module in modules
        for file, (tests, bugs) in module.BUGS.items()
        for name, old, new in bugs
    ]


def apply(mutant: Mutant, source: Path) -> str:
    """The file with the bug in it. Raises ValueError where `old` is not there exactly once."""
    text = (source / "src" / "tutelage" / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times")
    return text.replace(mutant.old, mutant.new)


def _child(folder: Path, tests: tuple[str, ...], log: Path) -> None:
    """Run tests in a forked process, which has the heavy imports behind it already."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ["PYTHONPATH"] = str(folder / "src")  # of commands that tests start
    import pytest

    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def run(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Exit code of the tests and the first that failed."""
    log = folder / "log.txt"
    process = mp.get_context("fork").Process(target=_child, args=(folder, tests, log))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return 1, "(hung)"
    if (process.exitcode or 0) < 0:
        return 1, f"(ended by signal {-(process.exitcode or 0)})"
    lines = log.read_text(errors="replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return process.exitcode or 0, failed[0].split(" - ")[0] if failed else ""


def copied(folder: Path) -> None:
    """Lay what the tests need into a folder: some hold pages against the code."""
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.png", "parity")
    for part in ("src", "tests", "docs", "examples", "studies", "benchmarks"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, folder)


def verdict(m: Mutant, folder: Path) -> tuple[bool, str]:
    """Whether the tests notice a bug, and a line that says so."""
    since = time.perf_counter()
    path = folder / "src" / "tutelage" / m.file
    clean = path.read_text()
    try:
        path.write_text(apply(m, folder))
        code, first = run(folder, m.tests)
    except ValueError as error:
        code, first = 0, str(error)
    path.write_text(clean)
    said = {0: "SURVIVED", 1: "caught"}.get(code, f"exit {code}")
    seconds = time.perf_counter() - since
    return code == 1, f"{said:9}{seconds:6.1f} s  {m.file}: {m.name}  | {first}"


def work(folder: Path, todo: Any, done: Any) -> None:
    """Take bugs until there are none. One process of several, with a copy of the tree to itself."""
    copied(folder)
    for m in iter(todo.get, None):
        done.put(verdict(m, folder))


def main(words: list[str], jobs: int) -> int:
    os.environ.update(CI="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    sys.dont_write_bytecode = True
    import hypothesis  # noqa: F401
    import transformers.models.auto.modeling_auto
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    chosen = [m for m in load() if all(word in f"{m.file} {m.name}" for word in words)]
    fork, survived = mp.get_context("fork"), 0
    with tempfile.TemporaryDirectory() as temporary:
        first = Path(temporary) / "clean"
        copied(first)
        code, failed = run(first, tuple(sorted({test for m in chosen for test in m.tests})))
        if code:
            print(f"without any bug the tests already fail: {failed or code}")
            return 1
        todo, done = fork.Queue(), fork.Queue()
        for m in [*chosen, *[None] * jobs]:
            todo.put(m)
        workers = [
            fork.Process(target=work, args=(Path(temporary) / str(i), todo, done))
            for i in range(jobs)
        ]
        for worker in workers:
            worker.start()
        for _ in chosen:
            caught, line = done.get()
            survived += not caught
            print(line, flush=True)
        for worker in workers:
            worker.join()
    print(f"{len(chosen)} mutants, {survived} not caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("words", nargs="*", help="only bugs whose file or name has all of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    given = parser.parse_args()
    sys.exit(main(given.words, given.jobs))
