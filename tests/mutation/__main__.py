"""Insert bugs one at a time and check that a test notices each.

python -m tests.mutation                      every mutant by meaning, 200 by operators
python -m tests.mutation --n 0 maths signals  all mutants of two rooms
python -m tests.mutation --check              only name the mutants by meaning that are stale

A mutant is applied to a temporary copy of the tree, in which the tests of its room run until one
fails. What is known of a mutant is kept in .cache/mutation.json, so that an interrupted run
continues. Survivors are written to tests/mutation/survivors.json with room for an explanation. The
exit status is 1 if a mutant is stale or a survivor has no explanation.
"""

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutation import operators, semantic

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tutelage"
SURVIVORS = Path(__file__).with_name("survivors.json")
KNOWN = ROOT / ".cache" / "mutation.json"
MEMORY = 12 << 30
"""Bytes of address space of a test process: a bug may make one grow without end."""
TESTS = {
    "maths": ("tests/maths", "tests/signals", "tests/algorithms"),
    "objective": ("tests/objective", "tests/signals", "tests/algorithms", "tests/training"),
    "signals": ("tests/signals", "tests/algorithms"),
    "algorithms": ("tests/algorithms", "tests/signals", "tests/hints", "tests/objective"),
    "training": ("tests/training", "tests/objective", "tests/algorithms"),
    "rollout": ("tests/rollout", "tests/hints", "tests/runs/test_hints_resume.py"),
    "policies": ("tests/policies", "tests/training"),
    "runs": ("tests/runs",),
}
"""The tests that must notice a bug of a room, the fastest first."""


class Job(NamedTuple):
    id: str
    file: str
    was: str
    became: str
    source: str

    @property
    def tests(self) -> tuple[str, ...]:
        return TESTS[self.file.partition("/")[0]]

    @property
    def key(self) -> str:
        """Of what is known: the bug in its file, and the tests as they are."""
        digest = hashlib.sha256(self.source.encode())
        for folder in self.tests:
            path = ROOT / folder
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(file.read_bytes())
        return digest.hexdigest()


def jobs_of(
    n: int, seed: int, rooms: Sequence[str], kind: str = "both"
) -> tuple[list[Job], list[str]]:
    """What is to be run, and a line for each stale mutant. n = 0 takes all operators' mutants."""
    todo, stale = [], []
    for bug in semantic.read() if kind != "operators" else []:
        if rooms and bug.file.partition("/")[0] not in rooms:
            continue
        try:
            source = semantic.applied(bug, PACKAGE)
        except semantic.StaleError as error:
            stale.append(f"{bug.file}: {bug.name}: {error}")
            continue
        todo.append(Job(f"{bug.file}: {bug.name}", bug.file, bug.old, bug.new, source))
    if kind == "semantic":
        return todo, stale
    wanted = tuple(room for room in operators.ROOMS if not rooms or room in rooms)
    generated = operators.mutants(PACKAGE, wanted)
    if 0 < n < len(generated):
        chosen = sorted(random.Random(seed).sample(range(len(generated)), n))
        generated = [generated[k] for k in chosen]
    todo += [Job(m.id, m.file, m.was, m.became, m.source) for m in generated]
    return todo, stale


# -- running


def copy_tree(folder: Path) -> None:
    """Lay what the tests read into a folder."""
    ignore = shutil.ignore_patterns("__pycache__", "*.png", "parity")
    for part in ("src", "tests", "docs", "examples", "studies", "benchmarks", "scripts"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, folder)


