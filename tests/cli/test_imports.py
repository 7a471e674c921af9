"""Ctrl-C while a command imports."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.cli.imports import interruptible

SLOW = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
PROGRAM = """
import sys
from tutelage.cli.imports import interruptible
with interruptible("stopped", 130):
    import slow_to_import
"""


def test_ctrl_c_within_an_import_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_ctrl_c_elsewhere_is_an_interrupt_as_usual() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible("stopped", 130):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
