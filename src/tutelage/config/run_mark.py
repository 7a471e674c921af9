"""How a run's folder is told from any other: by the mark that every run leaves in its own."""

import json
import os
import stat
from pathlib import Path

LOCK, META = ".lock", "meta.json"
MARK = "a run of tutelage\n"
"""What `.lock` says: whoever finds it knows that a run wrote the folder's other files."""


def is_run(folder: Path) -> bool:
    """Whether a run wrote this folder: its `.lock` carries the mark, or meta.json names the
    version that wrote it (in folders from before there was a mark)."""
    return marked(folder) or described(folder)


def marked(folder: Path) -> bool:
    try:
        if not stat.S_ISREG(os.lstat(folder / LOCK).st_mode):
            return False
        with (folder / LOCK).open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def described(folder: Path) -> bool:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(meta, dict) and "tutelage" in meta
