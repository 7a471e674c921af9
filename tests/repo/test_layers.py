"""The package's layers: floors, allowed imports, and where torch is imported first."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
ROOT = SRC / "tutelage"
FLOORS = (
    "errors",
    "types schedules seeding",
    "maths config cpu",
    "envs",
    "prompts hints",
    "objective",
    "signals policies",
    "algorithms rollout",
    "training evaluation",
    "runs viewer",
    "cli",
    "__main__",
)
"""From the bottom up; a module imports only from lower floors and its own room."""
FLOOR = {name: k for k, row in enumerate(FLOORS) for name in row.split()}
ROOT_MODULES = {"types", "errors", "schedules", "seeding", "cpu"}
DOORS = {"__init__", "__main__"}
"""`import tutelage` and `python -m tutelage`: entry points, not rooms."""
WITHOUT_TORCH = (
    "types",
    "errors",
    "schedules",
    "seeding",
    "rollout.ranks",
    "cpu",
    "config.schema",
    "config.toml_file",
    "envs.base",
    "envs.pool",
    "envs.doors",
    "envs.check",
    "envs.requirements",
    "envs.registry",
    "envs.agents.pool",
    "envs.agents.suite",
    "envs.adapters.gem",
    "envs.adapters.gymnasium",
    "envs.adapters.openenv",
    "envs.adapters.mcp",
    "envs.adapters.own",
    "envs.tool_suite",
    "envs.adapters.verifiers",
    "prompts.context",
    "prompts.answer_format",
    "hints",
    "hints.hindsight",
    "rollout.demonstrations",
    "rollout.record",
    "cli.main",
    "cli.doctor",
    "cli.view",
    "viewer.index",
    "viewer.runs",
    "viewer.text",
    "viewer.server",
    "viewer.shelf",
    "viewer.html_file",
)
WORLDS = SRC / "tutelage_worlds"
CONTRACT = ("errors", "types", "envs")
"""Rooms that suites may import: nothing else of the library."""
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


@cache
def imported(path: Path, *, everywhere: bool = True) -> tuple[str, ...]:
    """Full names of what a file imports; with `everywhere`, inside functions too."""
    tree = ast.parse(path.read_text())
    names: list[str] = []
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def ours(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules of this package that a file imports, such as `envs.base`."""
    names = [
        n.split(".")[1:] for n in imported(path, everywhere=everywhere) if n.startswith("tutelage.")
    ]
    return {
        next(".".join(n[:k]) for k in range(len(n), 0, -1) if ".".join(n[:k]) in MODULES)
        for n in names
        if n != ["__version__"]
    }


def test_no_arrow_runs_up() -> None:
    for path in FILES:
        here = name_of(path).split(".")[0]
        assert here in FLOOR, (
            f"{here} is on no floor: say in tests/repo/test_layers.py where it belongs"
        )
        for target in {name.split(".")[0] for name in ours(path)} - {here}:
            assert FLOOR[target] < FLOOR[here], f"{path} imports {target}, which is not below it"


def test_every_room_has_its_floor() -> None:
    assert set(FLOOR) == {name_of(path).split(".")[0] for path in FILES}
    assert len(FLOORS) <= 12


def test_there_are_twenty_rooms_and_two_doors() -> None:
    """Counted in the folder itself, so that no file or package escapes the count."""
    entries = [p for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    packages = {p.name for p in entries if p.is_dir()}
    modules = {p.stem for p in entries if p.is_file()}
    assert modules == ROOT_MODULES | DOORS
    assert packages | ROOT_MODULES == set(FLOOR) - DOORS
    assert len(packages) + len(ROOT_MODULES) <= 20


def test_suites_import_the_contract_alone() -> None:
    files = sorted(WORLDS.rglob("*.py"))
    assert files
    for path in files:
        names = {n.split(".")[1] for n in imported(path) if n.startswith("tutelage.")}
        assert names <= set(CONTRACT), f"{path} imports more"


def test_the_core_imports_no_suite() -> None:
    for path in FILES:
        suites = [n for n in imported(path) if n.split(".")[0] == "tutelage_worlds"]
        assert not suites, f"{path} imports them"


def test_no_two_modules_import_each_other() -> None:
    graph = {name_of(path): ours(path) - {name_of(path)} for path in FILES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", ["types", "errors", "schedules", "seeding"])
def test_the_first_rows_need_the_standard_library_and_errors_only(name: str) -> None:
    path = ROOT / f"{name}.py"
    tops = {n.split(".")[0] for n in imported(path)}
    assert tops <= {"tutelage", *sys.stdlib_module_names}
    assert ours(path) <= {"errors"}


def test_the_mathematics_needs_torch_only() -> None:
    for path in FILES:
        if name_of(path).startswith("maths"):
            tops = {n.split(".")[0] for n in imported(path)}
            assert tops <= {"torch", "tutelage", *sys.stdlib_module_names}
            assert all(target.startswith("maths") for target in ours(path))


BROAD = {
    "envs.adapters.mcp": 2,
    "envs.agents.endpoint": 1,
    "envs.agents.runner": 2,
    "envs.guard": 2,
    "envs.worker": 2,
    "policies.hf.proof": 1,
    "policies.server.http": 1,
    "policies.server.vllm_gloo": 1,
    "policies.server.serve": 1,
    "policies.server.serve_worker": 2,
    "prompts.bounded": 1,
    "runs.ahead": 1,
    "runs.sinks": 2,
}


def test_nothing_is_printed_and_nothing_swallowed() -> None:
    """Few places may catch everything: because an environment may do anything,
    where a thread or process that dies would leave others waiting for ever,
    where a server answers a request that failed,
    where a tracker fails in its own way, and where a model's own code is
    tried in several ways until one is right."""
    for path in FILES:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        prints = [
            n.lineno
            for n in nodes
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
        ]
        if not name_of(path).startswith("cli"):
            assert not prints, f"{path} prints"
        broad = [n.lineno for n in nodes if isinstance(n, ast.ExceptHandler) and _swallows(n)]
        assert len(broad) == BROAD.get(name_of(path), 0), f"{path} at lines {broad}"


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything and ends without raising, that or a sentence about it."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    everything = any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
        for kind in kinds
    )
    last = handler.body[-1]
    return everything and not isinstance(last, ast.Raise)


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def loaded(code: str) -> set[str]:
    """Top-level packages that a fresh Python has imported after running `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('|', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parents[1],
        env={"PYTHONPATH": str(ROOT.parent), "PATH": ""},
    )
    return {name.split(".")[0] for name in result.stdout.rpartition("|")[2].split()}


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
