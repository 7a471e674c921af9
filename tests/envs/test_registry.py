"""Suites by entry point: packages of third parties lie in a folder on the path, as pip leaves them,
and each test asks a Python of its own, since packages are looked for once in a process."""

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """\
from tutelage.envs.doors import Doors

class Locks(Doors):
    pass
"""
ASK = """\
from tutelage.config.schema import EnvSection
from tutelage.envs.registry import SHIPPED, SUITES, suite_of
from tutelage.errors import TutelageError
from tutelage.hints import bank
try:
    suite = suite_of(EnvSection(suite="{name}", options={options}))
    print(type(suite).__module__, type(suite).__name__, len(suite.tasks("train")))
    print("{name}" in SHIPPED, "{name}" in bank.built_in())
    print(*(skill.text for skill in bank.load("{name}").skills))
except TutelageError as error:
    print(type(error).__name__, error)
"""


def package(folder: Path, name: str, *points: str, code: str = SUITE) -> Path:
    """A distribution and its package, which has the distribution's name."""
    place = folder / name
    place.mkdir()
    (place / "__init__.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[tutelage.suites]", *points, ""]))
    return place


def ask(folder: Path, name: str, options: object = "{}") -> list[str]:
    """What a new process answers to somebody who wants that suite."""
    code = ASK.format(name=name, options=options)
    source = Path(__file__).parents[2] / "src"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(source)!r}]\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=100,
        env={"PATH": "", "PYTHONPATH": str(folder)},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_package_of_a_third_party_brings_a_suite_and_its_bank(tmp_path: Path) -> None:
    skills = package(tmp_path, "acme", "locks = acme:Locks") / "skills"
    skills.mkdir()
    (skills / "letters.txt").write_text("Read the letter.")
    result, known, text = ask(tmp_path, "locks", {"rooms": 1})
    assert result == "acme Locks 3"
    assert known == "False True"
    assert text == "Read the letter."


def test_what_comes_with_this_project_registers_the_same_way(tmp_path: Path) -> None:
    result, known, *texts = ask(tmp_path, "household", {"train": 5})
    assert result == "tutelage_worlds.household.suite Household 5"
    assert known == "True True"
    assert texts


def test_two_packages_with_one_name_are_distinguished(tmp_path: Path) -> None:
    for name in ("acme", "zenith"):
        package(tmp_path, name, f"locks = {name}:Locks")
    (answer,) = ask(tmp_path, "locks")
    assert answer.startswith("ConfigError env.suite: 'locks' is offered by ")
    assert "acme (acme:Locks)" in answer
    assert "zenith (zenith:Locks)" in answer
    assert ask(tmp_path, "zenith:Locks")[0] == "zenith Locks 9"


def test_a_name_of_ours_is_not_taken_over_in_silence(tmp_path: Path) -> None:
    package(tmp_path, "acme", "doors = acme:Locks")
    (answer,) = ask(tmp_path, "doors")
    assert "'doors' is offered by tutelage (tutelage.envs.doors:Doors) and acme" in answer


BROKEN = {
    "no such module": ("locks = acme.missing:Locks", SUITE, "No module named 'acme.missing'"),
    "no such class": ("locks = acme:Keys", SUITE, "acme has no class 'Keys'"),
    "no class named": ("locks = acme", SUITE, "offers 'locks' as 'acme', which is not"),
    "not Python": ("locks = acme:Locks", "class Locks(\n", "could not be imported"),
    "raises": ("locks = acme:Locks", "1 / 0\n", "raised ZeroDivisionError: division by zero"),
    "ends": ("locks = acme:Locks", "raise SystemExit(3)\n", "raised SystemExit: 3"),
    "is no suite": ("locks = acme:Locks", "class Locks: pass\n", "Locks is not a suite"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_entry_point_is_one_sentence(how: str, tmp_path: Path) -> None:
    point, code, words = BROKEN[how]
    package(tmp_path, "acme", point, code=code)
    (answer,) = ask(tmp_path, "locks")
    assert answer.startswith("ConfigError env.suite")
    assert words in answer
    assert ask(tmp_path, "doors")[0] == "tutelage.envs.doors Doors 9"
