"""A progress bar and live curves in a notebook: HTML and SVG, redrawn after every step."""

import html
import math
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from tutelage.config.schema import Config

WIDTH, HEIGHT, MARGIN = 360, 120, 4


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def curve(name: str, values: Sequence[float]) -> str:
    """A curve over steps as SVG, with its last, lowest and highest value."""
    finite = [(i, y) for i, y in enumerate(values) if math.isfinite(y)]
    if not finite:
        return ""
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    across, up = max(1, len(values) - 1), (high - low) or 1.0
    points = " ".join(
        f"{MARGIN + (WIDTH - 2 * MARGIN) * i / across:.1f},"
        f"{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / up:.1f}"
        for i, y in finite
    )
    return (
        f'<figure style="display:inline-block;margin:4px"><figcaption>{html.escape(name)} '
        f"{finite[-1][1]:.4g} (from {low:.4g} to {high:.4g})</figcaption>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" style="border:1px solid #8884">'
        f'<polyline fill="none" stroke="#1f77b4" stroke-width="1.5" points="{points}"/></svg>'
        "</figure>"
    )


class Display:
    """One output of a cell, replaced as often as it changes."""

    def __init__(self) -> None:
        self.handle: Any = None

    def show(self, text: str) -> None:
        shown = import_module("IPython.display")  # nothing that this project depends on
        if self.handle is None:
            self.handle = shown.display(shown.HTML(text), display_id=True)
        else:
            self.handle.update(shown.HTML(text))


class Notebook:
    """Watches a run from a notebook: the step, curves of success and loss, evaluations, notes."""

    def __init__(self) -> None:
        self.display, self.curves = Display(), dict[str, list[float]]()
        self.title, self.done, self.steps, self.now = "", 0, 0, ""
        self.notes: list[str] = []

    def html(self) -> str:
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)
        return (
            f"<div>{html.escape(self.title)} "
            f'<progress max="{max(1, self.steps)}" value="{self.done}"></progress> '
            f"{self.done}/{self.steps} {html.escape(self.now)}</div>"
            + "".join(curve(name, values) for name, values in self.curves.items())
            + notes
        )

    def add(self, **numbers: float) -> None:
        """A step's numbers, one for each curve."""
        for name, value in numbers.items():
            self.curves.setdefault(name, []).append(value)
        self.display.show(self.html())

    def started(self, config: Config, phase: str, step: int) -> None:
        warm = config.warm_start.steps if config.warm_start else 0
        self.title = f"{config.run.folder}: {phase.replace('_', ' ')}"
        self.done, self.steps = step, warm if phase == "warm_start" else config.run.steps
        self.curves.clear()
        self.display.show(self.html())

    def tested(self, names: Sequence[str]) -> None:
        pass

    def playing(self, done: int, total: int) -> None:
        self.now = f"playing {done}/{total}"
        self.display.show(self.html())

    def stepped(self, line: Mapping[str, object], seconds: Mapping[str, float]) -> None:
        self.done, self.now = self.done + 1, f"{seconds['all']:.1f} s a step"
        loss = line["loss"]
        self.add(
            success=float(str(line["won"])) / max(1.0, float(str(line["episodes"]))),
            loss=math.nan if loss is None else float(str(loss)),
        )

    def evaluated(self, line: Mapping[str, object]) -> None:
        hint = f" with {line['hint']}" if line.get("hint") else ""
        self.notes.append(
            f"evaluation at step {line['step']}{hint}: {line['won']} of {line['n']} won"
        )
        self.display.show(self.html())

    def warned(self, sentence: str) -> None:
        self.notes.append(f"note: {sentence}")
        self.display.show(self.html())

    def closed(self) -> None:
        self.now = ""
        self.display.show(self.html())
