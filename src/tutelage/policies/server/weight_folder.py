"""The folder through which a run hands weights to its samplers."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tutelage.envs.owned_folder import PREFIX, owned_folder

SHARED_MEMORY = Path("/dev/shm")
"""A file system in memory: a folder there costs no disk access."""


def weight_folder(parent: str) -> tuple[Path, Callable[[], None]]:
    """A new folder for weights, in `parent` or else in memory if possible; and its removal.

    What killed runs left in memory is removed. In `parent` it stays, which may be on a shared file
    system, where locks of other machines need not be seen.
    """
    if parent:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        return folder, lambda: shutil.rmtree(folder, ignore_errors=True)
    return owned_folder(SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
