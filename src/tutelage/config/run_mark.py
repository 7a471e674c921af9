"""The mark by which a run's folder is recognised."""

import json
import os
import stat
from pathlib import Path

from tutelage.config.plain_file import read_text

LOCK, META = ".lock", "meta.json"
MARK = "a run of tutelage\n"
"""The content of `.lock`, which marks the other files of the folder as a run's."""


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
        meta = json.loads(read_text(folder / META))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(meta, dict) and "tutelage" in meta
