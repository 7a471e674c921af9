"""`python -m tutelage` is the command line, which Ctrl-C ends in one sentence from its first import on."""

import os
import signal
import threading
from types import FrameType
from typing import NoReturn


def _stopped(number: int = 0, frame: FrameType | None = None) -> NoReturn:
    os.write(2, b"tutelage: stopped\n")
    os._exit(130)  # nothing has been written yet


def main() -> int:
    """Run the command of the process's arguments and return its exit code."""
    early = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if early:
        signal.signal(signal.SIGINT, _stopped)
    from tutelage.cli import main as commands

    try:
        if early:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return commands.main()
    except KeyboardInterrupt:  # between two commands of `commands.main` that handle it
        _stopped()


if __name__ == "__main__":
    raise SystemExit(main())
