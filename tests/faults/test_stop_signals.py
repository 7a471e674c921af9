"""SIGTERM of a scheduler, SIGHUP of a closed terminal and outputs that cannot be written: a run writes
a checkpoint, and nothing half-written is left."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_runs import contents, tiny_file

from tutelage.cli.main import main

TUTELAGE = (sys.executable, "-m", "tutelage")


def until(ready: Callable[[], bool], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def going(tmp_path: Path) -> Path:
    text = tiny_file(run={"steps": 3000, "checkpoint_every": 2000}, eval={"every": 0})
    (tmp_path / "run.toml").write_text(text)
    return tmp_path


def stopped_between_checkpoints(run: Path) -> None:
    name = (run / "latest").read_text().strip()
    assert name.startswith("step-")
    assert 0 < int(name.removeprefix("step-")) < 2000
    steps = (run / "metrics.jsonl").read_bytes().count(b"\n")
    assert int(name.removeprefix("step-")) == steps


def test_sigterm_writes_a_checkpoint(going: Path) -> None:
    with subprocess.Popen(
        [*TUTELAGE, "train", "run.toml", "--quiet"], cwd=going, stderr=subprocess.PIPE, text=True
    ) as process:
        log = going / "run" / "metrics.jsonl"
        until(lambda: log.exists() and log.stat().st_size > 0)
        process.terminate()
        assert process.wait(100) == 128 + signal.SIGTERM
        assert process.stderr is not None
        message = process.stderr.read().splitlines()[-1]
    assert message.startswith("tutelage: stopped; `tutelage train run --resume` continues from")
    stopped_between_checkpoints(going / "run")


IN_BACKGROUND = 'trap "" HUP; "$@" & echo $!; wait $!'
"""A script that starts a command with `&`, which then ignores Ctrl-C from its start."""


def test_sigterm_writes_a_checkpoint_in_a_run_that_a_script_started_in_the_background(
    going: Path,
) -> None:
    with subprocess.Popen(
        ["sh", "-c", IN_BACKGROUND, "sh", *TUTELAGE, "train", "run.toml", "--quiet"],
        cwd=going,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdout is not None
        number = int(script.stdout.readline())
        log = going / "run" / "metrics.jsonl"
        until(lambda: log.exists() and log.stat().st_size > 0)
        os.kill(number, signal.SIGINT)  # the script's Ctrl-C is none of this run's
        steps = log.stat().st_size
        until(lambda: log.stat().st_size > steps)
        os.kill(number, signal.SIGTERM)
        assert script.wait(100) == 128 + signal.SIGTERM
        assert script.stderr is not None
        message = script.stderr.read().splitlines()[-1]
    assert message.startswith("tutelage: stopped; `tutelage train run --resume` continues from")
    stopped_between_checkpoints(going / "run")


def test_a_terminal_that_is_closed_ends_a_run_with_a_checkpoint(going: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:  # with the terminal as its own
        os.chdir(going)
        os.execv(sys.executable, [*TUTELAGE, "train", "run.toml"])
    log = going / "run" / "metrics.jsonl"

    def begun() -> bool:
        os.read(terminal, 1 << 16)  # or it would wait for a reader of its display
        return log.exists() and log.stat().st_size > 0

    until(begun)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    stopped_between_checkpoints(going / "run")


def test_an_output_that_nobody_reads_ends_a_run_with_a_checkpoint(going: Path) -> None:
    with subprocess.Popen(
        [*TUTELAGE, "train", "run.toml"],
        cwd=going,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step 0"):
            pass
        process.stdout.close()
        assert process.wait(100) == 1
        assert process.stderr is not None
        (message,) = process.stderr.read().splitlines()
    assert message.startswith(
        "tutelage: stopped, since the output cannot be written (Broken pipe); `tut"
    )
    stopped_between_checkpoints(going / "run")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_without_its_streams_works(run: Path, closed: str) -> None:
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$@" {closed}',
            "sh",
            *TUTELAGE,
            "convert",
            "run",
            "out",
            "--to",
            "atif",
        ],
        cwd=run.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first = (run.parent / "out").read_text().splitlines()[0]
    assert first.startswith('{"schema_version"')  # nothing that was printed


SLOW_EXPORT = """
import os, signal, sys
from tutelage.policies.hf.policy import HFPolicy

saved = HFPolicy.save

def save(self, folder):
    saved(self, folder)
    os.kill(os.getpid(), signal.SIGTERM)

HFPolicy.save = save
from tutelage.cli.main import main
sys.exit(main(["export", "run", "model"]))
"""


def test_sigterm_leaves_no_half_of_an_export(run: Path) -> None:
    before = contents(run)
    done = subprocess.run(
        [sys.executable, "-c", SLOW_EXPORT],
        cwd=run.parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "tutelage: stopped\n")
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    assert contents(run) == before


def test_the_answer_to_sigterm_ends_with_the_command() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["algorithms"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
