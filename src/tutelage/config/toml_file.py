"""TOML in, `Config` out, and back; every mistake is one sentence that names the key."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from tutelage.config.schema import Config, PolicySection
from tutelage.errors import ConfigError, did_you_mean

Table = dict[str, JsonValue]


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, or the folder of a run; then apply overrides such as "update.lr=1e-5".

    Raises ConfigError for a file or a setting that cannot be used.
    """
    if path.is_dir():
        path = path / "config.toml"
    return parse(override(read_table(path), overrides), name=path.stem)


def read_table(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}{_beside(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {_lower(str(error))}") from None


def parse(table: Mapping[str, JsonValue], *, name: str = "run") -> Config:
    """A checked configuration. `name` names the run's folder where the table does not."""
    try:
        config = Config.model_validate(table)
    except ValidationError as error:
        raise ConfigError(_sentence(error, table)) from None
    if config.run.folder:
        return config
    run = config.run.model_copy(update={"folder": f"runs/{name}"})
    return config.model_copy(update={"run": run})


# -- overrides


def override(table: Table, texts: Sequence[str]) -> Table:
    """Set what "section.key=value" texts say in a table, which is returned."""
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
    at: Table = table
    for depth, part in enumerate(parts[:-1], 1):
        below = at.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{'.'.join(parts[:depth])} is a value, so it has no {parts[depth]}")
        at = below
    at[parts[-1]] = _value(value.strip())


def _value(text: str) -> JsonValue:
    try:
        return tomllib.loads(f"x = {text}")["x"]  # type: ignore[no-any-return]
    except tomllib.TOMLDecodeError:
        return text


# -- mistakes


def _sentence(error: ValidationError, table: Mapping[str, JsonValue]) -> str:
    """The most telling mistake: an unknown key first, since it often is a missing one too."""
    found = error.errors(include_url=False)
    order = {"extra_forbidden": 0, "missing": 2}
    first = min(found, key=lambda e: order.get(e["type"], 1))
    path = _known(first["loc"])
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        names = _fields(path[:-1])
        where = f"[{'.'.join(path[:-1])}]" if path[:-1] else "a configuration"
        near = did_you_mean(key, [".".join((*path[:-1], name)) for name in names])
        return f"{key} is not a setting{near}; {where} has {', '.join(names)}"
    if first["type"] == "missing":
        if isinstance(_model(path), type) or not path[:-1]:
            return f"the section [{key}] is missing; it has {', '.join(_fields(path))}"
        return f"{key} is missing; give it a value"
    reasons = [_reason(e["type"], e["msg"]) for e in found if _known(e["loc"]) == path]
    if first["type"] == "value_error":
        return f"{key} {reasons[0]}" if key else reasons[0]
    # every branch of a choice of types has its own complaint
    given = f", got {_shown(_at(table, path))}"
    return f"{key} {' or '.join(dict.fromkeys(reasons))}{given}"


def _reason(kind: str, message: str) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in ("model_type", "dict_type"):
        return "must be a table of settings"
    return _lower(message.replace("Input should be", "must be").replace("a valid", "a"))


def _known(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Where a mistake is, without the parts that name types instead of keys."""
    path: tuple[str, ...] = ()
    for part in loc:
        if isinstance(part, int) or (path and not isinstance(_model(path), type | dict)):
            break
        path = (*path, part)
    return path


def _model(path: tuple[str, ...]) -> "type[BaseModel] | dict[str, str] | None":
    """The section that a path names; a dict for tables of free names; None for a value."""
    here: type[BaseModel] | None = Config
    for k, part in enumerate(path):
        if here is Config and part == "policies":
            if k == len(path) - 1:
                return {}
            return _below(PolicySection, path[k + 2 :])
        here = _below(here, (part,))
    return here


def _below(model: type[BaseModel] | None, path: tuple[str, ...]) -> type[BaseModel] | None:
    for part in path:
        field = model.model_fields.get(part) if model else None
        model = None
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if field else ():
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return model


def _fields(path: tuple[str, ...]) -> list[str]:
    model = _model(path)
    return list(model.model_fields) if isinstance(model, type) else []


def _at(table: Mapping[str, JsonValue], path: tuple[str, ...]) -> JsonValue:
    value: JsonValue = dict(table)
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _shown(value: JsonValue) -> str:
    text = write_value(value) if value is not None else "nothing"
    return text if len(text) < 60 else text[:57] + "..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _beside(path: Path) -> str:
    folder = path.parent
    names = [p.name for p in folder.glob("*.toml")] if folder.is_dir() else []
    return did_you_mean(path.name, names)


# -- writing


def resolved(config: Config) -> Table:
    """Every setting with its value, defaults included; None is left out, as TOML has none."""
    made = config.model_dump(mode="json", exclude_none=True)
    return {k: v for k, v in made.items() if v != {}}


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
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(k)} = {write_value(v)}" for k, v in plain.items()]
    for k, v in table.items():
        if k not in plain and isinstance(v, dict):
            _section(v, (*path, k), lines)


def _deep(path: tuple[str, ...]) -> int:
    """Sections are headed tables; what is a table inside of one is written inline."""
    return 2 if path[:1] == ("policies",) else 1


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def write_value(value: JsonValue) -> str:
    """A value as TOML.

    >>> write_value({"linear": [0.05, 0.0, 100], "on": True})
    '{linear = [0.05, 0.0, 100], on = true}'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {write_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(write_value(v) for v in value) + "]"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, except that DEL must be escaped too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(value)


def differences(old: Config, new: Config) -> list[str]:
    """The full names of settings that are not equal."""
    return sorted(_differ(resolved(old), resolved(new), ()))


def _differ(a: JsonValue, b: JsonValue, path: tuple[str, ...]) -> Iterable[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differ(a.get(key), b.get(key), (*path, key))
    elif a != b:
        yield ".".join(path)
