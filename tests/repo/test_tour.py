"""The tour of one step: every function of its table is there and leads to the next."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tour.md").read_text()
ROW = re.compile(
    r"^\| \d \| `([\w.]+)` \| \[[\w/]+\.py\]\(\.\./(src/[\w/]+\.py)\) \|$", re.MULTILINE
)
HOPS = ROW.findall(PAGE)
LONGEST = 200
"""Lines of train_step.py, which is read from top to bottom."""


def definition(name: str, path: str) -> ast.AST:
    """A function or method; of a method's default values its whole class is read."""
    node: ast.AST = ast.parse((ROOT / path).read_text())
    for part in name.split("."):
        node = next(
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == part
        )
    return node


def names(node: ast.AST) -> set[str]:
    """What is called or imported inside."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    found |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return found | {
        alias.name for n in ast.walk(node) if isinstance(n, ast.ImportFrom) for alias in n.names
    }


def test_the_walk_is_short() -> None:
    assert len(HOPS) == 7
    assert len({path for _, path in HOPS if "/cli/" not in path}) == 5
    lines = (ROOT / "src/tutelage/training/train_step.py").read_text().splitlines()
    assert len(lines) < LONGEST


@pytest.mark.parametrize(("here", "after"), list(pairwise(HOPS)), ids=lambda hop: hop[0])
def test_every_function_leads_to_the_next(here: tuple[str, str], after: tuple[str, str]) -> None:
    (name, path), (following, _) = here, after
    known = names(definition(name, path))
    if name == "Reinforce.bind":  # its surrogate is a field with a default
        known = names(definition("Reinforce", path))
    assert following.rpartition(".")[2] in known


def test_the_last_is_there_and_the_module_tells_the_same_walk() -> None:
    assert definition(*HOPS[-1])
    docstring = ast.get_docstring(ast.parse((ROOT / "src/tutelage/runs/train.py").read_text()))
    assert docstring is not None
    stations = re.findall(r"^\d\. `([\w.]+)` +`([\w.]+)`", docstring, re.MULTILINE)
    assert [(f"src/tutelage/{module.replace('.', '/')}.py", name) for module, name in stations] == [
        (path, name) for name, path in HOPS
    ]


def test_the_table_of_rooms_has_every_room() -> None:
    rooms = re.findall(r"^\| `(\w+)` \| ", PAGE.partition("## Rooms and floors")[2], re.MULTILINE)
    packages = {path.parent.name for path in (ROOT / "src/tutelage").glob("*/__init__.py")}
    assert sorted(rooms) == sorted(packages - {"assets"})
