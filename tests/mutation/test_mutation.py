"""The mutants themselves: the changes of the operators, and stale semantic mutants."""

import json
from pathlib import Path

import pytest

from tests.mutation import __main__ as runner
from tests.mutation import operators, semantic

SOURCE = '''
"""A module."""


def loss(a: int, b: float = 0.5) -> float:
    """1 < 2 in a text is no comparison."""
    if a < 3:
        raise ValueError(a + 1)
    log(a)
    return scaled(a, b).sum().item() - b


class Term:
    def of(self, x):
        return x[0] is None
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "maths").mkdir()
    (tmp_path / "maths" / "terms.py").write_text(SOURCE)
    return tmp_path


def test_operators(package: Path) -> None:
    found = operators.mutants(package, ("maths",))
    changes = {(m.id.split(":", 1)[1], m.was, m.became) for m in found}
    assert changes == {
        ("loss:constant:1", "0.5", "(1.5)"),
        ("loss:compare:1", "a < 3", "(a >= 3)"),
        ("loss:boundary:1", "a < 3", "(a <= 3)"),
        ("loss:constant:2", "3", "(4)"),
        ("loss:drop call:1", "log(a)", "pass"),
        ("loss:arithmetic:1", "scaled(a, b).sum().item() - b", "(scaled(a, b).sum().item() + b)"),
        ("loss:drop call:2", "scaled(a, b).sum().item()", "(scaled(a, b).sum())"),
        ("loss:drop call:3", "scaled(a, b).sum()", "(scaled(a, b))"),
        ("loss:swap arguments:1", "scaled(a, b)", "(scaled(b, a))"),
        ("Term.of:compare:1", "x[0] is None", "(x[0] is not None)"),
        ("Term.of:constant:1", "0", "(1)"),
    }
    for mutant in found:
        assert mutant.source != SOURCE
        assert mutant.became in mutant.source


def test_an_id_does_not_change_with_edits_elsewhere(package: Path) -> None:
    before = {m.id for m in operators.mutants(package, ("maths",)) if "Term" in m.id}
    path = package / "maths" / "terms.py"
    path.write_text(SOURCE.replace("    log(a)\n", "    log(a - 1)\n    log(a < 7)\n"))
    assert before == {m.id for m in operators.mutants(package, ("maths",)) if "Term" in m.id}


def bug(old: str, new: str, function: str = "loss") -> semantic.Bug:
    return semantic.Bug("a bug", "maths/terms.py", function, old, new)


def test_a_bug_by_meaning_is_found_however_the_code_is_laid_out(package: Path) -> None:
    mutated = semantic.applied(bug("scaled(a, b).sum()", "scaled(b, a).sum()"), package)
    assert mutated == SOURCE.replace("scaled(a, b)", "scaled(b, a)")
    path = package / "maths" / "terms.py"
    path.write_text(SOURCE.replace("scaled(a, b)", "scaled(\n        a,\n        b,\n    )"))
    assert "return scaled(b, a).sum()" in semantic.applied(
        bug("scaled(a, b).sum()", "scaled(b, a).sum()"), package
    )


@pytest.mark.parametrize(
    "stale",
    [
        bug("no such code", ""),
        bug("a", "b"),  # more than once
        bug("x[0]", "x[1]"),  # of another function
        bug("x[0]", "x[1]", "Term.gone"),
        bug("a < 3", "a <"),
    ],
)
def test_a_stale_bug_is_reported(package: Path, stale: semantic.Bug) -> None:
    with pytest.raises(semantic.StaleError):
        semantic.applied(stale, package)


def test_survivors_keep_their_explanations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "survivors.json"
    monkeypatch.setattr(runner, "SURVIVORS", path)
    jobs = [runner.Job(name, "maths/terms.py", "a", "b", "") for name in ("one", "two", "three")]
    noticed = {"one": False, "two": False, "three": True}
    assert runner.write_survivors(jobs, noticed) == ["one", "two"]
    entries = json.loads(path.read_text())
    entries[0]["explanation"] = "equivalent: a equals b"
    path.write_text(json.dumps(entries))
    assert runner.write_survivors(jobs, noticed) == ["two"]
    assert runner.write_survivors(jobs[1:2], {"two": True}) == []
    assert [entry["id"] for entry in json.loads(path.read_text())] == ["one"]
    # an explanation is of one change: another change of the same name needs its own
    changed = jobs[0]._replace(became="c")
    assert runner.write_survivors([changed], {"one": False}) == ["one"]


def test_bugs_of_every_room_are_drawn_the_same_way_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = operators.mutants(runner.PACKAGE, ("maths", "training"))
    monkeypatch.setattr(operators, "mutants", lambda package, rooms: list(found))
    todo, _ = runner.jobs_of(20, 3, ["maths", "training"], "operators")
    again, _ = runner.jobs_of(20, 3, ["maths", "training"], "operators")
    other, _ = runner.jobs_of(20, 4, ["maths", "training"], "operators")
    assert [job.id for job in todo] == [job.id for job in again] != [job.id for job in other]
    assert len(todo) == 20
    assert {job.file.partition("/")[0] for job in todo} == {"maths", "training"}


def test_no_bug_of_the_list_is_stale_and_each_has_tests() -> None:
    todo, stale = runner.jobs_of(0, 0, (), "semantic")
    assert not stale
    assert all(job.tests for job in todo)
