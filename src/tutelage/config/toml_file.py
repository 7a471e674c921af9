"""Read TOML files into `Config` and write them back; errors are sentences that name the key."""

import io
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from tutelage.config import mistakes
from tutelage.config.paths import expanded
from tutelage.config.plain_file import open_plain
from tutelage.config.run_mark import is_run
from tutelage.config.schema import Config, section_of
from tutelage.config.trust import check as check_trust
from tutelage.config.values import quoted
from tutelage.config.values import write_value as write_value
from tutelage.errors import ConfigError, did_you_mean

Table = dict[str, JsonValue]
EXTENDS = "extends"
DEEPEST = 32
"""Levels of tables and lists in a configuration."""
LONGEST_FILE = 4 << 20
"""Characters of a TOML file; the longest configurations have thousands."""
PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
DEEP_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{PART}[ \t]*\.[ \t]*){{{DEEPEST},}}", re.MULTILINE)
"""A dotted key of more parts, which takes Python quadratic time to read."""
NAMED = ("algorithm", "warm_start")
"""Sections whose keys belong to the function that they name."""


def load(path: Path, overrides: Sequence[str] = (), *, trust: bool = False) -> Config:
    """Read a TOML file, or the folder of a run; then apply overrides such as "update.lr=1e-5".

    trust  run code that the file names even if another user wrote the file

    `extends = "base.toml"` at the top of a file starts from that file's settings (see `merged`).
    The folder of a run is its run.folder, independent of the file in it: it may be a copy.
    Raises ConfigError for a file or a setting that cannot be used.
    """
    home = run_at(path)
    if path.is_dir():
        _check_holds_run(path)
        path = path / "config.toml"
    table = read_extended(path)
    check_trust(path, table, overrides, trust=trust)
    run = table.setdefault("run", {})
    if home is not None and isinstance(run, dict):
        run["folder"] = str(home)
    return parse(override(table, overrides), name=path.stem)


def _check_holds_run(folder: Path) -> None:
    """Refuse a folder that is none of a run, with what to name instead."""
    if os.path.lexists(folder / "config.toml"):
        return
    here = [*folder.glob("*/config.toml"), *folder.glob("*.toml")]
    names = sorted(str(each.parent if each.name == "config.toml" else each) for each in here)
    within = f"; name one of {', '.join(names[:4])}" if names else "; name a TOML file"
    raise ConfigError(
        f"there is no file {folder / 'config.toml'}, so {folder} holds no run{within}"
    )


def run_at(path: Path) -> Path | None:
    """The folder of the run that a path names by itself or by its config.toml, else None."""
    folder = path if path.is_dir() else path.parent
    named = path == folder or path.name == "config.toml"
    return folder if named and is_run(folder) else None


