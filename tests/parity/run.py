"""The large comparison behind docs/parity.md: the same games and moves in both engines, by the
ten thousand.

    PYTHONPATH=src:tests python -m parity.run --report docs/parity.md

Every finished game is one line of the log, so a run that was stopped goes on where it was; lines
made by other code than today's do not count. Exits with 1 if the engines differ anywhere.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from parity.compare import Walk, play, shrink, sources_for
from parity.games import case, make
from parity.reference import ReferenceGame, cached, missing
from parity.report import render
from tutelage_worlds.household import GameFileError, read

ENGINE = Path(__file__).parents[2] / "src" / "tutelage_worlds" / "household"
HERE = Path(__file__).parent
BESIDES = frozenset({"__init__.py", "suite.py", "render.py", "report.py"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One game to play: number `number` of the made ones, or the file at `path`."""

    name: str
    form: str
    number: int
    path: str
    steps: int
    stock: bool


class WalkRecord(TypedDict):
    """A `Walk` for the log."""

    source: str
    steps: int
    valid: int
    wins: int
    mismatch: bool


class Record(TypedDict):
    """What came of a job. `refused` says which side does not play the file and why, or nothing."""

    name: str
    form: str
    job: str
    walks: list[WalkRecord]
    mismatch: str
    refused: str
    seconds: float
    fingerprint: str


def jobs(options: argparse.Namespace) -> list[Job]:
    """The made games, then the published files."""
    steps = -(-options.steps // max(1, options.games))
    outputs = [
        Job(name=c.name, form=c.form, number=c.number, path="", steps=steps, stock=options.stock)
        for c in map(case, range(options.games))
    ]
    if not options.published:
        return outputs
    files = sorted(Path(options.published).rglob("game.tw-pddl"))
    if not files:
        raise SystemExit(f"No game.tw-pddl lies below {options.published}: give another folder.")
    return outputs + [
        Job(
            name=path.parent.relative_to(options.published).as_posix(),
            form="published",
            number=number,
            path=str(path),
            steps=steps,
            stock=options.stock,
        )
        for number, path in enumerate(files)
    ]


def fingerprint() -> str:
    """Of the engine, the games and the walks: of all code that decides what is compared."""
    digest = hashlib.sha256()
    for path in [*sorted(ENGINE.glob("*.py")), *sorted(HERE.glob("*.py"))]:
        if path.name not in BESIDES and not path.name.startswith("test_"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def do(job: Job, code: str) -> Record:
    """Play a job; `code` is the fingerprint under which it counts."""
    if fingerprint() != code:  # workers are started all through a run
        raise RuntimeError(
            "The code changed during the run: start it again to compare the new one."
        )
    begun = time.process_time()
    walks: list[Walk] = []
    differences: list[str] = []
    with tempfile.TemporaryDirectory() as folder, nullcontext() if job.stock else cached():
        path = Path(job.path) if job.path else make(case(job.number), Path(folder))
        refused = unplayable(path)
        if not refused:
            walks = play(path, sources_for(job.number, job.steps), job.number)
            differences = [explain(path, walk) for walk in walks if walk.mismatch]
    return Record(
        name=job.name,
        form=job.form,
        job=json.dumps(asdict(job), sort_keys=True),
        walks=[
            WalkRecord(
                source=walk.source,
                steps=walk.steps,
                valid=walk.valid,
                wins=walk.wins,
                mismatch=walk.mismatch is not None,
            )
            for walk in walks
        ],
        mismatch="\n".join(differences),
        refused=refused,
        seconds=round(time.process_time() - begun, 2),
        fingerprint=code,
    )


def unplayable(path: Path) -> str:
    """Which engine does not play a published file: "TextWorld", "ours" or "both"; "" if both do."""
    reference = ours = False
    try:
        ReferenceGame(path).close()
    except (KeyError, SystemExit):  # an unreachable goal; a predicate that is not declared
        reference = True
    try:
        read(path)
    except GameFileError:
        ours = True
    return {(0, 0): "", (1, 0): "TextWorld", (0, 1): "ours", (1, 1): "both"}[reference, ours]


def explain(path: Path, walk: Walk) -> str:
    """A difference and the shortest way to see it."""
    if walk.mismatch is None:
        return ""
    return f"{walk.mismatch}\n  short: {list(shrink(path, walk.mismatch.actions))}"


def finished(log: Path, wanted: Iterable[Job], code: str) -> dict[str, Record]:
    """The records of this very comparison that an earlier run left behind, by job name."""
    names = {json.dumps(asdict(job), sort_keys=True): job.name for job in wanted}
    found: dict[str, Record] = {}
    if not log.exists():
        return found
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            record: Record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the run was stopped while it wrote this line
        if record["job"] in names and record["fingerprint"] == code:
            found[names[record["job"]]] = record
    return found


def results(todo: list[Job], processes: int, code: str) -> Iterator[Record]:
    """The records as they come. TextWorld leaves memory behind, so workers do not live long.

    A pool of `multiprocessing`: replacing workers, the one of `concurrent.futures` can wait for
    ever on Python 3.11 (https://github.com/python/cpython/issues/115634).
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=40) as pool:
        yield from pool.imap_unordered(partial(do, code=code), todo)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the household with TextWorld.")
    parser.add_argument("--games", type=int, default=310, help="made games to play")
    parser.add_argument("--steps", type=int, default=30_000, help="moves in them, at least")
    parser.add_argument("--published", default="", help="a folder of official game.tw-pddl files")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--stock", action="store_true", help="TextWorld as installed, slower")
    parser.add_argument("--log", type=Path, default=Path("build/parity.jsonl"))
    parser.add_argument("--report", type=Path, help="where the table goes; else to the screen")
    options = parser.parse_args(arguments)
    if options.games < 1 or options.steps < 1 or options.processes < 1:
        parser.error("--games, --steps and --processes count from 1.")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if reason := missing():
        raise SystemExit(reason)
    wanted, code = jobs(options), fingerprint()
    done = finished(options.log, wanted, code)
    todo = [job for job in wanted if job.name not in done]
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with options.log.open("a", encoding="utf-8") as log:
        for record in results(todo, options.processes, code):
            log.write(json.dumps(record) + "\n")
            log.flush()
            done[record["name"]] = record
            if record["mismatch"]:
                sys.stderr.write(f"{record['mismatch']}\n")
            elif len(done) % 20 == 0:
                sys.stderr.write(f"{len(done)} of {len(wanted)} games\n")
    records = [done[job.name] for job in wanted]
    text = render(records, stock=options.stock)
    if options.report is None:
        sys.stdout.write(text)
    else:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(text, encoding="utf-8")
    return int(any(record["mismatch"] for record in records))


if __name__ == "__main__":
    sys.exit(main())
