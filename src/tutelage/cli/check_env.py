"""The check of an environment in a process of its own: a call that hangs or ends its process is a
finding, and the promises after it are looked at as well."""

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
from tutelage.envs.guard import Broken, attempt, listen
from tutelage.envs.pool import START_SECONDS
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError, EnvError, TutelageError, did_you_mean

SECONDS: Final = 60.0
"""That one call of an environment may take."""


class Asked(NamedTuple):
    env: EnvSection
    splits: tuple[str, ...]  # empty for all that there are
    tasks: int


class Lost(EnvError):
    """A call did not come back; the message says which."""


def watched(asked: Asked, seconds: float) -> tuple[list[str], Iterator[Finding]]:
    """The splits that are checked, and a finding for each promise as it comes.

    seconds  that each call of the environment may take

    Raises ConfigError for a suite or split that cannot be opened.
    """
    child = _Child(asked, seconds, first=0)
    try:
        splits: list[str] = child.hear()
    except Lost as error:
        child.end()
        raise ConfigError(f"{asked.env.suite} cannot be opened: {error}") from error
    except BaseException:
        child.end()
        raise
    return splits, _findings(child, asked._replace(splits=tuple(splits)), seconds)


def _findings(child: "_Child", asked: Asked, seconds: float) -> Iterator[Finding]:
    try:
        for number, (promise, _) in enumerate(CHECKS):
            try:
                yield child.hear()
            except Lost as error:
                yield Finding(promise=promise, problems=(str(error),))
                child.end()
                if number + 1 < len(CHECKS):
                    child = _Child(asked, seconds, first=number + 1)
                    child.hear()  # the splits
    finally:
        child.end()


class _Child:
    """A process that checks, from promise `first` on."""

    def __init__(self, asked: Asked, seconds: float, *, first: int) -> None:
        context = mp.get_context("spawn")
        self.seconds, self.limit = seconds, max(seconds, START_SECONDS)
        self.call = f"importing and making {asked.env.suite}"
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_check, args=(asked, first, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def hear(self) -> Any:
        """What it says next. Raises Lost for a call that does not return, and ConfigError where
        the suite cannot be opened."""
        while True:
            if not self.pipe.poll(self.limit):
                raise Lost(
                    f"{self.call} did not return within {self.limit:g} s; fix what it waits for, "
                    "or allow more with --seconds"
                )
            try:
                kind, said = self.pipe.recv()
            except (EOFError, OSError):
                self.process.join(timeout=1.0)
                code = self.process.exitcode
                raise Lost(f"{self.call} ended its process (exit code {code})") from None
            if kind == "wrong":
                raise ConfigError(said)
            if kind != "call":
                return said
            self.call, self.limit = said, self.seconds

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _check(asked: Asked, first: int, pipe: Connection) -> None:
    # an interrupt is for the parent, which ends this process itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        suite = attempt(asked.env.suite, partial(suite_of, asked.env))
        listen(lambda what: pipe.send(("call", what)))
        splits = openable(suite, asked.splits)
    except TutelageError as error:
        pipe.send(("wrong", str(error)))
        return
    pipe.send(("splits", splits))
    for finding in check(suite, splits, tasks=asked.tasks, first=first):
        pipe.send(("finding", finding))


def openable(suite: Suite, splits: Sequence[str]) -> list[str]:
    """The splits to check: those named, else all that there are. Raises ConfigError where one of
    them has no tasks to look at, or where the suite says that it cannot be played here."""
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
        attempt("make", suite.make).close()
    except Broken:
        pass  # the promises say more
    except TutelageError as error:
        raise ConfigError(f"the environment cannot be made: {error}") from error
    return named or found


def _plainly(error: TutelageError) -> str:
    """What was wrong in the words of who found it, where these are meant for people."""
    cause = error.__cause__
    meant = isinstance(error, Broken) and isinstance(cause, ValueError | OSError | TutelageError)
    return str(cause if meant else error).removesuffix(".")
