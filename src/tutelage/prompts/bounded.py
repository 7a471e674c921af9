"""Render a foreign chat template within limits of time and memory."""

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SECONDS = 10.0
"""A thousand times what the slowest known template takes."""
BYTES = 512 << 20
"""By which the process may grow meanwhile."""
PATIENCE = 30
"""Times that long on the clock, on a machine that is busy with something else."""
TICK = 0.05


class _Ended(BaseException):
    """Raised inside the call, where no template can catch it."""


class TooMuch(Exception):
    """The call was ended; the text says why."""


def bounded(call: Callable[[], T], *, seconds: float = SECONDS, size: int = BYTES) -> T:
    """What a call returns. Raises TooMuch where it takes more than `seconds` of the processor, or
    the process grows by more than `size` bytes meanwhile."""
    done, lock, why = threading.Event(), threading.Lock(), list[str]()
    thread, before = threading.get_ident(), _resident()
    # of the processor, since a busy machine may give none to a template for seconds
    began, since = time.process_time(), time.monotonic()

    def watch() -> None:
        while not done.wait(TICK):
            spent = time.process_time() - began
            if spent > seconds or time.monotonic() - since > PATIENCE * seconds:
                why.append(f"it was not done after {seconds:g} s")
            elif _resident() - before > size:
                why.append(f"it took more than {size >> 20} MB")
            else:
                continue
            with lock:
                if not done.is_set():
                    target, error = ctypes.c_ulong(thread), ctypes.py_object(_Ended)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(target, error)
            return

    threading.Thread(target=watch, daemon=True).start()
    try:
        try:
            return call()
        finally:
            with lock:
                done.set()
            if why:  # it may have come too late for the call
                time.sleep(TICK)
    except _Ended:
        raise TooMuch(why[0]) from None


def _resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
