"""`tutelage examples`: the example files that come with the package."""

import re
import textwrap
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage.errors import ConfigError, RunError, did_you_mean

LONGEST = 120
"""Longest description in characters."""


def folder() -> Path:
    """Where the examples are: inside the installed package, or beside `src` in a source tree."""
    packaged = Path(str(files("tutelage"))) / "examples"
    source = Path(__file__).parents[3] / "examples"
    for place in (packaged, source):
        if any(place.glob("*.toml")):
            return place
    raise ConfigError(
        f"the examples are neither in {packaged} nor in {source}; install the package again"
    )


def paths() -> dict[str, Path]:
    """The example files by name, without `.toml`."""
    return {path.stem: path for path in sorted(folder().glob("*.toml"))}


def find(name: str) -> Path:
    """The file of an example. Raises ConfigError for a name that does not exist."""
    known = paths()
    stem = name.removesuffix(".toml")
    if stem not in known:
        near = did_you_mean(stem, known) or ";"
        raise ConfigError(f"there is no example {name!r}{near} `tutelage examples` lists them")
    return known[stem]


def text(name: str) -> str:
    return find(name).read_text(encoding="utf-8")


def description(path: Path) -> str:
    """The first sentence of the comment that a file begins with, shortened."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    # a full stop after two letters may be an abbreviation's
    first = re.split(r"(?<=[\w)]{3})\. ", " ".join(lines))[0]
    return textwrap.shorten(first.removesuffix("."), LONGEST, placeholder=" ...")


def copy(name: str, target: Path) -> Path:
    """Copy an example into a folder, which is created if missing. Never overwrites."""
    source = find(name)
    path = target / source.name
    if path.exists():
        raise RunError(f"{path} exists already; choose another folder, or remove it")
    try:
        target.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); choose another folder"
        ) from error
    return path


def show(console: Console) -> None:
    """A table of the examples."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("what it trains")
    for name, path in paths().items():
        table.add_row(name, escape(description(path)))
    console.print(table)
    console.print(
        "\ntutelage examples NAME prints one; tutelage examples NAME --copy . copies it here",
        highlight=False,
        soft_wrap=True,
    )
