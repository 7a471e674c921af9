"""Folders that last as long as the process that made them, however that ends.

A process that is killed cannot remove its own. So each holds a lock in its folder as long as it
lives, and whoever makes the next folder beside it removes those whose lock nobody holds.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

PREFIX = "tutelage-"
OWNER = ".owner"
"""The file in a folder that its living owner has locked."""


def owned_folder(root: Path) -> tuple[Path, Callable[[], None]]:
    """A new folder in `root`, which is on this machine, and its removal. Those of processes that were
    killed are removed first."""
    remove_left(root)
    # nobody looks at it before it is locked
    draft = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=root))
    handle = os.open(draft / OWNER, os.O_RDWR | os.O_CREAT, 0o600)
    _locked(handle)
    folder = draft.rename(root / draft.name.removeprefix("."))

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(handle)

    return folder, remove


def remove_left(root: Path) -> list[Path]:
    """Remove the folders of this user's processes that ended without doing so themselves."""
    removed = []
    for folder in sorted(root.glob(f"{PREFIX}*")):
        try:
            if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
                continue
            handle = os.open(folder / OWNER, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue  # it is something else's, or gone by now
        try:
            if _locked(handle):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
        finally:
            os.close(handle)
    return removed


def _locked(handle: int) -> bool:
    """Lock a file until its handle is closed or its process ends; whether nobody else has."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # no such locks on Windows, and on some file systems
        return False
    return True
