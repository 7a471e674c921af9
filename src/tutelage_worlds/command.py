"""Run a suite's command: an error that a user can fix is one sentence and exit code 2."""

import argparse
from collections.abc import Callable

from tutelage.errors import TutelageError

WRONG, INTERRUPTED = 2, 130


def run(parser: argparse.ArgumentParser, command: Callable[[], None]) -> None:
    """Run a command of a program. Raises SystemExit if it fails."""
    try:
        command()
    except TutelageError as error:
        parser.exit(WRONG, f"{parser.prog}: {error}\n")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        parser.exit(
            WRONG,
            f"{parser.prog}: {place}{error.strerror or error}; name a file or folder that can be "
            "read or written\n",
        )
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED)
