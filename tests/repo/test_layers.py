"""The shape of the package: who may import whom, how long files and functions may be, and where
torch begins. The rows are those of the design; a module imports only from rows above its own."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "tutelage"
ROWS = (
    "errors types schedules maths processor protocol",
    "envs",
    "batch contexts demonstrations handover hindsight hints penalties record scores",
    "lazy",
    "step",
    "objective",
    "signals policies mismatch",
    "stage",
    "words",
    "algorithms rollout plots",
    "trainer evaluate checkpoint optimizer replay sampling hinting",
    "compare",
    # from here on: settings, runs, and what people type
    "config",
    "configfile doctor sizes",
    "arguments meanings progress runfolder",
    "suites",
    "build models watch",
    "selftest metrics",
    "run",
    "plan measure tables demo serve",
    "trials",
    "bench",
    "cli",
    "__main__",
)
ROW = {name: k for k, row in enumerate(ROWS) for name in row.split()}
WITHOUT_TORCH = (
    "types", "errors", "schedules", "protocol", "contexts", "hindsight", "hints", "penalties",
    "handover", "demonstrations", "record", "config", "configfile", "doctor", "processor",
    "envs.base", "envs.pool",
    "envs.doors", "envs.check", "envs.needs", "envs.registry", "envs.adapters.gem",
    "envs.adapters.gymnasium", "envs.adapters.openenv", "envs.adapters.own",
    "envs.adapters.verifiers", "envs.household", "envs.tau_bench",
    "envs.travelplanner", "envs.webshop",
    "envs.search_qa", "envs.scienceworld",
    "cli",
)  # fmt: skip
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")
EVERY = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, everywhere: bool = True) -> Iterator[str]:
    """Full names of what a file imports; with `everywhere`, inside functions too."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules of this package that a file imports, such as `envs.base`."""
    names = [n.split(".")[1:] for n in imported(path, everywhere=everywhere)
             if n.startswith("tutelage.")]  # fmt: skip
    known = {name_of(p) for p in FILES}
    return {
        next(".".join(n[:k]) for k in range(len(n), 0, -1) if ".".join(n[:k]) in known)
        for n in names
        if n != ["__version__"]
    }


@EVERY
def test_a_module_imports_only_from_rows_above_its_own(path: Path) -> None:
    here = name_of(path).split(".")[0]
    assert here in ROW, f"{here} is in no row: say in tests/repo/test_layers.py where it belongs"
    for target in {name.split(".")[0] for name in ours(path)} - {here}:
        assert ROW[target] < ROW[here], f"{here} imports {target}, which is not above it"


def test_every_name_in_the_rows_is_there() -> None:
    assert set(ROW) == {name_of(path).split(".")[0] for path in FILES}


def test_no_two_modules_import_each_other() -> None:
    graph = {name_of(path): ours(path) - {name_of(path)} for path in FILES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", ["types", "errors", "schedules", "protocol"])
def test_the_first_row_needs_the_standard_library_only(name: str) -> None:
    tops = {n.split(".")[0] for n in imported(ROOT / f"{name}.py")}
    assert tops <= set(sys.stdlib_module_names)


def test_the_mathematics_needs_torch_only() -> None:
    for path in FILES:
        if name_of(path).startswith("maths"):
            tops = {n.split(".")[0] for n in imported(path)}
            assert tops <= {"torch", "tutelage", *sys.stdlib_module_names}
            assert all(target.startswith("maths") for target in ours(path))


@EVERY
def test_files_and_functions_can_be_read_at_once(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length < 60, f"{node.name} has {length} lines"


@EVERY
def test_nothing_is_printed_and_nothing_swallowed(path: Path) -> None:
    """One place may catch everything, because an environment may do anything; the check of
    environments is its second half."""
    tree = ast.parse(path.read_text())
    prints = [n.lineno for n in ast.walk(tree)
              if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
              and n.func.id == "print"]  # fmt: skip
    if name_of(path) not in ("cli", "progress"):
        assert not prints
    broad = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and _swallows(n)]
    assert len(broad) == (name_of(path) in ("envs.pool", "envs.check")), f"at lines {broad}"


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything and does not raise it again."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    everything = any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
        for kind in kinds
    )
    last = handler.body[-1]
    return everything and not (isinstance(last, ast.Raise) and last.exc is None)


@EVERY
def test_public_names_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"


def loaded(code: str) -> set[str]:
    """Top-level packages that a fresh Python has imported after running `code`."""
    made = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('|', *sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT.parents[1],
        env={"PYTHONPATH": str(ROOT.parent), "PATH": ""},
    )  # fmt: skip
    return {name.split(".")[0] for name in made.stdout.rpartition("|")[2].split()}


HEAVY = {"torch", "transformers", "tokenizers", "matplotlib", "numpy"}


def test_what_is_above_the_border_never_imports_torch() -> None:
    code = "\n".join(f"import tutelage.{name}" for name in WITHOUT_TORCH)
    assert not loaded(code) & HEAVY


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['tutelage', '--help']\n"
        "from tutelage.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert not loaded(code) & HEAVY
    assert "argparse" in loaded(code)
