"""Print the lower bounds of pyproject.toml as constraints: `torch>=2.13` becomes `torch==2.13`.

python scripts/bounds.py [EXTRA ...]     the dependencies and the extras that are named
"""

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lower_bound(requirement: str) -> str:
    """`name==X` of `name>=X` or `name==X`. Raises ValueError where no lowest version is given."""
    parsed = Requirement(requirement)
    lowest = [s.version for s in parsed.specifier if s.operator in (">=", "==")]
    if len(lowest) != 1:
        raise ValueError(f"{requirement!r} in pyproject.toml needs exactly one bound of >= or ==")
    marker = f"; {parsed.marker}" if parsed.marker else ""
    return f"{parsed.name}=={lowest[0]}{marker}"


def lower_bounds(extras: Sequence[str], pyproject: Path = PYPROJECT) -> list[str]:
    """One constraint for each package, sorted by name. Raises KeyError for an unknown extra."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    bounds: set[str] = set()
    texts, pending = list(project["dependencies"]), list(extras)
    while texts or pending:
        if not texts:
            texts = list(project["optional-dependencies"][pending.pop()])
            continue
        text = texts.pop()
        if Requirement(text).name == project["name"]:  # an extra made of others
            pending += Requirement(text).extras
        else:
            bounds.add(lower_bound(text))
    return sorted(bounds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    print("\n".join(lower_bounds(parser.parse_args().extras)))


if __name__ == "__main__":
    main()
