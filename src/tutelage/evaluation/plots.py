"""Plots of a run as PNG, drawn from the files in its folder."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import RunError
from tutelage.rollout import record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The palette of Okabe and Ito, which is safe for colour blindness."""
MARKS = ("o", "s", "^", "D", "v", "P")
"""One for each colour, so that curves can be told apart in black and white."""
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)))
"""Likewise."""
NOTE_COLUMNS = 118
"""Characters of a line of the caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One evaluation: success and its interval after `step` training steps, or at another place
    `at` of the x-axis, such as the tokens trained on by then."""

    step: int
    success: float
    low: float
    high: float
    n: int
    at: float | None = None

    @property
    def x(self) -> float:
        return self.step if self.at is None else self.at


def points(run: Path) -> list[Point]:
    """The evaluations of a run folder, in order: the student alone, without a hint."""
    path = run / "evals.jsonl"
    if not path.exists():
        raise RunError(f"{run} holds no evals.jsonl; give the folder of a run that was evaluated")
    return [
        Point(
            step=int(str(line["step"])),
            success=float(str(line["success"])),
            low=float(str(line["low"])),
            high=float(str(line["high"])),
            n=int(str(line["n"])),
        )
        for line in record.read(path)
        if not line.get("hint")
    ]


def learning_curve(
    curves: Mapping[str, Sequence[Point]],
    path: Path,
    *,
    title: str,
    teacher: Point | None = None,
    note: str = "",
    label: str = "training steps",
) -> None:
    """Success rate against training steps or what `label` names, one line per run with a 95 % band,
    as a PNG; also as an SVG or a PDF, by the ending of `path`."""
    from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

    if len(curves) > len(COLOURS):
        raise ValueError(f"at most {len(COLOURS)} curves can be distinguished, got {len(curves)}")
    figure, axes = _empty((8, 5))
    if teacher is not None:
        axes.axhspan(teacher.low, teacher.high, color="0.9", linewidth=0)
        axes.axhline(teacher.success, color="0.45", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"teacher {teacher.success:.1%}",
            (1.0, teacher.success),
            xycoords=("axes fraction", "data"),
            xytext=(-6, 5),
            textcoords="offset points",
            ha="right",
            color="0.35",
        )
    styles = zip(COLOURS, MARKS, LINES, strict=True)
    for (colour, mark, line), (name, curve) in zip(styles, curves.items(), strict=False):
        x, low, high = [p.x for p in curve], [p.low for p in curve], [p.high for p in curve]
        axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
        for end in (low, high):
            axes.plot(x, end, color=colour, alpha=0.45, lw=0.6)
        look: dict[str, Any] = {"marker": mark, "markersize": 5.5, "markeredgecolor": "white"}
        axes.plot(x, [p.success for p in curve], linestyle=line, color=colour, label=name, **look)
        if len(curve) == 1:  # a band of one point cannot be seen
            axes.errorbar(
                x,
                [curve[0].success],
                [[curve[0].success - low[0]], [high[0] - curve[0].success]],
                color=colour,
                capsize=3,
                lw=1,
            )
    sizes = sorted({p.n for curve in curves.values() for p in curve})
    axes.set(
        title=title,
        xlabel=label,
        ylabel=f"tasks solved (n = {', '.join(map(str, sizes))}; band: 95 % interval)",
        ylim=(0, 1.03),
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if max((p.x for curve in curves.values() for p in curve), default=0) >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=3.2)
    _save(figure, path, note)


def intervals(
    rows: Mapping[str, Point],
    path: Path,
    *,
    title: str,
    marks: Mapping[str, float] | None = None,
    note: str = "",
) -> None:
    """Success rates with their intervals, one row per name, as a PNG. `marks` are reference values,
    such as the teacher's, drawn across all rows."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = _empty((8, 1.4 + 0.34 * len(rows)))
    for at, (name, value) in enumerate((marks or {}).items()):
        axes.axvline(value, color="0.45", linestyle=("--", ":", "-.")[at % 3], lw=1.2, label=name)
    middles = [p.success for p in rows.values()]
    axes.errorbar(
        middles,
        range(len(rows)),
        xerr=[
            [p.success - p.low for p in rows.values()],
            [p.high - p.success for p in rows.values()],
        ],
        fmt="o",
        color=COLOURS[0],
        markersize=5,
        capsize=3,
    )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    sizes = ", ".join(map(str, sorted({p.n for p in rows.values()})))
    axes.set(title=title, xlabel=f"tasks solved (n = {sizes}; bars: 95 % intervals)", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if marks:
        axes.legend(loc="best", frameon=False)
    _save(figure, path, note)


def _empty(size: tuple[float, float]) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: "Figure", path: Path, note: str) -> None:
    from matplotlib import rc_context

    if note:
        lines = "\n".join(textwrap.wrap(note, NOTE_COLUMNS))
        figure.supxlabel(lines, fontsize=8, color="0.3", x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    # no date and no version, so that equal plots are equal files
    unsaid = {
        ".png": ["Software"],
        ".svg": ["Date", "Creator"],
        ".pdf": ["CreationDate", "Creator"],
    }
    # the ids in an SVG are random without a salt; fonts that an editor can change, and a journal takes
    with rc_context({"svg.hashsalt": "tutelage", "pdf.fonttype": 42}):
        figure.savefig(path, metadata=dict.fromkeys(unsaid.get(path.suffix, [])))
