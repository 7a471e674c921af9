"""The folder through which a run hands weights to its samplers.

A run that is killed cannot remove its own, which lies in memory and keeps it. So every run holds a
lock in its folder as long as it lives, and the next one removes those whose lock nobody holds.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
"""A file system in memory: a folder there costs no disk access."""
PREFIX = "tutelage-"
OWNER = ".owner"
"""The file that a living run has locked."""


def weight_folder(parent: str) -> tuple[Path, Callable[[], None]]:
    """A new folder for weights, in `parent` or else in memory if possible; and its removal.

    Without `parent`, folders of runs that were killed are removed first. In `parent` they stay: it
    may be on a shared file system, where locks of other machines need not be seen.
    """
    if parent:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        return folder, lambda: shutil.rmtree(folder, ignore_errors=True)
    root = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
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
    """Remove the folders of this user's runs that ended without doing so themselves."""
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
