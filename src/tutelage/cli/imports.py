"""Ctrl-C while a command still imports torch: an exception inside of a C library's import crashes."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

IMPORTS = "<frozen importlib._bootstrap>"
TRAINING = "tutelage.runs.train"
"""Imports everything that a run needs; once it is there, a step may be going on."""


@contextlib.contextmanager
def interruptible(sentence: str, code: int) -> Iterator[None]:
    """Within the block, Ctrl-C during an import ends the process with `code`, after the sentence is
    written to stderr; at any other moment it is a KeyboardInterrupt as usual.

    Does nothing where Ctrl-C is ignored or handled already, and outside of the main thread.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: _interrupted(frame, sentence, code))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted(frame: FrameType | None, sentence: str, code: int) -> None:
    if not hasattr(sys.modules.get(TRAINING), "train") and _imports(frame):
        os.write(2, f"{sentence}\n".encode())
        os._exit(code)  # nothing has been written yet
    raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTS:
            return True
        frame = frame.f_back
    return False
