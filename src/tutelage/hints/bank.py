"""Banks of skills: folders of short texts that say how tasks of a kind are done.

A suite ships its own bank as a folder `skills` in the package that its entry point names.

general.txt  what helps in every task; may be missing
NAME.txt     what helps in some of them
bank.toml    for each NAME the task families and keywords that select it, in the order in which they
             are tried; a file that is not listed has the family NAME and the keyword NAME

    [clean]
    families = ["pick_clean_then_place_in_recep"]
    keywords = ["clean"]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.config.paths import expanded
from tutelage.config.plain_file import read_text
from tutelage.config.toml_file import table_of
from tutelage.envs.registry import SUITES, package_folder
from tutelage.errors import ConfigError, did_you_mean

INDEX = "bank.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """One file of a bank, and what selects it."""

    name: str
    text: str
    families: tuple[str, ...]
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Skills for one suite: `general` ones, and those for some tasks in the bank's order."""

    name: str
    general: str
    skills: tuple[Skill, ...]


def built_in() -> list[str]:
    """The suites that ship a bank; the bank has the suite's name."""
    return sorted(name for name in SUITES if (package_folder(name) / "skills").is_dir())


def load(name: str) -> Bank:
    """The bank of a suite by the suite's name, or a folder.

    Raises ConfigError if it is missing or cannot be used.
    """
    known = built_in()
    folder = package_folder(name) / "skills" if name in known else expanded(name)
    if not folder.is_dir():
        raise ConfigError(
            f"hints.bank: there is no bank of skills {name!r}{did_you_mean(name, known)}; "
            f"there are {', '.join(known)}, and your own as a folder of text files"
        )
    texts = {path.stem: _read(path) for path in sorted(folder.glob("*.txt"))}
    general = texts.pop("general", "")
    if not texts:
        raise ConfigError(
            f"hints.bank: {folder} holds no skills; put a NAME.txt for each kind of task into it"
        )
    index = _index(folder, set(texts))
    order = [*index, *(name for name in texts if name not in index)]
    return Bank(
        name=name,
        general=general,
        skills=tuple(
            Skill(
                name=stem,
                text=texts[stem],
                families=index.get(stem, {}).get("families", (stem,)),
                keywords=index.get(stem, {}).get("keywords", (stem,)),
            )
            for stem in order
        ),
    )


def _read(path: Path) -> str:
    try:
        text = read_text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"hints.bank: {path} cannot be read ({error}); fix the file") from None
    if not text:
        raise ConfigError(f"hints.bank: {path} is empty; write its skills, or remove it")
    return text


def _index(folder: Path, names: set[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """What bank.toml says: file -> families and keywords."""
    path = folder / INDEX
    if not path.exists():
        return {}
    table: dict[str, Any] = table_of(_read(path), f"hints.bank: {path}")
    entries = {}
    for name, entry in table.items():
        if name not in names:
            raise ConfigError(f"hints.bank: {path} names {name}, but there is no {name}.txt")
        if not isinstance(entry, dict) or not all(_list(k, v) for k, v in entry.items()):
            raise ConfigError(
                f"hints.bank: [{name}] of {path} takes families and keywords, each a list of "
                "strings that are not empty"
            )
        entries[name] = {key: tuple(values) for key, values in entry.items()}
    return entries


def _list(key: str, values: object) -> bool:
    return (
        key in ("families", "keywords")
        and isinstance(values, list)
        and all(isinstance(value, str) and value.strip() for value in values)
    )
