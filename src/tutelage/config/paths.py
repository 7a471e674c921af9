"""Paths as users write them."""

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path with the home folder in the place of "~"; as it is where "~name" is nobody here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
