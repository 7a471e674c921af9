"""Ctrl-C at the right moment: never between the first and the last change that a step makes."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tutelage.runs.torchrun import launch_of

TOGETHER = 1.0
"""Seconds within which a second Ctrl-C under torchrun is the first one, passed on."""


@contextlib.contextmanager
def delayed(tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended; a second Ctrl-C ends the block at once.

    tell  called at the first

    Under torchrun one Ctrl-C comes twice: from the terminal, and from torchrun, which passes it on.
    Elsewhere than in the main thread signals do not arrive, and where Ctrl-C is ignored or handled
    outside of Python it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed, since, passed_on = False, 0.0, launch_of() is not None

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pressed, since
        if pressed and passed_on and time.monotonic() - since < TOGETHER:
            return
        if pressed:
            before(number, frame)
        pressed, since = True, time.monotonic()
        tell()

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(signal.SIGINT, None)
