"""Named panels: what is shipped is what the suites play, and results say whether they are on one."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

from tutelage.config.schema import EnvSection
from tutelage.envs.doors import Doors
from tutelage.envs.registry import SUITES, suite_of
from tutelage.errors import ConfigError
from tutelage.evaluation import panels
from tutelage.evaluation.evaluate import panel

SMALL = ("doors-seen-9", "doors-unseen-9", "tau_bench-test-100", "household-seen-100")


def test_every_suite_has_a_panel() -> None:
    assert {named.suite for named in panels.shipped().values()} == set(SUITES)
    for name, named in panels.shipped().items():
        assert name == f"{named.suite}-{named.split}-{len(named.tasks)}"
        assert len(dict(named.tasks)) == len(named.tasks)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in SMALL else (pytest.mark.nightly,)) for n in panels.shipped()],
)
def test_a_shipped_panel_is_what_its_suite_plays(name: str) -> None:
    named = panels.find(name)
    if named.suite == "scienceworld" and not (find_spec("scienceworld") and which("java")):
        pytest.skip("ScienceWorld or Java is not installed")
    if named.suite == "textworldexpress" and not (find_spec("textworld_express") and which("java")):
        pytest.skip("TextWorldExpress or Java is not installed")
    if named.suite == "bfcl" and not find_spec("bfcl_eval"):
        pytest.skip("bfcl-eval is not installed")
    found = panels.chosen(suite_of(EnvSection(suite=named.suite)), named)
    assert [task.id for task in found.tasks] == [task for task, _ in named.tasks]
    assert panels.name_of(found) == name
    assert panels.described(found) == f"panel {name} ({named.fingerprint})"


def test_other_tasks_are_on_no_panel() -> None:
    found = panel(Doors(), "unseen", 8)
    assert panels.name_of(found) == ""
    assert panels.described(found) == f"not on a shipped panel ({found.fingerprint})"


def test_a_panel_of_ones_own_lists_any_tasks_in_any_order(tmp_path: Path) -> None:
    tasks = [(task.id, task.seed) for task in Doors().tasks("unseen")][6:2:-2]
    named = replace(panels.find("doors-unseen-9"), tasks=tuple(tasks), fingerprint="none")
    path = tmp_path / "own.json"
    path.write_text(panels.written(named))
    with pytest.raises(ConfigError, match="show something else here") as refused:
        panels.chosen(Doors(), panels.find(str(path)))
    right = str(refused.value).split("fingerprint ")[1].split(",")[0]
    path.write_text(path.read_text().replace('"none"', json.dumps(right)))
    found = panels.chosen(Doors(), panels.find(str(path)))
    assert [task.id for task in found.tasks] == [task for task, _ in tasks]


def test_a_panel_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    named = panels.find("doors-unseen-9")
    other = replace(named, tasks=(*named.tasks[:-1], ("doors/zz", 0)))
    with pytest.raises(ConfigError, match="has no task doors/zz"):
        panels.chosen(Doors(), other)
    seeded = replace(named, tasks=((named.tasks[0][0], 5), *named.tasks[1:]))
    with pytest.raises(ConfigError, match="another seed for doors/aa"):
        panels.chosen(Doors(), seeded)
    with pytest.raises(ConfigError, match=r"did you mean doors-seen-9\?"):
        panels.find("doors-sen-9")
    with pytest.raises(ConfigError, match="there is no file"):
        panels.find(str(tmp_path / "own.json"))
    (tmp_path / "bad.json").write_text('{"suite": 1}')
    with pytest.raises(ConfigError, match="is no panel"):
        panels.find(str(tmp_path / "bad.json"))
