"""Error messages for configurations: one sentence for each wrong setting, all at once."""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, JsonValue, ValidationError

from tutelage.config.renamed import ALIASES, NOT_SETTINGS, RENAMED
from tutelage.config.schema import MOST, Config, leaves, section_of
from tutelage.config.values import write_value
from tutelage.errors import did_you_mean

Path = tuple[str, ...]
Table = Mapping[str, JsonValue]
WORDS = {float: "a number", int: "an integer", bool: "true or false", str: "a string"}
NEAR_BOUNDS = (
    ("ge", "of at least {}"),
    ("gt", "greater than {}"),
    ("le", "of at most {}"),
    ("lt", "less than {}"),
)
REASONS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "finite_number": "must be a finite number",
}


def without_old_names(table: Table) -> tuple[dict[str, JsonValue], list[str]]:
    """The table without settings that were renamed or removed, and a sentence for each of them."""
    sentences: list[str] = []

    def clean(value: JsonValue, path: Path) -> JsonValue:
        if not isinstance(value, dict) or path[:1] in (("algorithm",), ("warm_start",)):
            return value
        rest: dict[str, JsonValue] = {}
        for name, below in value.items():
            here = (*path, name)
            if moved := RENAMED.get(_common(here)):
                sentences.append(_renamed(here, *moved))
            else:
                rest[name] = clean(below, here)
        return rest

    cleaned = clean(dict(table), ())
    assert isinstance(cleaned, dict)
    return cleaned, sentences


def _common(path: Path) -> str:
    """A setting's name in the schema: policies.teacher.model is policy.model."""
    return ".".join(("policy", *path[2:]) if path[0] == "policies" and len(path) > 1 else path)


def _renamed(path: Path, new: str, note: str) -> str:
    key = ".".join(path)
    if not new:
        return f"{key} is not a setting any more: {note}"
    if path[0] == "policies" and new.startswith("policy."):
        new = ".".join(("policies", path[1], new.removeprefix("policy.")))
    return f"{key} is now {new}" + (f": {note}" if note else "")


def sentences(error: ValidationError, table: Table) -> list[str]:
    """One sentence for each setting that is unknown, wrong or missing, in that order."""
    grouped: dict[Path, list[Any]] = {}
    for each in error.errors(include_url=False):
        grouped.setdefault(_known(each["loc"]), []).append(each)
    unknown = {p: found for p, found in grouped.items() if found[0]["type"] == "extra_forbidden"}
    texts = [text for path in unknown for text in _unknown(path, _at(table, path))]
    # an item that a list lacks is a wrong value, not a missing setting
    missing = {
        p: found
        for p, found in grouped.items()
        if found[0]["type"] == "missing" and isinstance(found[0]["loc"][-1], str)
    }
    for path, found in grouped.items():
        if path not in unknown and path not in missing:
            texts.append(_wrong(path, found, _at(table, path)))
    for path in missing:
        key = ".".join(path)
        # skip if its misspelling is reported already
        if not any(f"did you mean {key}?" in text or f"mean {key}." in text for text in texts):
            texts.append(_missing(path))
    return texts


def _unknown(path: Path, value: JsonValue) -> Iterator[str]:
    key, names = _short(".".join(path)), _fields(path[:-1])
    where = f"[{'.'.join(path[:-1])}]" if path[:-1] else "a configuration"
    near = did_you_mean(key, [".".join((*path[:-1], name)) for name in names])
    if len(path) == 1 and isinstance(value, dict):
        # a section of another tool, not one of ours that is misspelt
        aliased = dict(_aliased(value, path, known=bool(near)))
        for name, found in aliased.items():
            yield f"{_short(name)} is not a setting{found}"
        if aliased:
            return
    near = note(path[-1]) or near
    have = "" if near.startswith(":") else f"; {where} has {', '.join(names)}"
    yield f"{key} is not a setting{near}{have}"


def _aliased(table: Table, path: Path, *, known: bool) -> Iterator[tuple[str, str]]:
    """Settings of other tools in a section of theirs, with what they are called here; with `known`
    without names that are used here too."""
    for name, below in table.items():
        plain = name.lower().replace("-", "_")
        if isinstance(below, dict):
            yield from _aliased(below, (*path, name), known=known)
        elif (found := note(name)) and not (known and plain not in {**ALIASES, **NOT_SETTINGS}):
            yield ".".join((*path, name)), found


