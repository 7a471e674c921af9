"""Policy engines by name, from the entry points of installed packages; your own by module and class.

An engine is a function or a class that opens a policy from what the configuration says of it. A
package offers engines by entry points of the group "tutelage.policies":

    [project.entry-points."tutelage.policies"]
    my_engine = "my_package:open_policy"

The setting `model` names one as "my_engine:REST" or "package.module:Class#REST"; what REST means
is for the engine to say. The engines of this project are chosen by what a section holds: "hf" by a
folder or a hub id, "tiny" by `build`, "server" by an address; "chat:URL#NAME" is a model of any
OpenAI-compatible server, which can only play.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from tutelage.config.schema import Config, PolicySection
from tutelage.envs.base import Suite
from tutelage.envs.guard import Broken, attempt
from tutelage.envs.named_code import has, returns
from tutelage.envs.registry import from_entry_points, from_path, offered
from tutelage.errors import ConfigError
from tutelage.prompts.context import Context

if TYPE_CHECKING:  # the protocols import torch, which `tutelage doctor` does without
    from tutelage.policies.base import OpenedPolicy, Policy

OFFERED: Mapping[str, tuple[EntryPoint, ...]] = offered("tutelage.policies")
OURS = ("hf", "tiny", "server", "chat")
CHOSEN = OURS[:3]
"""Engines that no setting names: what a section holds chooses them."""
FOLDERS = ("builtin", "wheel")
"""What "hf" reads in front of a colon: models that come with packages."""
PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(#.*)?", re.DOTALL)
"""A path "package.module:Class", and what follows it for the engine to read."""
DTYPES = get_args(PolicySection.model_fields["dtype"].annotation)
METHODS = ("submit", "poll", "release", "refresh", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an engine opens a policy from.

    model    what follows the engine's name in the setting `model`; all of it for "hf" and "server"
    section  the policy's section, [policy] or [policies.NAME]
    where    its name in messages, "policy" or "policies.NAME"
    config   of the whole run
    suite    whose texts a new tokenizer is trained on
    context  words what the policy reads
    student  the policy that is opened already, None when this is the student itself
    folder   a checkpoint to read weights from instead of the model; empty for the model itself
    engines  so many policies sample at the same time and share the memory
    """

    model: str
    section: PolicySection
    where: str
    config: Config
    suite: Suite
    context: Context
    student: "Policy | None" = None
    folder: str = ""
    engines: int = 1


Engine = Callable[[Opening], "OpenedPolicy"]


class Named(NamedTuple):
    """The engine that a section names, and what it says of the model."""

    engine: str
    model: str

    @property
    def ours(self) -> bool:
        return self.engine in OURS


def named(section: PolicySection) -> Named:
    """Which engine a policy's section means. Nothing is imported."""
    if section.build is not None:
        return Named("tiny", "")
    if section.remote:
        return Named("server", section.model)
    name, colon, rest = section.model.partition(":")
    if colon and name not in FOLDERS and not Path(section.model).exists():
        if name in OFFERED and name not in CHOSEN:
            return Named(name, rest)
        if PATH.fullmatch(section.model):
            path, _, rest = section.model.partition("#")
            return Named(path, rest)
    return Named("hf", section.model)


def engine_of(section: PolicySection, *, where: str) -> Engine:
    """The function or class of the engine that a section names.

    Raises ConfigError where there is none.
    """
    name, setting = named(section).engine, f"{where}.model"
    if name in OFFERED:
        return cast(Engine, from_entry_points(name, OFFERED[name], setting=setting))
    found = from_path(name, where=setting, what="an engine", declared=_is_engine, kind="class")
    return cast(Engine, found)


def _is_engine(found: object) -> bool:
    """Whether something was written as an engine: a class with a policy's methods, or a function
    that says that it returns a policy."""
    return has(*METHODS)(found) or returns(found, "Policy", "OpenedPolicy", "Trainable", "HFPolicy")


def open_policy(opening: Opening) -> "OpenedPolicy":
    """Open a policy by the engine that its section names.

    Raises ConfigError where there is no such engine, or where what it opens is no policy.
    """
    engine, name = engine_of(opening.section, where=opening.where), named(opening.section)
    if name.ours:
        return engine(opening)
    try:
        policy = attempt(f"the engine {name.engine}", partial(engine, opening))
    except Broken as error:
        raise ConfigError(f"{opening.where}.model: {error}; fix the engine") from error
    lacks = [method for method in METHODS if not callable(getattr(policy, method, None))]
    lacks += [fact for fact in ("chat", "context_length", "dtype") if not hasattr(policy, fact)]
    if lacks:
        raise ConfigError(
            f"{opening.where}.model: the engine {name.engine} opened a {type(policy).__name__}, "
            f"which is no policy: it has no {', '.join(lacks)}; see the protocol Policy in "
            "tutelage.policies.base"
        )
    if policy.dtype not in DTYPES:
        raise ConfigError(
            f"{opening.where}.model: the policy of the engine {name.engine} has the dtype "
            f"{policy.dtype!r}; it must be one of {', '.join(DTYPES)}: which rounding is to be "
            "expected between sampling and scoring"
        )
    return policy