def child(folder: Path, tests: tuple[str, ...]) -> None:
    """Run tests in a forked process, which has the heavy imports behind it already."""
    os.setpgrp()  # so that processes which the tests start end with it
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.path[:] = [str(folder / "src"), str(folder / "tests"), *sys.path]
    os.environ["PYTHONPATH"] = str(folder / "src")  # of commands that tests start
    import pytest

    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def run(folder: Path, tests: tuple[str, ...], seconds: float) -> tuple[int, str]:
    """Exit code of the tests, and the first that failed; a bug that hangs or kills is noticed."""
    process = mp.get_context("fork").Process(target=child, args=(folder, tests))
    process.start()
    process.join(seconds)
    if process.is_alive():
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return 1, "(did not end)"
    if (process.exitcode or 0) < 0:
        return 1, f"(ended by signal {-(process.exitcode or 0)})"
    lines = (folder / "log.txt").read_text(errors="replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return process.exitcode or 0, failed[0].split(" - ")[0] if failed else ""


def work(folder: Path, todo: Any, done: Any, seconds: float) -> None:
    """Take mutants until there are none: one process of several, with its own copy of the tree."""
    copy_tree(folder)
    for job in iter(todo.get, None):
        path = folder / "src" / "tutelage" / job.file
        clean = path.read_text(encoding="utf-8")
        path.write_text(job.source, encoding="utf-8")
        since = time.perf_counter()
        code, first = run(folder, job.tests, seconds)
        path.write_text(clean, encoding="utf-8")
        # 1: a test failed; 2: a module could not be imported any more
        done.put((job, code in (1, 2), first or f"exit {code}", time.perf_counter() - since))


def run_all(todo: Sequence[Job], processes: int, seconds: float) -> dict[str, bool]:
    """By id, whether a test noticed. What is known already is not run again."""
    known: dict[str, bool] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    noticed = {job.id: known[job.key] for job in todo if job.key in known}
    open_ = [job for job in todo if job.id not in noticed]
    print(f"{len(todo)} mutants, {len(noticed)} of them known", flush=True)
    if not open_:
        return noticed
    os.environ.update(CI="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    # of a mutant of the same second and length, Python would run the bytecode of the one before
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    import hypothesis  # noqa: F401
    import transformers.models.auto.modeling_auto
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    fork = mp.get_context("fork")
    with tempfile.TemporaryDirectory() as temporary:
        clean = Path(temporary) / "clean"
        copy_tree(clean)
        # each folder once: the rooms share most of them
        for tests in dict.fromkeys(folder for job in open_ for folder in job.tests):
            code, first = run(clean, (tests,), 4 * seconds)
            if code:
                raise SystemExit(f"without any bug the tests already fail: {first or code}")
        waiting, done = fork.Queue(), fork.Queue()
        for job in [*open_, *[None] * processes]:
            waiting.put(job)
        workers = [
            fork.Process(target=work, args=(Path(temporary) / str(k), waiting, done, seconds))
            for k in range(processes)
        ]
        for worker in workers:
            worker.start()
        for _ in open_:
            job, caught, first, took = done.get()
            known[job.key] = noticed[job.id] = caught
            KNOWN.parent.mkdir(exist_ok=True)
            KNOWN.write_text(json.dumps(known))
            verdict = "noticed" if caught else "SURVIVED"
            print(f"{verdict:9}{took:6.1f} s  {job.id}  {job.was} -> {job.became}  | {first}")
            sys.stdout.flush()
        for worker in workers:
            worker.join()
    return noticed


def write_survivors(todo: Sequence[Job], noticed: dict[str, bool]) -> list[str]:
    """Renew the list; the ids of survivors that nobody has explained. Explanations stay."""
    entries = json.loads(SURVIVORS.read_text(encoding="utf-8")) if SURVIVORS.exists() else []
    by_id = {entry["id"]: entry for entry in entries}
    for job in todo:
        before = by_id.pop(job.id, {})
        if not noticed[job.id]:
            same = before.get("was") == job.was and before.get("became") == job.became
            explanation = before["explanation"] if same else ""
            by_id[job.id] = {
                "id": job.id,
                "was": job.was,
                "became": job.became,
                "explanation": explanation,
            }
    ordered = [by_id[name] for name in sorted(by_id)]
    SURVIVORS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    return [entry["id"] for entry in ordered if not entry["explanation"]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="of " + ", ".join(TESTS))
    parser.add_argument("--kind", choices=("both", "operators", "semantic"), default="both")
    parser.add_argument("--n", type=int, default=200, help="mutants by operators; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="which are drawn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seconds", type=float, default=600, help="of the tests of one mutant")
    parser.add_argument("--check", action="store_true", help="run nothing, name what is stale")
    options = parser.parse_args()
    if unknown := sorted({*options.rooms} - {*TESTS}):
        parser.error(f"there is no room {unknown[0]}; the rooms are {', '.join(TESTS)}")
    todo, stale = jobs_of(options.n, options.seed, options.rooms, options.kind)
    for line in stale:
        print(f"stale: {line}")
    if options.check:
        return int(bool(stale))
    noticed = run_all(todo, options.jobs, options.seconds)
    unexplained = write_survivors(todo, noticed)
    caught = sum(noticed[job.id] for job in todo)
    print(
        f"{caught} of {len(todo)} mutants were noticed, {len(unexplained)} survivors have no "
        f"explanation, {len(stale)} mutants are stale"
    )
    return int(bool(stale or unexplained))


if __name__ == "__main__":
    sys.exit(main())
