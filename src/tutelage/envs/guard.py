"""Calls into a user's environment: any exception becomes one sentence."""

import multiprocessing as mp
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tutelage.envs.base import Env, Suite
from tutelage.errors import EnvError, TutelageError
from tutelage.types import Observation, Task

T = TypeVar("T")
LONGEST_REASON: Final = 500
"""Longest message of an exception in characters: it stands in a log line for every failure."""


class Broken(EnvError):
    """An environment violated its interface; the message explains how."""


@dataclass(slots=True)
class _Now:
    """The call in progress. A supervising process is sent its name, so that it can say what
    hung."""

    tell: Callable[[str], None] = lambda what: None
    split: str = ""
    interrupts: bool = False  # whether a KeyboardInterrupt can only come from the environment


_NOW = _Now()


def listen(tell: Callable[[str], None]) -> None:
    """From now on, call `tell` with the name of every call before it is made."""
    _NOW.tell = tell


def own_process() -> None:
    """This process runs environments alone and is not interrupted from the keyboard: from now on a
    KeyboardInterrupt is one that an environment raised."""
    _NOW.interrupts = True
    # what multiprocessing starts here would be spawned too, and locks for that have names, which
    # stay behind when this process is killed
    mp.set_start_method(None, force=True)


def is_ours(error: BaseException) -> bool:
    """Whether an exception that came out of a user's code is not the user's: Ctrl-C."""
    # by its type itself: `__class__` may be a property of the user's
    return issubclass(type(error), KeyboardInterrupt) and not _NOW.interrupts


def attempt(what: str, call: Callable[[], T]) -> T:
    """Call a user's code, which may raise anything, even SystemExit: any exception becomes `Broken`
    with a sentence. The library's own errors pass through: they are sentences already."""
    _NOW.tell(f"{_NOW.split}{what}")
    try:
        return waited_for(call())
    except TutelageError:
        raise
    except BaseException as error:
        if is_ours(error):
            raise
        raise Broken(f"{what} raised {described(error)}{_where(error)}") from error


def waited_for(value: T) -> T:
    """What a user's code returned. Raises TypeError for what an `async` function returns: nobody
    waits for it here."""
    if isinstance(value, Coroutine):
        value.close()  # Python would say on the console that it was never awaited
        raise TypeError(
            "it is async; write it without `async`, and run what it awaits with asyncio.run"
        )
    return value


def described(error: BaseException) -> str:
    """An exception's type and message in one line, also where its own methods raise.

    >>> described(ValueError("two" + chr(10) + "lines"))
    'ValueError: two lines'
    """
    try:
        name = one_line(type(error).__name__)
    except BaseException as worse:
        if is_ours(worse):
            raise
        name = "an exception"
    try:
        message = one_line(str(error))
    except BaseException as worse:
        if is_ours(worse):
            raise
        message = "its message cannot be printed"
    return f"{name}: {message}"


def one_line(text: str, most: int = LONGEST_REASON) -> str:
    """A text as one printable line of at most `most` characters, which can be written as UTF-8.

    >>> one_line("a" * 600)[-30:]
    'aaaa (100 more characters cut)'
    """
    # str's own method: a subclass may have another
    head = str.__getitem__(text, slice(0, most)).encode(errors="replace").decode()
    line = "".join(c if c.isprintable() else " " for c in head)
    more = str.__len__(text) - most
    return f"{line} ({more} more characters cut)" if more > 0 else line


def _where(error: BaseException) -> str:
    """The place in the user's code that raised; empty where none of it ran."""
    trace = error.__traceback__
    if trace is None or trace.tb_next is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return "" if Path(file).parent == Path(__file__).parent else f" ({file}:{trace.tb_lineno})"


def reason(error: BaseException) -> str:
    """What an exception says and where it was raised, if in a user's code."""
    if issubclass(type(error), TutelageError):
        return one_line(str(error), 4 * LONGEST_REASON)  # a sentence already
    return f"{described(error)}{_where(error)}"


def close(env: Env) -> str:
    """Close an environment whose episode is over. A failure no longer affects the episode, so it is
    returned as a sentence; empty if there was none."""
    try:
        attempt("close", env.close)
    except TutelageError as error:
        return str(error)
    return ""


@contextmanager
def open_env(suite: Suite) -> Iterator[Env]:
    """An environment of a suite, which is closed at the end, also where a call into it raised."""
    env = attempt("make", suite.make)
    try:
        yield env
    finally:
        close(env)


def first_observation(suite: Suite, task: Task) -> Observation:
    """What an environment of its own shows of a task at first."""
    with open_env(suite) as env:
        return attempt(f"reset to {task.id}", partial(env.reset, task))
