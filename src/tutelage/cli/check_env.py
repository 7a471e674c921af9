"""Check an environment in a separate process.

A call that hangs or exits is then reported as a finding, and the remaining checks still run.
"""

import multiprocessing as mp
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from tutelage.config.schema import EnvSection
from tutelage.envs.base import Suite
from tutelage.envs.check import (
    CHECKS,
    Finding,
    check,
    splits_of,
)
from tutelage.envs.guard import Broken, attempt, close, listen, own_process
from tutelage.envs.pool import CLOSE_SECONDS, START_SECONDS
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError, EnvError, TutelageError, did_you_mean

SECONDS: Final = 60.0
"""Default time limit of one call of an environment."""


class Request(NamedTuple):
    """What to check."""

    env: EnvSection
    splits: tuple[str, ...]  # empty for all splits of the suite
    tasks: int


class Lost(EnvError):
    """A call did not return; the message says which."""


def watched(request: Request, seconds: float) -> tuple[list[str], Iterator[Finding]]:
    """The splits that are checked, and an iterator over the findings.

    seconds  time limit of each call of the environment

    Raises ConfigError for a suite or split that cannot be opened.
    """
    child = _Child(request, seconds, first=0)
    try:
        splits: list[str] = child.hear()
    except Lost as error:
        child.end()
        raise ConfigError(f"{request.env.suite} cannot be opened: {error}") from error
    except BaseException:
        child.end()
        raise
    return splits, _findings(child, request._replace(splits=tuple(splits)), seconds)


def _findings(child: "_Child", request: Request, seconds: float) -> Iterator[Finding]:
    try:
        for number, (name, _) in enumerate(CHECKS):
            try:
                yield child.hear()
            except Lost as error:
                yield Finding(name=name, problems=(str(error),))
                child.end()
                if number + 1 < len(CHECKS):
                    child = _Child(request, seconds, first=number + 1)
                    child.hear()  # the splits
        child.process.join(CLOSE_SECONDS)  # what the environment does at its exit
    finally:
        child.end()


class _Child:
    """A process that runs the checks from number `first` on."""

    def __init__(self, request: Request, seconds: float, *, first: int) -> None:
        context = mp.get_context("spawn")
        self.seconds, self.limit = seconds, max(seconds, START_SECONDS)
        self.call = f"importing and making {request.env.suite}"
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_check, args=(request, first, other_end), daemon=True)
        self.process.start()
        other_end.close()

    def hear(self) -> Any:
        """Its next message. Raises Lost for a call that does not return, and ConfigError if the
        suite cannot be opened."""
        while True:
            if not self.pipe.poll(self.limit):
                raise Lost(
                    f"{self.call} did not return within {self.limit:g} s; fix what it waits for, "
                    "or allow more with --seconds"
                )
            try:
                kind, message = self.pipe.recv()
            except (EOFError, OSError):
                self.process.join(timeout=1.0)
                code = self.process.exitcode
                raise Lost(f"{self.call} ended its process (exit code {code})") from None
            if kind == "wrong":
                raise ConfigError(message)
            if kind != "call":
                return message
            self.call, self.limit = message, self.seconds

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _check(request: Request, first: int, pipe: Connection) -> None:
    # an interrupt is for the parent, which ends this process itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own_process()
    try:
        suite = attempt(request.env.suite, partial(suite_of, request.env))
        listen(lambda what: pipe.send(("call", what)))
        splits = openable(suite, request.splits)
    except TutelageError as error:
        pipe.send(("wrong", str(error)))
        return
    pipe.send(("splits", splits))
    for finding in check(suite, splits, tasks=request.tasks, first=first):
        pipe.send(("finding", finding))


def openable(suite: Suite, splits: Sequence[str]) -> list[str]:
    """The splits to check: those named, else all. Raises ConfigError if one of them has no tasks,
    or if the suite reports that it cannot be played here."""
    named, found = list(dict.fromkeys(splits)), splits_of(suite)
    for split in named or found:
        try:
            every = attempt(f"tasks({split!r})", partial(suite.tasks, split))
        except TutelageError as error:
            near = did_you_mean(split, found) if split not in found else ""
            raise ConfigError(
                f"the split {split!r} cannot be opened ({_plainly(error)}){near}"
            ) from error
        if isinstance(every, Sequence) and not len(every):
            raise ConfigError(
                f"the split {split!r} has no tasks with these options, so nothing could be "
                "checked; ask for some, or name another with --split"
            )
    try:
        close(attempt("make", suite.make))
    except Broken:
        pass  # the checks give more detail
    except TutelageError as error:
        raise ConfigError(f"the environment cannot be made: {error}") from error
    return named or found


def _plainly(error: TutelageError) -> str:
    """The message of the underlying error if it is meant for users, else of the error itself."""
    cause = error.__cause__
    meant = isinstance(error, Broken) and isinstance(cause, ValueError | OSError | TutelageError)
    return str(cause if meant else error).removesuffix(".")
