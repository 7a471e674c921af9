"""All layers of SmolLM2-135M on a GPU: SFT, then a reward or a teacher from a checkpoint of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from studies import command
from tutelage.rollout import record
from tutelage.runs import checkpoint

FILES = Path(__file__).with_name("whole")
FOLDER = Path("runs/study/pretrained/whole")
FIRST, TAUGHT = "sft", ("opd", "guided_opd")
AFTER = ("grpo", *TAUGHT)
"""The runs by the name of their file: SFT, and those that begin from a checkpoint of it."""
ROOM = (0.3, 0.7)
"""Success of an early checkpoint from which on it is a student with room to learn, and to which."""
GRACE = 30.0
"""Seconds that an interrupted run has to write its last checkpoint."""


def run(
    seconds: float,
    overrides: Sequence[str] = (),
    folder: Path = FOLDER,
    only: Sequence[str] = AFTER,
) -> int:
    """SFT, then the runs of `only` one after another, until `seconds` are over.

    SFT goes to its end where a run has it as a teacher, else until there is a student: the first
    checkpoint of SFT with a success of at least ROOM[0], of which a success above ROOM[1] is told.
    Without one, the last checkpoint is the student.
    """
    until = time.monotonic() + seconds
    student = folder / "student"
    shutil.rmtree(student, ignore_errors=True)
    first = start(FIRST, overrides, folder)
    seen: list[float] = []
    taught = any(name in TAUGHT for name in only)
    while first.poll() is None and time.monotonic() < until and (taught or not student.exists()):
        time.sleep(0.2)
        take_student(folder / FIRST, student, seen)
    stopped = stop([first], GRACE)
    take_student(folder / FIRST, student, seen)
    if not student.exists() and (stopped or first.returncode):
        command.say(f"SFT did not end: {folder / FIRST}.log")
        return 1
    if not student.exists():
        keep_checkpoint(newest(folder / FIRST), student)
    learn_from(student, only, until, overrides, folder)
    return 0


def learn_from(
    student: Path, only: Sequence[str], until: float, overrides: Sequence[str], folder: Path
) -> None:
    """The runs of `only` one after another; none begins after `until`, a time of the monotonic
    clock, at which the one that runs is stopped."""
    for k, name in enumerate(only):
        if time.monotonic() >= until:
            command.say(f"no time is left for {', '.join(only[k:])}")
            return
        placed = [f"policy.model={student}"]
        if name in TAUGHT:
            placed.append(f"policies.teacher.model={folder / FIRST}")
        each = start(name, [*overrides, *placed], folder)
        while each.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        stop([each], GRACE)


def start(name: str, overrides: Sequence[str], folder: Path) -> "subprocess.Popen[bytes]":
    """A run of one file, with its console in a file beside its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / name, ignore_errors=True)
    words = [f"run.folder={folder / name}", *overrides]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tutelage", "train", str(FILES / f"{name}.toml"), *words],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def take_student(sft: Path, to: Path, seen: list[float]) -> None:
    """Keep the checkpoint of the first evaluation with enough success, while it is there."""
    evaluations = sft / "evals.jsonl"
    if to.exists() or not evaluations.exists():
        return
    for line in list(record.read(evaluations))[len(seen) :]:
        success, step = int(str(line["won"])) / int(str(line["n"])), int(str(line["step"]))
        source = sft / checkpoint.FOLDER / f"step-{step:06d}"
        if success >= ROOM[0] and step and not (source / checkpoint.STATE).exists():
            return  # it is written after the evaluation
        seen.append(success)
        if success >= ROOM[0] and step:
            note = "" if success <= ROOM[1] else ", which leaves little room"
            command.say(f"the student is SFT's step {step}, success {success:.0%}{note}")
            keep_checkpoint(source, to)
            return


def newest(run_folder: Path) -> Path:
    """The last checkpoint of a run."""
    return run_folder / checkpoint.FOLDER / checkpoint.names(run_folder)[-1]


def keep_checkpoint(source: Path, to: Path) -> None:
    """Its model without the optimiser's state, by links: the run deletes old checkpoints."""
    part = to.with_name(f"{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for file in source.iterdir():
        if file.name not in ("optimizer.safetensors", "state.json"):
            os.link(file, part / file.name)
    part.rename(to)


def stop(running: Sequence["subprocess.Popen[bytes]"], grace: float) -> bool:
    """Interrupt what still runs, as Ctrl-C does; whether there was any."""
    late = [each for each in running if each.poll() is None]
    for each in late:
        each.send_signal(signal.SIGINT)
    until = time.monotonic() + grace
    for each in late:
        try:
            each.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()
    return bool(late)
