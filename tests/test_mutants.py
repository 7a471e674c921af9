"""The list of bugs is alive: each can still be put into the code. `tests/mutants.py` runs them."""

import ast
from pathlib import Path

import pytest
from mutants import ROOT, apply, load

ALL = load()


@pytest.mark.parametrize("mutant", ALL, ids=lambda m: f"{m.file}-{m.name}".replace(" ", "-"))
def test_a_bug_still_fits_the_code(mutant: object) -> None:
    assert ast.parse(apply(mutant, ROOT))  # type: ignore[arg-type]
    for test in mutant.tests:  # type: ignore[attr-defined]
        assert (ROOT / test.partition("::")[0]).exists()


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= 100
    assert len({(m.file, m.name) for m in ALL}) == len(ALL)
    assert {Path(m.file).parts[0] for m in ALL} > {"maths", "policies", "envs", "algorithms"}
