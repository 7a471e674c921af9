"""A stand-in for IPython's kernel and its display, as far as a notebook's output goes."""

import sys
from types import ModuleType, SimpleNamespace

import pytest


class Cell:
    """What a cell shows: one text for each display, replaced when it is updated."""

    def __init__(self) -> None:
        self.outputs: list[str] = []

    def display(self, text: str, *, display_id: bool) -> SimpleNamespace:
        assert display_id, "without an id an output cannot be replaced"
        place = len(self.outputs)
        self.outputs.append(text)

        def update(new: str) -> None:
            self.outputs[place] = new

        return SimpleNamespace(update=update)


def open_notebook(patch: pytest.MonkeyPatch) -> Cell:
    """From here on this process looks like the kernel of a notebook; what its cell shows."""
    cell = Cell()
    package, shown = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    shown.display, shown.HTML = cell.display, str  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "IPython", package)
    patch.setitem(sys.modules, "IPython.display", shown)
    return cell
