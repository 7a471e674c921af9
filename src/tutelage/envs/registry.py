"""Suites by name, from the entry points of installed packages; your own by module and class.

A package offers suites by entry points of the group "tutelage.suites":

    [project.entry-points."tutelage.suites"]
    my_suite = "my_package:MySuite"

Imports nothing heavy: `tutelage check-env` needs no torch.
"""

import importlib
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from tutelage.config.schema import EnvSection
from tutelage.config.signature import call
from tutelage.envs.adapters.own import Own, is_own
from tutelage.envs.base import Suite
from tutelage.envs.guard import attempt
from tutelage.errors import ConfigError, did_you_mean

GROUP = "tutelage.suites"
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def _suites() -> tuple[dict[str, str], frozenset[str]]:
    """Paths "module:Class" by name, and the names that this project ships."""
    found = list(entry_points(group=GROUP))
    own = {e.name: e.value for e in found if e.dist is not None and e.dist.name == "tutelage"}
    if not own and PYPROJECT.is_file():  # a source tree on the path that is not installed
        with PYPROJECT.open("rb") as file:
            own = tomllib.load(file)["project"]["entry-points"][GROUP]
    others = {e.name: e.value for e in found if e.name not in own}
    return {**own, **others}, frozenset(own)


SUITES, SHIPPED = _suites()
"""Suites that need no path. Those that this project ships run in the trainer's own process, unless
their class sets `needs_worker`; all others run in worker processes, with deadlines."""

ADAPTERS = {
    "gymnasium": "tutelage.envs.adapters.gymnasium:Gymnasium",
    "gem": "tutelage.envs.adapters.gem:Gem",
    "openenv": "tutelage.envs.adapters.openenv:OpenEnv",
    "verifiers": "tutelage.envs.adapters.verifiers:Verifiers",
}
"""Environments of other libraries, which run in a worker process."""


def suite_class(name: str) -> Callable[..., object]:
    """The class of a suite, or a function that makes one, by name or as "package.module:Class"."""
    path = {**SUITES, **ADAPTERS}.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        known = (*SUITES, *ADAPTERS)
        raise ConfigError(
            f"env.suite: there is no suite {name!r}{did_you_mean(name, known)}; there are "
            f'{", ".join(known)}, and your own as "package.module:Class"'
        )
    found = imported(module, attribute, where="env.suite")
    if not callable(found):
        raise ConfigError(f"env.suite: {module} has no class {attribute!r}")
    return found


def imported(module: str, attribute: str, *, where: str) -> object:
    """Something of a user's own module, which may lie in the working folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"{where}: {module} could not be imported ({error}); install it, mend it, or run from "
            "the folder it is in"
        ) from error


def suite_of(env: EnvSection) -> Suite:
    kind = suite_class(env.suite)
    new = partial(call, kind, env.options, where="env.options")
    made: object = attempt(env.suite, partial(Own, new) if is_own(kind) else new)
    if not (hasattr(made, "tasks") and hasattr(made, "make")):
        raise ConfigError(
            f"env.suite: {type(made).__name__} is not a suite: it has neither `tasks(split)` and "
            "`make()` nor `reset(task)` and `step(action)`; `tutelage check-env` explains the "
            "contract"
        )
    return cast(Suite, made)
