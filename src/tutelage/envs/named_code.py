"""Code that a configuration names as "package.module:name": looked at before any of it is run."""

import ast
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

from tutelage.config.trust import source
from tutelage.envs.guard import Broken, attempt
from tutelage.errors import ConfigError

Test = Callable[[object], bool]
OURS = ("tutelage", "tutelage_worlds")
"""Packages whose functions have other purposes, also where they are not installed."""


def named(
    module: str, attribute: str, *, where: str, what: str, declared: Test, kind: str = "function"
) -> object:
    """A class or function of a user's own module, which may lie in the working folder.

    what      what it must be, for messages, such as "a suite"
    declared  whether something is one by what it is, wherever it was defined
    kind      "class" or "function", for messages

    A function that is not declared counts only where it is defined in the named file itself, and
    that file is neither Python's nor an installed package's: nothing that was written for another
    purpose is ever called. Raises ConfigError, and where the file shows it, before it is run.
    """
    file = _look(module, attribute, where=where, what=what, kind=kind)
    loaded = imported(module, where=where)
    found = getattr(loaded, attribute, None)
    if not callable(found):
        raise ConfigError(f"{where}: {module} has no {kind} {attribute!r}")
    own = _own(file) and module.partition(".")[0] not in OURS
    if not (declared(found) or (own and _defined_in(found, loaded))):
        raise ConfigError(
            f"{where}: {module}:{attribute} is not {what}: it was not written as one, so it is not "
            "called; name your own class or function"
        )
    return found


def imported(module: str, *, where: str) -> ModuleType:
    """A module that may be run, and may lie in the working folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return attempt(f"importing {module}", partial(importlib.import_module, module))
    except Broken as error:
        cause = error.__cause__
        plain = isinstance(cause, ImportError | SyntaxError)
        raise ConfigError(
            f"{where}: {module} could not be imported ({cause if plain else error}); install it, "
            "fix it, or run from the folder it is in"
        ) from error


def _look(module: str, attribute: str, *, where: str, what: str, kind: str) -> Path | None:
    """The file of a module, after it was read; nothing of it is run."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in (*parts, attribute)):
        raise ConfigError(
            f'{where}: {module}:{attribute} does not name code; write it as "package.module:name"'
        )
    if parts[0] in sys.stdlib_module_names:
        raise ConfigError(
            f"{where}: {module} belongs to Python itself and holds nothing that is {what}; name "
            "your own module"
        )
    file = source(module)
    if file is None or file.suffix != ".py" or not _own(file) or module in sys.modules:
        return file
    try:
        names = _top_level(ast.parse(file.read_bytes()))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return file  # importing it says what is wrong
    if names is not None and attribute not in names:
        raise ConfigError(f"{where}: {module} has no {kind} {attribute!r} ({file})")
    return file


def _own(file: Path | None) -> bool:
    """Whether a file is a user's own, not one of an installed package."""
    if file is None:
        return True  # typed into a session
    installed = {
        sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")
    }
    return not any(Path(place) in file.parents for place in installed) and not (
        "site-packages" in file.parts or "dist-packages" in file.parts
    )


def _defined_in(found: object, module: ModuleType) -> bool:
    return getattr(found, "__module__", None) == module.__name__ and not inspect.isbuiltin(found)


def _top_level(tree: ast.Module) -> set[str] | None:
    """Names that a module gives a value to; None where that cannot be told from its text."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return None
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if "__getattr__" in names or "globals" in _called(tree) else names


def _called(tree: ast.Module) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def has(*methods: str) -> Test:
    """Whether a class has all of these methods."""

    def test(found: object) -> bool:
        return isinstance(found, type) and all(callable(getattr(found, m, None)) for m in methods)

    return test


def returns(found: object, *names: str) -> bool:
    """Whether a function says that it returns one of these."""
    if isinstance(found, type) or not callable(found):
        return False
    hint = getattr(found, "__annotations__", {}).get("return")
    return getattr(hint, "__name__", str(hint)).rpartition(".")[2] in names
