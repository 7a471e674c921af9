"""What a notebook shows of a run: one output, its bar, its curves and its notes."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from support.fake_notebook import open_notebook
from support.tiny_runs import tiny_run

from tutelage.cli import library
from tutelage.runs.notebook import HEIGHT, MARGIN, WIDTH, Notebook, curve, in_notebook


def parsed(text: str) -> ET.Element:
    """The output as a tree: it must be well-formed."""
    return ET.fromstring(f"<div>{text}</div>")


def points(text: str) -> list[tuple[float, float]]:
    (line,) = parsed(text).iter("polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]  # type: ignore[misc]


def test_a_curve_goes_from_left_to_right_and_up_where_values_rise() -> None:
    drawn = points(curve("loss", [1.0, 3.0, 2.0]))
    assert all(a[0] < b[0] for a, b in pairwise(drawn))
    assert [x for x, _ in drawn] == [MARGIN, WIDTH / 2, WIDTH - MARGIN]
    assert [y for _, y in drawn] == [HEIGHT - MARGIN, MARGIN, HEIGHT / 2]


def test_what_is_not_finite_is_left_out_and_equal_values_are_a_line() -> None:
    assert len(points(curve("loss", [1.0, math.nan, 2.0, math.inf]))) == 2
    assert curve("loss", [math.nan]) == ""
    assert {y for _, y in points(curve("loss", [0.5, 0.5]))} == {HEIGHT - MARGIN}
    assert "0.25 (from 0.25 to 1)" in "".join(parsed(curve("a<b", [1.0, 0.25])).itertext())


def test_this_is_no_notebook() -> None:
    assert not in_notebook()


def test_a_run_in_a_notebook_is_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = open_notebook(monkeypatch)
    assert in_notebook()
    config = tiny_run(run={"folder": str(tmp_path / "a<b")}, eval={"every": 2, "tasks": 3})
    run = library.train(config)
    assert len(run.metrics()) == 2
    (output,) = cell.outputs
    bar = next(parsed(output).iter("progress"))
    assert (bar.attrib["value"], bar.attrib["max"]) == ("2", "2")
    assert [
        len(re.findall(",", line.attrib["points"])) for line in parsed(output).iter("polyline")
    ] == [
        2,
        2,
    ]
    text = "".join(parsed(output).itertext())
    assert "a<b: train" in text
    assert "evaluation at step 2: " in text
    assert "note: " in text  # random weights: nothing is won
    assert "playing" not in text  # it has ended


def test_ctrl_c_in_a_notebook_gives_the_run_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_notebook(monkeypatch)

    class Stopped(Notebook):
        def stepped(self, line: object, seconds: object) -> None:
            raise KeyboardInterrupt

    folder = str(tmp_path / "run")
    run = library.train(
        tiny_run(run={"folder": folder, "steps": 5}, eval={"every": 0}), watch=Stopped()
    )
    assert len(run.metrics()) == 1
    assert run.checkpoint("step-000001").is_dir()
