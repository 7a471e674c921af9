"""Trust in configurations: one of another user runs no code that it names unless trusted."""

import contextlib
import hashlib
import hmac
import importlib.machinery
import json
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.config.plain_file import read_text
from tutelage.config.run_mark import META, is_run
from tutelage.errors import ConfigError

if TYPE_CHECKING:  # suites are importable without pydantic
    from pydantic import JsonValue

NAMED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")
"""Code as a configuration names it: "package.module:name"."""
CALLED = ("env.suite", "algorithm.name", "warm_start.name")
"""Settings that name code; so may a suite's options."""
AGENTS = ("agent", "tutelage.envs.agents.suite:Agents")
"""Suites whose option `run` may be a command."""
SIGNED = "signed"
"""The key in a run's meta.json that shows that its config.toml was written by this user."""
SECRET = "TUTELAGE_SECRET_FILE"


def secret() -> bytes:
    """A secret of this user that signs their runs, created when it is first needed. Empty if it
    cannot be stored: then every run counts as another user's."""
    named = os.environ.get(SECRET, "")
    try:
        path = Path(named) if named else Path.home() / ".config" / "tutelage" / "secret"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(draft, path)
            draft.unlink()
        return path.read_bytes()
    except (OSError, RuntimeError):
        return b""


def signature(text: str) -> str:
    """Of a run's config.toml."""
    key = secret()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() if key else ""


def ours(path: Path) -> bool:
    """Whether this user wrote a configuration: a run's folder with its signature, or a file of
    their own (or of the machine's administrator)."""
    if not is_run(path.parent) or path.name != "config.toml":
        return not hasattr(os, "geteuid") or path.stat().st_uid in (os.geteuid(), 0)
    try:
        signed = json.loads(read_text(path.parent / META))[SIGNED]
        own = signature(read_text(path))
        return bool(own) and any(hmac.compare_digest(own, str(each)) for each in signed)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def check(
    path: Path, table: Mapping[str, "JsonValue"], typed: Sequence[str], *, trust: bool
) -> None:
    """Raise ConfigError for a configuration of another user that names code, unless trusted.

    typed  overrides "key=value", which are trusted
    """
    given = {text.partition("=")[0].strip() for text in typed}
    found = [*_names(dict(table), ()), *_command(table)]
    names = {key: name for key, name in found if key not in given}
    if trust or not names or ours(path):
        return
    key, name = next(iter(names.items()))
    if not NAMED.fullmatch(name):
        raise ConfigError(
            f"{path} is somebody else's and names a command to run, {key} = {name!r}; look into "
            "it, and add --trust to run it"
        )
    file = source(name.partition(":")[0])
    raise ConfigError(
        f"{path} belongs to another user and names code to run, {key} = {name!r} "
        f"({file or 'which is not on this machine'}); read that file, and add --trust to run it"
    )


def _command(table: Mapping[str, "JsonValue"]) -> Iterator[tuple[str, str]]:
    """The command line of an agent, which runs whatever it names."""
    env = table.get("env")
    if not isinstance(env, Mapping) or env.get("suite") not in AGENTS:
        return
    options = env.get("options")
    run = options.get("run") if isinstance(options, Mapping) else None
    text = " ".join(map(str, run)) if isinstance(run, list) else str(run or "")
    if text and not NAMED.fullmatch(text):
        yield "env.options.run", text


def _names(value: "JsonValue", path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _names(below, (*path, str(key)))
    elif isinstance(value, list):
        for below in value:
            yield from _names(below, path)
    elif isinstance(value, str) and not value.startswith(("python:", "builtin:", "wheel:")):
        key = ".".join(path)
        engine = path[:1] in (("policy",), ("policies",)) and path[-1] == "model"
        called = key in CALLED or path[:2] == ("env", "options")
        if (called or engine) and NAMED.fullmatch(value.partition("#")[0] if engine else value):
            yield key, value


def source(module: str) -> Path | None:
    """The file that importing a module would run last; nothing is imported. None where there is no
    such module."""
    top, *rest = module.split(".")
    places = [str(Path.cwd()), *sys.path]
    try:
        spec = importlib.machinery.PathFinder.find_spec(top, places)
        for k in range(len(rest)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            full = f"{top}.{'.'.join(rest[: k + 1])}"
            inside = list(spec.submodule_search_locations)
            spec = importlib.machinery.PathFinder.find_spec(full, inside)
    except (ImportError, ValueError, OSError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
