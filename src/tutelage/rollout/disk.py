"""Atomic writes of files and folders, and messages about a full disk."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from tutelage.errors import RunError


def reason(error: OSError) -> str:
    """The operating system's reason."""
    return error.strerror or str(error)


def sync(path: Path) -> None:
    """Sync a file, or a folder's list of files, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new one, never a part."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    with draft.open("x", encoding="utf-8") as file:
        file.write(text)
    sync(draft)
    os.replace(draft, path)
    sync(path.parent)


@contextlib.contextmanager
def as_disk_error() -> Iterator[None]:
    """The libraries that write models and tokenizers report a full disk in their own ways: here
    each becomes an OSError."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(0, str(error)) from error
    except Exception as error:
        # from Rust, without a class of its own
        if isinstance(error, OSError) or "os error" not in str(error):
            raise
        raise OSError(0, str(error)) from error


@contextlib.contextmanager
def new(target: Path) -> Iterator[Path]:
    """A path beside `target` for a new file or folder, which is moved there when the block ends.
    After an error nothing is left of it.

    Raises RunError where the target exists, which is never written over, or cannot be written.
    """
    draft = target.with_name(f".{target.name}.draft-{os.getpid()}")
    try:
        refuse_existing(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with as_disk_error():
            yield draft
        for path in [*(draft.rglob("*") if draft.is_dir() else ()), draft]:
            sync(path)
        move_to_new(draft, target)
    except OSError as error:
        raise RunError(
            f"{target} could not be written ({reason(error)}); make room or choose another place, "
            "then do it again: nothing was left behind"
        ) from error
    finally:
        remove(draft)


def refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise RunError(f"{target} exists already; choose another name, or remove it")


def move_to_new(draft: Path, target: Path) -> None:
    """Rename a file or a folder. Raises RunError where something is at the new place by now."""
    refuse_existing(target)
    draft.rename(target)
    sync(target.parent)


def remove(path: Path) -> None:
    """Delete a file or a folder of our own, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
