"""Suites by name, from the entry points of installed packages, or by module and class.

A package offers suites by entry points of the group "tutelage.suites":

    [project.entry-points."tutelage.suites"]
    my_suite = "my_package:MySuite"

It imports nothing heavy, because `tutelage check-env` needs no torch.
"""

import copy
import importlib.util
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import cast

from pydantic import JsonValue

from tutelage.config.schema import EnvSection
from tutelage.config.signature import call
from tutelage.envs.adapters.own import Own, is_own
from tutelage.envs.base import Suite
from tutelage.envs.guard import attempt
from tutelage.envs.named_code import has, imported, named, returns
from tutelage.envs.tool_suite import ToolSuite, with_calls
from tutelage.errors import ConfigError, did_you_mean

NAME, GROUP = "tutelage", "tutelage.suites"
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def offered(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name, our own names first; more than one where packages
    disagree on what the name means."""
    found = list(entry_points(group=group))
    if PYPROJECT.is_file():
        # a source tree on the path: not installed, or installed before an entry was added
        with PYPROJECT.open("rb") as file:
            listed = tomllib.load(file)["project"]["entry-points"][group]
        ours = {point.name for point in found if _package(point) == NAME}
        missing = [item for item in listed.items() if item[0] not in ours]
        found += [EntryPoint(name, value, group) for name, value in missing]
    found.sort(key=lambda point: _package(point) != NAME)  # stable: otherwise in the order found
    by_name: dict[str, tuple[EntryPoint, ...]] = {}
    for point in found:
        others = by_name.get(point.name, ())
        if point.value not in [other.value for other in others]:
            by_name[point.name] = (*others, point)
    return by_name


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else NAME


OFFERED: Mapping[str, tuple[EntryPoint, ...]] = offered(GROUP)
SUITES = {name: points[0].value for name, points in sorted(OFFERED.items())}
"""Paths "package.module:Class" of the suites that need no path, by name."""
SHIPPED = frozenset(name for name, points in OFFERED.items() if _package(points[0]) == NAME)
"""Suites of this project. They run in the trainer's own process, unless their class sets
`needs_worker`; all others run in worker processes, with deadlines."""

ADAPTERS = {
    "agent": "tutelage.envs.agents.suite:Agents",
    "gymnasium": "tutelage.envs.adapters.gymnasium:Gymnasium",
    "gem": "tutelage.envs.adapters.gem:Gem",
    "openenv": "tutelage.envs.adapters.openenv:OpenEnv",
    "verifiers": "tutelage.envs.adapters.verifiers:Verifiers",
    "messages": "tutelage.envs.adapters.messages:Messages",
    "mcp": "tutelage.envs.adapters.mcp:MCP",
}
"""Environments of other libraries, which run in a worker process."""


def suite_class(name: str) -> Callable[..., object]:
    """The class of a suite, or a function that makes one, by name or as "package.module:Class"."""
    if name in OFFERED:
        return from_entry_points(name, OFFERED[name], setting="env.suite")
    path = ADAPTERS.get(name, name)
    if ":" not in path:
        known = (*SUITES, *ADAPTERS)
        raise ConfigError(
            f"env.suite: there is no suite {name!r}{did_you_mean(name, known)}; there are "
            f'{", ".join(known)}, and your own as "package.module:Class"'
        )
    if name in ADAPTERS:
        return _declared(path, where="env.suite")
    return from_path(path, where="env.suite", what="a suite", declared=is_suite, kind="class")


def is_suite(found: object) -> bool:
    """Whether something was written as a suite: a class with a suite's methods or an environment's,
    or a function that says that it returns one."""
    plays = has("reset", "step")(found) or has("reset", "call")(found)
    by_methods = has("tasks", "make")(found) or plays
    return by_methods or returns(found, "Suite", "Env")


def from_entry_points(
    name: str, points: Sequence[EntryPoint], *, setting: str
) -> Callable[..., object]:
    """What the packages' entry points of one name mean, which a setting names.

    Raises ConfigError where they disagree, or where it cannot be imported.
    """
    if len(points) > 1:
        packages = " and ".join(f"{_package(point)} ({point.value})" for point in points)
        raise ConfigError(
            f"{setting}: {name!r} is offered by {packages}; name one by its path, such as "
            f"{setting} = {points[0].value!r}, or uninstall the other package"
        )
    package, path = _package(points[0]), points[0].value
    if not all(path.partition(":")):
        raise ConfigError(
            f"{setting}: the package {package} offers {name!r} as {path!r}, which is "
            'not "package.module:Class"; its entry point must be corrected'
        )
    return _declared(path, where=f"{setting} ({name} of the package {package})")


def _declared(path: str, *, where: str) -> Callable[..., object]:
    """What an installed package declares. Raises ConfigError where it does not have it."""
    module, _, attribute = path.partition(":")
    found = getattr(imported(module, where=where), attribute, None)
    if not callable(found):
        raise ConfigError(f"{where}: {module} has no class {attribute!r}")
    return cast(Callable[..., object], found)


def from_path(
    path: str, *, where: str, what: str, declared: Callable[[object], bool], kind: str = "function"
) -> Callable[..., object]:
    """A class or function by its path "package.module:Class", which may lie in the working folder.

    Raises ConfigError where there is none, or where it was not written to be `what` (see
    `named_code`).
    """
    if path in (*SUITES.values(), *ADAPTERS.values()):
        return _declared(path, where=where)
    module, _, attribute = path.partition(":")
    found = named(module, attribute, where=where, what=what, declared=declared, kind=kind)
    return cast(Callable[..., object], found)


def package_folder(name: str) -> Path:
    """The folder of the package that a suite's entry point names; nothing is imported."""
    top, *rest = SUITES[name].partition(":")[0].split(".")
    spec = importlib.util.find_spec(top) if top else None
    for place in spec.submodule_search_locations or () if spec is not None else ():
        folder = Path(place, *rest)
        return folder if folder.is_dir() else folder.parent
    return Path(name)


PYTHON = "python:"
"""Prefix of the name of a suite that was passed as an object or a class in Python."""
_GIVEN: dict[str, object] = {}


def register(suite: object) -> str:
    """Register a suite object or class of this process; returns its name for a configuration."""
    name = PYTHON + (suite.__name__ if isinstance(suite, type) else type(suite).__name__)
    _GIVEN[name] = suite
    return name


def suite_of(env: EnvSection, *, calls: bool = False) -> Suite:
    """The suite that a configuration names, with its options.

    calls  answers call functions, also in a suite whose actions are otherwise texts

    Raises ConfigError if there is none, or if it breaks the contract.
    """
    if env.suite.startswith(PYTHON):
        suite = as_suite(_given(env.suite), env.options)
    else:
        suite = as_suite(suite_class(env.suite), env.options, name=env.suite)
    return with_calls(suite) if calls else suite


def _given(name: str) -> object:
    if name not in _GIVEN:
        raise ConfigError(
            f"env.suite = {name!r} was an object in another Python process, which this one does "
            'not have; give it again in Python, as tutelage.load(FOLDER, {"env.suite": YOUR_CLASS}), '
            'or move the class into a module and write env.suite = "module:Class"'
        )
    return _GIVEN[name]


def as_suite(
    suite: object, options: Mapping[str, JsonValue] = MappingProxyType({}), *, name: str = ""
) -> Suite:
    """A suite from an object, or from a class or function that makes one with `options`; a class
    with `reset` and `step` alone becomes a suite whose tasks are seeds.

    Raises ConfigError if it is not a suite.
    """
    result = suite
    if isinstance(suite, type) or (callable(suite) and not hasattr(suite, "make")):
        new = partial(call, suite, dict(options), where="env.options")
        result = attempt(
            name or getattr(suite, "__name__", "the suite"),
            partial(Own, new) if is_own(suite) else new,
        )
    elif options:
        raise ConfigError(
            f"env.options are the arguments of a suite's class, but {type(suite).__name__} is an "
            "object already; set them when you make it, or give the class"
        )
    elif is_own(suite):
        result = attempt(type(suite).__name__, partial(Own, partial(copy.deepcopy, suite)))
    if not (hasattr(result, "tasks") and hasattr(result, "make")):
        raise ConfigError(
            f"env.suite: {type(result).__name__} is not a suite: it has neither `tasks(split)` and "
            "`make()` nor `reset(task)` and `step(action)`; `tutelage check-env` explains the "
            "contract"
        )
    if hasattr(result, "tools") and not getattr(result, "takes_calls", False):
        return ToolSuite(result)
    return cast(Suite, result)


SERVER_WORKERS = 8
"""Workers of a suite that asks a server, so that episodes wait for its answers concurrently."""


def workers_of(env: EnvSection, suite: Suite) -> int:
    """Worker processes of a suite where the configuration leaves it open.

    A suite of this project is trusted and fast, so it runs in this process; so does an object that
    was given in Python, since what a notebook defines no other process can import.
    """
    if isinstance(env.workers, int):
        return env.workers
    if env.suite.startswith(PYTHON):
        return 0
    tables = [env.options, *(v for v in env.options.values() if isinstance(v, dict))]
    if env.suite not in SHIPPED:
        return 1
    if any(table.get("url") for table in tables):
        return SERVER_WORKERS
    return int(getattr(suite, "needs_worker", False))
