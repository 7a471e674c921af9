"""The configuration reference as a Markdown page, generated from the schema."""

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tutelage.config.mistakes import bounds_in_words, in_words
from tutelage.config.schema import Config, leaves, section_of
from tutelage.config.values import write_value

INTRODUCTION = """# Configuration

A run is a TOML file. `[env] suite`, `[policy] model` and `[algorithm] name` are enough to train;
every other setting has a default. On the command line a setting is `section.key=value`. A file that
begins with `extends = "base.toml"` takes that file's settings and overrides them with its own: sections
are merged key by key, every other value is replaced, and an algorithm with another name is replaced
as a whole.

This page is generated from the code.
"""
EXTRA = {
    "algorithm": "Every other key is an argument of that algorithm; "
    "`tutelage algorithms NAME` lists them.",
    "warm_start": "Every other key is an argument of that algorithm. Leave the section out to start "
    "with the main algorithm.",
    "policy": "The same keys describe each further model, in a section `[policies.NAME]`.",
}


def markdown() -> str:
    """The page: a table for each section, with every key, its type, default and meaning."""
    parts = [INTRODUCTION]
    for name, field in Config.model_fields.items():
        section = section_of(field.annotation)
        if name == "policies" or section is None:
            continue
        parts.append(
            f"## [{name}]\n\n{_sentence(field.description)} {EXTRA.get(name, '')}".rstrip()
        )
        rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for leaf in leaves(section):
            cells = (
                f"`{leaf.key}`",
                _kind(leaf.field),
                _default(leaf.field),
                _sentence(leaf.field.description),
            )
            rows.append("| " + " | ".join(_cell(text) for text in cells) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _kind(field: FieldInfo) -> str:
    return f"{in_words(field.annotation)} {bounds_in_words(field.metadata)}".strip()


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "none: must be given"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "" if value is None else f"`{write_value(value)}`"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
