"""The command line's entry point, `main`.

Nothing heavy is imported here, so that help and error messages appear at once. `arguments` has the
table of commands; `commands` holds what each does, and is imported when one runs.
"""

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

from tutelage.cli import habits
from tutelage.cli.arguments import COMMANDS, parsed, parser
from tutelage.cli.imports import Interrupts, interruptible
from tutelage.cpu import wait_passively
from tutelage.errors import NAME, Elsewhere, TutelageError

INTERRUPTED, WRONG, FAILED = 130, 2, 1
"""Exit codes."""
REFUSALS = "EACCES EDQUOT EFBIG EIO EMFILE ENAMETOOLONG ENOSPC EPERM EROFS"
DISK = {getattr(errno, name) for name in REFUSALS.split() if hasattr(errno, name)}
"""Errors of the operating system that a user can fix."""
HOMELESS = ("completion",)
"""Commands that need no working folder: a shell may run them wherever it starts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted
    (143 by SIGTERM, 129 by SIGHUP).

    Every failure that a user can fix is one sentence on stderr.
    """
    wait_passively()
    _open_streams()
    _set_console()
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        parser().print_help()
        return 0
    given = habits.translated(given, [*COMMANDS])
    if not given[0].startswith("-") and given[0] not in COMMANDS:
        return say(habits.command(given[0], [*COMMANDS]), WRONG)
    try:
        arguments = parsed(given)
    except TutelageError as error:
        return say(str(error), WRONG)
    if arguments.command not in HOMELESS and (reason := _lost_folder()):
        return say(reason, WRONG)
    asked = Interrupts()
    try:
        name = arguments.command.replace("-", "_")
        name += "_" * iskeyword(name)
        with interruptible(f"{NAME}: stopped", asked):
            run = getattr(import_module("tutelage.cli.commands"), name)
            code: int = run(arguments)
        sys.stdout.flush()
        return asked.code if code == INTERRUPTED else code
    except Elsewhere:
        return WRONG
    except TutelageError as error:
        return say(str(error), WRONG)
    except KeyboardInterrupt:
        return say("stopped", asked.code)
    except BrokenPipeError:
        leave_output()  # its reader has closed it
        return FAILED
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = str(error.filename)[:200] if error.filename is not None else "the output"
        return say(f"{where} cannot be read or written ({error.strerror})", FAILED)


def _lost_folder() -> str:
    """A sentence where the working folder was deleted, in which torch's libraries cannot be loaded;
    empty if it is there."""
    try:
        os.getcwd()
    except OSError as error:
        return (
            f"the working folder cannot be found ({error.strerror}), it was deleted or moved; change "
            "into one that exists (`cd`), and start the command again"
        )
    return ""


def leave_output() -> None:
    """Write nothing more to stdout, which cannot be written; Python would report it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr (`>&-`) empty ones: the next
    files that it opens would take their numbers, and whatever is printed would go into these."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = ("stdin", "stdout", "stderr").index(name)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _set_console() -> None:
    """Let what is printed never fail for where it goes.

    A pipe on Windows, a container or PYTHONIOENCODING may have an encoding without ticks and
    frames: a question mark is written instead. A job without a terminal may have one of 0 columns,
    in which tables are empty: the usual 80 are taken.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip().lstrip("0"):
            del os.environ[name]


def say(text: str, code: int) -> int:
    """Print a sentence to stderr and return the exit code."""
    print(f"{NAME}: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
