"""Ctrl-C at the right moment: never between the first and the last change that a step makes.

A process that a script starts with `&` ignores Ctrl-C from its start. SIGTERM then asks it to stop.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tutelage.runs.torchrun import launch_of

TOGETHER = 1.0
"""Seconds within which a second Ctrl-C under torchrun is the first one, passed on."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came to one of several ranks: from torchrun, since another rank ended or a scheduler
    ends the job, or from the rank's own watch."""


@dataclass(slots=True)
class _Asked:
    by: int = signal.SIGINT


_ASKED = _Asked()


def asked_by() -> int:
    """The signal that asks this process to stop, whose handler decides when that is."""
    return _ASKED.by


@contextlib.contextmanager
def asking(number: int) -> Iterator[None]:
    """Within the block, another signal asks this process to stop."""
    before, _ASKED.by = _ASKED.by, number
    try:
        yield
    finally:
        _ASKED.by = before


@contextlib.contextmanager
def delayed(tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended; a second Ctrl-C ends the block at once.

    tell  called at the first

    Under torchrun one Ctrl-C comes twice: from the terminal, and from torchrun, which passes it on.
    Elsewhere than in the main thread signals do not arrive, and where Ctrl-C is ignored or handled
    outside of Python it stays so.
    """
    asked = asked_by()
    before = signal.getsignal(asked)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    if isinstance(before, Held):  # which waits for longer
        yield
        return
    pressed, since, passed_on = 0, 0.0, launch_of() is not None

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pressed, since
        if pressed and passed_on and time.monotonic() - since < TOGETHER:
            return
        if pressed:
            before(number, frame)
        pressed, since = number, time.monotonic()
        tell()

    signal.signal(asked, hold)
    try:
        yield
    finally:
        signal.signal(asked, before)
    if pressed:
        before(pressed, None)


@dataclass(slots=True, kw_only=True, eq=False, repr=False)  # Python hashes and prints handlers
class Held:
    """Answers Ctrl-C, which others find in `pressed`; a second one goes on to who answered before.

    tell  called at the first
    """

    before: Callable[[int, FrameType | None], Any]
    tell: Callable[[], None]
    pressed: bool = False
    since: float = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.pressed:
            self.pressed, self.since = True, time.monotonic()
            self.tell()
        elif time.monotonic() - self.since > TOGETHER:  # else it is the first one, passed on
            self.before(number, frame)


@contextlib.contextmanager
def held(tell: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back, in a run whose ranks have to end together, and say whether it was pressed; a
    second Ctrl-C ends the block at once. On a rank that ignores it, it never was.

    tell  called at the first
    """
    asked = asked_by()
    before = signal.getsignal(asked)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    answer = Held(before=before, tell=tell)
    signal.signal(asked, answer)
    try:
        yield lambda: answer.pressed
    finally:
        signal.signal(asked, before)