def note(name: str) -> str:
    """What to write for a name of other tools, as the end of a sentence; empty where it is none."""
    plain = name.lower().replace("-", "_")
    if plain in NOT_SETTINGS:
        return f": {NOT_SETTINGS[plain]}"
    found = elsewhere(name)
    return f"; did you mean {found}?" if found else ""


def _short(text: str) -> str:
    return text if len(text) < 200 else f"{text[:80]}... ({len(text):,} characters)"


def elsewhere(name: str) -> str:
    """The setting that other tools call by this name, or that has it in another section."""
    plain = name.lower().replace("-", "_")
    if plain in ALIASES:
        return ALIASES[plain]
    return next((leaf.key for leaf in leaves() if leaf.key.split(".")[-1] == plain), "")


def _missing(path: Path) -> str:
    key = ".".join(path)
    if not path[:-1]:
        return f"the section [{key}] is missing; it has {', '.join(_fields(path))}"
    return f"{key} is missing; give it a value"


def _wrong(path: Path, found: list[Any], value: JsonValue) -> str:
    key = ".".join(path)
    for each in found:
        if each["type"] == "value_error":
            reason = str(each["msg"]).removeprefix("Value error, ")
            return f"{key} {reason}" if key else reason
    text = write_value(value) if value is not None else "nothing"
    given = f", got {text if len(text) < 60 else text[:57] + '...'}"
    # of a union, the branch whose type fits the value gives the most useful reason
    reasons = [
        REASONS[each["type"]].format(**{k: _plain(v) for k, v in each.get("ctx", {}).items()})
        for each in found
        if each["type"] in REASONS
    ]
    if reasons:
        return f"{key} {' or '.join(dict.fromkeys(reasons))}{given}"
    field = _field(path)
    if section_of(field) is not None:
        return f"{key} must be a table of settings{given}"
    return f"{key} must be {in_words(field)}{given}"


def _plain(bound: object) -> str:
    """A bound as people write it: 1, not 1.0."""
    return str(int(bound)) if isinstance(bound, float) and bound == int(bound) else str(bound)


# -- the schema in words


def in_words(annotation: object) -> str:
    """An annotation in words.

    >>> in_words(int | None), in_words(dict[str, int] | Literal["auto"])
    ('an integer', 'a table or "auto"')
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(parts[0])
    if origin is Literal:
        return " or ".join(f'"{part}"' for part in parts)
    if isinstance(annotation, type) and annotation in WORDS:
        return WORDS[annotation]
    if origin is dict and get_origin(parts[0]) is Literal:
        shapes = " or ".join(f"{{{name} = ...}}" for name in get_args(parts[0]))
        return f"a table such as {shapes}"
    if origin is dict:
        return "a table"
    if origin in (list, tuple):
        pair = origin is tuple and len(parts) == 2 and Ellipsis not in parts
        return "a list of two numbers" if pair else "a list"
    options = [in_words(part) for part in parts if part is not NoneType]
    return " or ".join(dict.fromkeys(options)) if options else str(annotation)


def bounds_in_words(metadata: list[Any]) -> str:
    """The bounds of a number, such as "of at least 1", without those that only catch typing errors."""
    found = [
        text.format(f"{value:g}")
        for name, text in NEAR_BOUNDS
        for part in metadata
        if (value := getattr(part, name, None)) is not None and abs(value) < MOST
    ]
    return " and ".join(found)


# -- where a mistake is


def _known(loc: tuple[int | str, ...]) -> Path:
    """The key of a mistake, without the parts of its location that name types."""
    path: Path = ()
    for part in loc:
        if isinstance(part, int) or (path and not _has_keys(path)):
            break
        path = (*path, part)
    return path


def _has_keys(path: Path) -> bool:
    return path == ("policies",) or _model(path) is not None


def _model(path: Path) -> type[BaseModel] | None:
    """The section that a path names, None for a value."""
    here: type[BaseModel] | None = Config
    if path[:1] == ("policies",):
        path = ("policy", *path[2:]) if len(path) > 1 else ("", "")
    for part in path:
        field = here.model_fields.get(part) if here else None
        here = section_of(field.annotation) if field else None
    return here


def _fields(path: Path) -> list[str]:
    model = _model(path)
    return list(model.model_fields) if model else []


def _field(path: Path) -> object:
    """The annotation of a setting."""
    if not path or path == ("policies",):
        return dict[str, JsonValue]
    if path[0] == "policies" and len(path) == 2:
        return section_of(Config.model_fields["policy"].annotation)
    model = _model(path[:-1])
    return model.model_fields[path[-1]].annotation if model else None


def _at(table: Table, path: Path) -> JsonValue:
    value: JsonValue = dict(table)
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
