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
from typing import Any

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
    does, so that a run writes a checkpoint and nothing half-written is left. Where Ctrl-C is ignored,
    as in what a script starts with `&`, it stays so, and SIGTERM and SIGHUP do the same.

    Does nothing where Ctrl-C is handled already, outside of the main thread, and for SIGTERM on one of
    several ranks, which the launcher sends where another rank has failed.
    """
    before: dict[int, Any] = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    if "RANK" not in os.environ:
        before |= {n: h for n in numbers if (h := signal.getsignal(n)) is signal.SIG_DFL}
    asked: int = signal.SIGINT
    usual: object = signal.default_int_handler
    if before[signal.SIGINT] is signal.SIG_IGN:
        del before[signal.SIGINT]
        asked, usual = signal.SIGTERM, signal.SIG_DFL
    main = threading.current_thread() is threading.main_thread()
    if not main or before.get(asked) is not usual:
        yield
        return

    terminals = [handle for handle in (1, 2) if os.isatty(handle)]

    def answer(number: int, frame: FrameType | None) -> None:
        found.code = 128 + number
        _interrupted(frame, sentence, found)

    def pass_on(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM:  # the terminal is gone, and printing to it would be an error
            for handle in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
        now = signal.getsignal(asked)  # of a step under way, which ends first
        if callable(now):
            now(number, frame)

    for number in before:
        signal.signal(number, answer if number == asked else pass_on)
    try:
        with _asking(asked):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _asking(number: int) -> contextlib.AbstractContextManager[None]:
    """Tell runs which signal asks them to stop, if it is not Ctrl-C's."""
    if number == signal.SIGINT:
        return contextlib.nullcontext()
    from tutelage.runs.interrupt import asking  # every command would wait for it

    return asking(number)


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
