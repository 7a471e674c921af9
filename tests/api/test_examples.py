"""The examples in Python run, and their claims about learning hold."""

import json
import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_flat_loop_learns() -> None:
    """A random answer earns 2/3 of a point on average, all doors 2."""
    history = runpy.run_path(str(EXAMPLES / "loop.py"))["main"]()
    assert sum(history[-5:]) / 5 > sum(history[:5]) / 5 + 0.3


def test_the_notebook_runs_cell_by_cell() -> None:
    cells = json.loads((EXAMPLES / "one_method.ipynb").read_text())["cells"]
    names: dict[str, object] = {"__name__": "notebook"}
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6
    for k, text in enumerate(code):
        exec(compile(text, f"cell {k}", "exec"), names)
    losses = names["losses"]
    assert isinstance(losses, list)
    assert losses[-1] < losses[0]
    columns = names["columns"]
    assert isinstance(columns, dict)
    assert all(0 < x < 1 for x in columns["gate[sdar]"])
