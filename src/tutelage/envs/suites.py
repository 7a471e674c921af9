"""A suite by its name or path. Imports nothing heavy: `tutelage check-env` needs no torch."""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from tutelage.config.schema import EnvSection
from tutelage.config.signature import call
from tutelage.envs.adapters.own import Own, is_own
from tutelage.envs.base import Suite
from tutelage.envs.check import attempt
from tutelage.envs.registry import ADAPTERS, SUITES
from tutelage.errors import ConfigError, did_you_mean


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
