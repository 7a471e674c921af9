"""Options that several commands share, and the kinds of values that options take."""

import argparse
from pathlib import Path

SHARDED = "--sharded"


def training_file(p: argparse.ArgumentParser, *, optional: str = "") -> None:
    text = optional or "a TOML file, or the folder of a run"
    if optional:
        p.add_argument("file", metavar="FILE", type=path, nargs="?", help=text)
    else:
        p.add_argument("file", metavar="FILE", type=path, help=text)
    p.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings that replace those of the file, such as update.lr=1e-5",
    )
    trust(p)


def trust(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--trust",
        action="store_true",
        help="run code that a file or run of another user names",
    )


def checkpoint(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--checkpoint",
        default="",
        metavar="NAME",
        help="a checkpoint of the run, such as step-000100 (default: the last)",
    )


def sink(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--sink",
        action="append",
        default=[],
        choices=["tensorboard", "wandb", "mlflow", "trackio"],
        help="also send the run's numbers there; repeat for several",
    )


def path(text: str) -> Path:
    return Path(filled(text))


def filled(text: str) -> str:
    """A path, or what else is not empty. An empty path, as of a variable of the shell that is not set,
    would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a file or a folder")
    return text


def gigabytes(text: str) -> float:
    """GB of memory, more than none."""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB, such as 80")
    return size


def ranks(text: str) -> int:
    """A number of ranks, at least one."""
    if not text.isdecimal() or not 0 < int(text) < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of ranks, such as 8")
    return int(text)
