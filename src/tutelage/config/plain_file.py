"""Reading files of folders that others may have filled: never waiting for a named pipe or a device."""

import errno
import io
import os
import stat
from pathlib import Path


def open_plain(path: Path) -> io.BufferedReader:
    """The file opened for reading. Raises OSError where it cannot be, and for what is no file: a
    named pipe, a socket and a device, which would be waited for without end.

    What a shell puts in the place of a file, /dev/stdin and /dev/fd/63, is read.
    """
    return open(path, "rb", opener=_opener)


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError as `open_plain` does."""
    with open_plain(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """A text in UTF-8, its line ends as "\\n". Raises OSError, and UnicodeDecodeError for another."""
    return read_bytes(path).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _opener(path: str, flags: int) -> int:
    # without O_NONBLOCK, opening a named pipe waits for its writer; files are read as ever
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` refuses a folder itself
        return handle
    if str(path).startswith(("/dev/", "/proc/")):
        os.set_blocking(handle, True)
        return handle
    os.close(handle)
    kind = "a named pipe" if stat.S_ISFIFO(mode) else "a device"
    raise OSError(errno.EINVAL, f"it is {kind}, not a file", path)
