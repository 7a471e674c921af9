"""Names say what a thing is: none is a bare participle such as "made"."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("src", "tests", "studies", "scripts", "benchmarks", "examples")
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
PAGES = sorted((ROOT / "src/tutelage/viewer/static").glob("*.js"))
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PARTICIPLES = ("made", "said", "told", "kept")
DECLARED = re.compile(r"(?:const|let|var|function|class)\s+(\w+)|\.(\w+)|(\w+)(?=\s*(?:=>|:))")


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file gives to something, with its line: variables, parameters, attributes,
    functions, classes, imports, keyword arguments and keys."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.alias(name=name, asname=alias):
                yield alias or name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.Dict(keys=keys):
                for key in keys:
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key.value, key.lineno
            case ast.Call(func=ast.Attribute(attr="parametrize"), args=[names, *_]):
                for part in ast.walk(names):
                    if isinstance(part, ast.Constant):
                        yield from ((n, part.lineno) for n in re.findall(r"\w+", str(part.value)))


def participles(names: Iterator[tuple[str, int]]) -> list[str]:
    return [f"{line}: {n}" for n, line in names if n.strip("_").lower() in PARTICIPLES]


def test_no_name_is_a_participle() -> None:
    assert len(FILES) > 100
    found = {
        path: wrong
        for path in FILES
        if (wrong := participles(bound(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert not found


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_no_name_of_the_viewers_page_is_a_participle(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    names = (
        (name, number)
        for number, line in lines
        if not line.lstrip().startswith("//")
        for groups in DECLARED.findall(line)
        for name in groups
    )
    assert not participles(names)


def test_no_name_in_an_example_of_the_documentation_is_a_participle() -> None:
    blocks = [code for page in DOCS for code in FENCED.findall(page.read_text(encoding="utf-8"))]
    assert len(blocks) > 10
    assert not [name for code in blocks for name in participles(bound(ast.parse(code)))]


@pytest.mark.parametrize(
    "code",
    [
        "made = 1",
        "a, (*b, said) = f()",
        "for told in x: pass",
        "def f(*, kept): pass",
        "lambda _made: 0",
        "def _told(): pass",
        "class Said: pass",
        "self.kept = 1",
        "f(told=1)",
        "if (made := f()): pass",
        "import x as said",
        "with f() as told: pass",
        "{'told': 1}",
        "match x:\n    case [kept, *_]: pass",
        "@pytest.mark.parametrize('name, said', [])\ndef f(name): pass",
        "@pytest.mark.parametrize(('name', 'said'), [])\ndef f(name): pass",
        "[0 for made in x]",
        "TOLD = ''",
    ],
)
def test_each_way_to_bind_a_name_is_found(code: str) -> None:
    assert participles(bound(ast.parse(code)))


def test_what_is_only_read_or_part_of_a_longer_name_is_allowed() -> None:
    assert not participles(bound(ast.parse("x = 'made' + other.kept; handmade = {'a': 'told'}")))
