"""Calls into a user's environment: any exception becomes one sentence."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tutelage.envs.base import Env
from tutelage.errors import EnvError, TutelageError

T = TypeVar("T")


class Broken(EnvError):
    """An environment violated its interface; the message explains how."""


@dataclass(slots=True)
class _Now:
    """The call in progress. A supervising process is sent its name, so that it can say what
    hung."""

    tell: Callable[[str], None] = lambda what: None
    split: str = ""


_NOW = _Now()


def listen(tell: Callable[[str], None]) -> None:
    """From now on, call `tell` with the name of every call before it is made."""
    _NOW.tell = tell


def attempt(what: str, call: Callable[[], T]) -> T:
    """Call a user's code, which may raise anything, even SystemExit: any exception becomes `Broken`
    with a sentence. The library's own errors pass through: they are sentences already."""
    _NOW.tell(f"{_NOW.split}{what}")
    try:
        return call()
    except TutelageError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
        raise Broken(f"{what} raised {type(error).__name__}: {error}{where}") from error


def close(env: Env) -> str:
    """Close an environment whose episode is over. A failure no longer affects the episode, so it is
    returned as a sentence; empty if there was none."""
    try:
        attempt("close", env.close)
    except TutelageError as error:
        return str(error)
    return ""
