"""Ctrl-C, and what schedulers and closed terminals send: a command ends as it should.

While a command still imports torch, an exception inside of a C library's import would crash.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

IMPORTS = "<frozen importlib._bootstrap>"
TRAINING = "tutelage.runs.train"
"""Imports everything that a run needs; once it is there, a step may be going on."""


STOPS = ("SIGTERM", "SIGHUP")
"""Sent by schedulers whose time is over, and by a terminal that is closed."""


@dataclass(slots=True)
class Interrupts:
    """How a process is asked to end: the exit code that it then has, 128 + the signal's number."""

    code: int = 128 + signal.SIGINT


@contextlib.contextmanager
def interruptible(sentence: str, found: Interrupts) -> Iterator[None]:
    """Within the block, Ctrl-C during an import ends the process, after the sentence is written to
    stderr; at any other moment it is a KeyboardInterrupt as usual. SIGTERM and SIGHUP do what Ctrl-C
    does, so that a run writes a checkpoint and nothing half-written is left.

    Does nothing where Ctrl-C is ignored or handled already, outside of the main thread, and for
    SIGTERM on one of several ranks, which the launcher sends where another rank has failed.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    terminals = [handle for handle in (1, 2) if os.isatty(handle)]

    def stop(number: int, frame: FrameType | None) -> None:
        found.code = 128 + number
        if number != signal.SIGTERM:  # the terminal is gone, and printing to it would be an error
            for handle in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
        answer = signal.getsignal(signal.SIGINT)  # of a step under way, which ends first
        if callable(answer):
            answer(signal.SIGINT, frame)

    signal.signal(signal.SIGINT, lambda number, frame: _interrupted(frame, sentence, found))
    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    taken = [
        n for n in numbers if signal.getsignal(n) is signal.SIG_DFL and "RANK" not in os.environ
    ]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupted(frame: FrameType | None, sentence: str, found: Interrupts) -> None:
    if not hasattr(sys.modules.get(TRAINING), "train") and _imports(frame):
        os.write(2, f"{sentence}\n".encode())
        os._exit(found.code)  # nothing has been written yet
    raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTS:
            return True
        frame = frame.f_back
    return False
