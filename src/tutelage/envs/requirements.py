"""System requirements of a suite, declared by the suite and reported by `tutelage doctor`.

The module that a suite's name leads to ("package.module" of "package.module:Class") may have a
function beside the class:

    def needs(options: Mapping[str, object]) -> Iterable[Need]:
        yield package("spacy", "nouns", required=options.get("nouns") == "spacy", use="exact nouns")
        if "data" in options:
            yield file("data", options["data"], "git clone https://...")

`options` are those of a run's configuration, empty if there is no run. The function looks for
packages without importing them, so that the requirements of all suites can be listed at once.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tutelage.config.paths import expanded
from tutelage.errors import install

Needs = Callable[[Mapping[str, object]], "Iterable[Need]"]
JAVA_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One requirement of a suite, always or for some of its options."""

    name: str
    found: str  # what is here, such as a version or a path; empty if it is missing
    get: str  # the command, or a sentence, that provides it
    required: bool = True  # whether it is needed with these options
    use: str = ""  # what it is for, if the suite works without it

    @property
    def missing(self) -> bool:
        return self.required and not self.found


def package(
    name: str, extra: str = "", *, required: bool = True, use: str = "", get: str = ""
) -> Need:
    """A PyPI distribution, installed by the extra `extra` of tutelage or by the command `get`."""
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    command = get or install(extra)
    return Need(name=name, found=found, get=command, required=required, use=use)


def file(option: str, path: object, get: str, *, required: bool = True) -> Need:
    """A file or folder that the user names."""
    place = expanded(str(path))
    return Need(
        name=f"{option} = {path}",
        found="there" if place.exists() else "",
        get=get,
        required=required,
    )


def official(option: str, get: str) -> Need:
    """The original data set, which the user may download; without it, tasks are generated."""
    use = f"the original's data, for env.options.{option}; without it, tasks are generated"
    return Need(name=option, found="", get=get, required=False, use=use)


def variable(name: str, get: str, *, required: bool = True) -> Need:
    """An environment variable; its value is never shown."""
    return Need(name=name, found="set" if os.environ.get(name) else "", get=get, required=required)


def java(least: int, *, required: bool = True, use: str = "") -> Need:
    """A Java runtime of at least the major version `least`: JAVA_HOME's, else the one on PATH."""
    now, home = java_version(), os.environ.get("JAVA_HOME")
    major = re.match(r"\d+", now)
    found = now if major and int(major[0]) >= least else ""
    got = f" (here is {now})" if now and not found else ""
    unset = f", and unset JAVA_HOME = {home} or set it to that Java" if home else ""
    return Need(
        name=f"Java {least} or newer",
        found=found,
        get=f"apt install openjdk-{max(least, 17)}-jre-headless{got}{unset}",
        required=required,
        use=use,
    )


def java_command() -> str | None:
    """The `java` of JAVA_HOME if that is set, else the one on the PATH; None if there is none."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")


def java_version() -> str:
    """The version of `java_command`, such as "17.0.9"; empty if there is none. 1.8 counts as 8."""
    command = java_command()
    if command is None:
        return ""
    try:
        answer = subprocess.run(
            [command, "-version"], capture_output=True, text=True, timeout=JAVA_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r'version "(?:1\.)?(\d+[^"]*)"', answer.stderr + answer.stdout)
    return found[1] if found else ""