def read_table(path: Path) -> Table:
    """A TOML file as a table, unchecked."""
    try:
        with open_plain(path) as file:
            raw = file.read(4 * LONGEST_FILE + 1)  # of a device too, which has no end
        # Windows editors write a byte-order mark before the text
        text = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8-sig").read()
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}{_beside(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is not a path: {error}") from None
    return table_of(text, str(path))


def table_of(text: str, name: str) -> Table:
    """The text of a TOML file as a table. `name` is the file's, for messages."""
    if len(text) > LONGEST_FILE:
        raise ConfigError(
            f"{name} has {len(text):,} characters, more than {LONGEST_FILE:,}, so it is no "
            "configuration; check the path"
        )
    if DEEP_KEY.search(text):
        raise ConfigError(f"{name} nests tables or lists deeper than {DEEPEST}")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {_lower(str(error))}{_kind(name)}") from None
    except RecursionError:
        raise ConfigError(f"{name} nests tables or lists deeper than {DEEPEST}") from None
    except ValueError:  # Python reads no longer integers, since that takes long
        raise ConfigError(f"{name} has an integer of more than 4300 digits") from None
    _check_depth(table, name)
    return table


def _kind(name: str) -> str:
    """What to do with a file that is written in another language, by its suffix."""
    if name.lower().endswith((".yaml", ".yml", ".json", ".py", ".cfg", ".ini")):
        return "; settings are written in TOML: `tutelage init` writes a file to begin with"
    return ""


def _check_depth(table: Mapping[str, JsonValue], name: str) -> None:
    """Refuse values that nest deeper than any setting: what reads them later is recursive."""
    level: list[JsonValue] = [*table.values()]
    for _ in range(DEEPEST):
        tables = [value.values() for value in level if isinstance(value, dict)]
        lists = [value for value in level if isinstance(value, list)]
        level = [value for part in (*tables, *lists) for value in part]
        if not level:
            return
    raise ConfigError(f"{name} nests tables or lists deeper than {DEEPEST}")


def _check_texts(value: JsonValue | Mapping[str, JsonValue], path: tuple[str, ...]) -> None:
    """Refuse texts that are no UTF-8, as bytes of a command line may be: config.toml holds them."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            key = ".".join(path)[:80].encode(errors="replace").decode()
            raise ConfigError(
                f"{key} contains {value[error.start]!a} (character "
                f"{error.start + 1}), which is no UTF-8 text; remove it, or rename the file"
            ) from None
    elif isinstance(value, Mapping):
        for key, below in value.items():
            _check_texts(key, (*path, key))
            _check_texts(below, (*path, key))
    elif isinstance(value, list):
        for below in value:
            _check_texts(below, path)


def read_extended(path: Path, below: tuple[Path, ...] = ()) -> Table:
    """A TOML file merged over the one that it `extends`, whose path is relative to it.

    below  the files that extend this one, to refuse a cycle
    """
    try:
        here = Path(os.path.realpath(path))  # `resolve` raises for a link to itself
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is not a path: {error}") from None
    chain = (*below, here)
    if len(chain) > DEEPEST:
        raise ConfigError(
            f"{path} is the end of a row of more than {DEEPEST} files of which each extends the next; "
            "write their settings into fewer files"
        )
    if here in below:
        names = " -> ".join(each.name for each in chain[chain.index(here) :])
        raise ConfigError(f"{path} extends itself ({names}); remove one of these lines")
    table = read_table(path)
    base = table.pop(EXTENDS, None)
    if base is None:
        return table
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f'{path}: extends must be the name of a file, such as extends = "base.toml", got '
            f"{write_value(base)}"
        )
    try:
        found = read_extended(path.parent / expanded(base), chain)
    except ConfigError as error:
        raise ConfigError(f"{path} extends {base}: {error}") if not below else error from None
    return merged(found, table)


def merged(base: Mapping[str, JsonValue], *layers: Mapping[str, JsonValue]) -> Table:
    """Tables of settings merged in order, where later ones override earlier ones.

    Sections and `options` are merged key by key, every other value is replaced. An algorithm with
    another name is replaced as a whole, since the settings of the old one are not its own.
    """
    table = dict(base)
    for layer in layers:
        table = _merged(table, layer, Config)
    return table


def _merged(base: Mapping[str, JsonValue], over: Mapping[str, JsonValue], model: Any) -> Table:
    table = dict(base)
    for key, value in over.items():
        before = table.get(key)
        field = model.model_fields.get(key) if model else None
        below = section_of(field.annotation) if field else None
        if not (isinstance(before, dict) and isinstance(value, dict)):
            table[key] = value
        elif key == "policies" and model is Config:
            policies = dict(before)
            for name, section in value.items():
                old = policies.get(name)
                both = isinstance(old, dict) and isinstance(section, dict)
                policies[name] = _merged(old, section, below) if both else section  # type: ignore[arg-type]
            table[key] = policies
        elif key in NAMED and value.get("name", before.get("name")) != before.get("name"):
            table[key] = value
        elif below is not None:
            table[key] = _merged(before, value, below)
        elif key == "options":
            table[key] = {**before, **value}
        else:
            table[key] = value
    return table


def parse(table: Mapping[str, JsonValue], *, name: str = "run") -> Config:
    """A checked configuration. `name` is the name of the run's folder if the table sets none.

    Raises ConfigError with one sentence for each mistake.
    """
    _check_depth(table, "the configuration")
    _check_texts(table, ())
    cleaned, sentences = mistakes.without_old_names(table)
    config = None
    try:
        config = Config.model_validate(cleaned)
    except ValidationError as error:
        sentences += mistakes.sentences(error, cleaned)
    if len(sentences) > 1:
        lines = "".join(f"\n- {sentence}" for sentence in sentences)
        raise ConfigError(f"{len(sentences)} settings are wrong:{lines}")
    if sentences:
        raise ConfigError(sentences[0])
    assert config is not None
    if config.run.folder:
        return config
    run = config.run.model_copy(update={"folder": f"runs/{name}"})
    return config.model_copy(update={"run": run})


# -- overrides


def override(table: Table, texts: Sequence[str]) -> Table:
    """Apply "section.key=value" texts to a table, which is returned."""
    for text in texts:
        _override(table, text)
    return table


def _override(table: Table, text: str) -> None:
    """Set one key: "a.b.c=VALUE", the value as in TOML; a bare word is a string."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(
            f"{text!r} is not a setting; write section.key=value, such as update.lr=1e-5"
        )
    if key.startswith(("+", "~")):
        raise ConfigError(
            f"{text[:80]!r} is not a setting; every setting exists already, so write "
            f"{text.lstrip('+~')[:80]} without a sign before it"
        )
    if len(parts) > DEEPEST:
        raise ConfigError(f"{text[:40]!r}... nests deeper than {DEEPEST}")
    at: Table = table
    for depth, part in enumerate(parts[:-1], 1):
        below = at.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{'.'.join(parts[:depth])} is a value, so it has no {parts[depth]}")
        at = below
    at[parts[-1]] = _value(value.strip(), key)


def _value(text: str, key: str) -> JsonValue:
    if DEEP_KEY.search(text):
        raise ConfigError(f"{key[:80]} nests tables or lists deeper than {DEEPEST}")
    try:
        # a line break would begin another key
        return text if "\n" in text else tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError:
        raise ConfigError(f"{key[:80]} nests tables or lists deeper than {DEEPEST}") from None
    except ValueError:
        raise ConfigError(f"{key[:80]} is an integer of more than 4300 digits") from None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _beside(path: Path) -> str:
    folder = path.parent
    if path.name and (folder / f"{path.name}.toml").is_file():
        return f"; did you mean {path}.toml?"
    if not path.is_absolute() and is_run(Path("runs") / path):
        return f"; did you mean {Path('runs') / path}?"
    names = [p.name for p in folder.glob("*.toml")] if folder.is_dir() else []
    return did_you_mean(path.name, names)


# -- writing


def resolved(config: Config) -> Table:
    """Every setting with its value, defaults included; None is left out, as TOML has none."""
    table = config.model_dump(mode="json", exclude_none=True)
    return {k: v for k, v in table.items() if v != {}}


def write(config: Config) -> str:
    """The resolved configuration as TOML: `load` reads it back equal."""
    lines: list[str] = []
    _section(resolved(config), (), lines)
    return "\n".join(lines).strip() + "\n"


def _section(table: Table, path: tuple[str, ...], lines: list[str]) -> None:
    plain = {
        k: v for k, v in table.items() if not (isinstance(v, dict) and len(path) < _deep(path))
    }
    if path and (plain or not table):
        lines += ["", f"[{'.'.join(map(quoted, path))}]"]
    lines += [f"{quoted(k)} = {write_value(v)}" for k, v in plain.items()]
    for k, v in table.items():
        if k not in plain and isinstance(v, dict):
            _section(v, (*path, k), lines)


def _deep(path: tuple[str, ...]) -> int:
    """Depth up to which tables have headers; deeper ones are written inline."""
    return 2 if path[:1] == ("policies",) else 1


def differences(old: Config, new: Config) -> list[str]:
    """The full names of settings that differ."""
    return sorted(_differ(resolved(old), resolved(new), ()))


def _differ(a: JsonValue, b: JsonValue, path: tuple[str, ...]) -> Iterable[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differ(a.get(key), b.get(key), (*path, key))
    elif a != b:
        yield ".".join(path)
