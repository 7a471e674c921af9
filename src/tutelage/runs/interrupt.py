"""Ctrl-C at the right moment: never between the first and the last change that a step makes."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def delayed(tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended; a second Ctrl-C ends the block at once.

    tell  called at the first

    Elsewhere than in the main thread signals do not arrive, and where Ctrl-C is ignored or handled
    outside of Python it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            before(number, frame)
        pressed = True
        tell()

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(signal.SIGINT, None)
