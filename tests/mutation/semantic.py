"""Semantic mutants: plausible bugs, listed in semantic.toml.

Each names a file, a function in it, and a piece of that function's text that another replaces.
White space and trailing commas do not count when the piece is looked for, and edits elsewhere in
the file do not matter. A mutant whose piece is not there exactly once is stale.
"""

import ast
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("semantic.toml")


class StaleError(Exception):
    """The code that a mutant changes is no longer there, or is there more than once."""


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    file: str  # below the package's folder
    function: str  # its qualified name; "" for the module
    old: str
    new: str


def read(path: Path = LIST) -> list[Bug]:
    return [Bug(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]]


def span(source: str, function: str) -> tuple[int, int]:
    """Where a function's text begins and ends. Raises StaleError if there is none of that name."""
    if not function:
        return 0, len(source)
    node: ast.AST = ast.parse(source)
    for name in function.split("."):
        found = [
            child
            for child in ast.walk(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == name
        ]
        if not found:
            raise StaleError(f"there is no function {function}")
        node = found[0]
    lines = source.splitlines(keepends=True)
    first, last = node.lineno - 1, node.end_lineno or 0  # type: ignore[attr-defined]
    return sum(map(len, lines[:first])), sum(map(len, lines[:last]))


def pattern(old: str) -> re.Pattern[str]:
    """What finds a piece of code however it is laid out."""
    words = re.findall(r"\w+|[^\w\s]", old)
    parts = [re.escape(word) for word in words]
    return re.compile(r"(?:\s*,)?\s*".join(parts) if len(parts) > 1 else rf"\b{parts[0]}\b")


def applied(bug: Bug, package: Path) -> str:
    """The text of the file with the bug in it. Raises StaleError."""
    path = package / bug.file
    if not path.exists():
        raise StaleError(f"there is no file {bug.file}")
    source = path.read_text(encoding="utf-8")
    start, end = span(source, bug.function)
    text = source[start:end]
    if text.count(bug.old) == 1:
        changed = text.replace(bug.old, bug.new)
    else:
        changed, count = pattern(bug.old).subn(lambda _: bug.new, text)
        if count != 1:
            raise StaleError(f"{bug.old!r} is {count} times in {bug.function or bug.file}")
    mutated = source[:start] + changed + source[end:]
    try:
        compile(mutated, bug.file, "exec")
    except SyntaxError as error:
        raise StaleError(f"with the bug it is no Python: {error}") from None
    return mutated
