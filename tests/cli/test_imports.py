"""Ctrl-C while a command imports."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.cli.imports import Interrupts, interruptible

SLOW = "import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(60)\n"
PROGRAM = """
import sys
from tutelage.cli.imports import Interrupts, interruptible
with interruptible("stopped", Interrupts()):
    import slow_to_import
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_ctrl_c_within_an_import_is_one_sentence(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW.format(name=name))
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, "stopped\n")


@pytest.mark.parametrize("module", ["tutelage.errors", "argparse", "tutelage.cli.main"])
def test_ctrl_c_while_the_command_line_itself_is_imported_is_one_sentence(module: str) -> None:
    """Pressed right after the import of a module that the command line needs."""
    command = [sys.executable, "-X", "importtime", "-m", "tutelage", "doctor"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.split()[-1:] == [module]:
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    rest = [line for line in lines if not line.startswith("import time:")]
    assert rest == ["tutelage: stopped\n"]


def test_ctrl_c_elsewhere_is_an_interrupt_as_usual() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible("stopped", Interrupts()):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
