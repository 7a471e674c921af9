"""`tutelage compare` and `tutelage power`: runs on the same tasks, and what a comparison can
show."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tutelage.cli.tables import print_table
from tutelage.errors import ConfigError, RunError
from tutelage.evaluation import comparison
from tutelage.evaluation.comparison import Comparison, Design, Evaluated, Measured
from tutelage.evaluation.plots import COLOURS, Point, learning_curve
from tutelage.evaluation.statistics import rate
from tutelage.viewer.runs import Folder, find

FORMS = {".md": "markdown", ".csv": "csv", ".tex": "latex"}
"""The form of a file, by its ending."""
RESULT = 5
"""Columns that tell the result; those after them tell what it took."""
WIDE = 110
"""Columns of a terminal from which on what it took stands in one table."""
LABELS = {
    "steps": "training steps",
    "episodes": "episodes",
    "tokens": "tokens trained on",
    "seconds": "seconds of training",
}
PLOTS = (".png", ".svg", ".pdf")


def evaluated(folders: Sequence[Path]) -> list[Evaluated]:
    """The runs at the folders or below them. Raises RunError for what was not evaluated."""
    runs = [folder for folder in find(folders) if folder.kind == "run"]
    # a path without a run would be left out of the comparison in silence
    empty = [path for path in folders if not any(run.kind == "run" for run in find([path]))]
    if empty:
        raise RunError(f"there is no run in {', '.join(map(str, empty))}; give folders of runs")
    found = [_read(folder) for folder in runs]
    groups: dict[str, str] = {}
    for folder, run in zip(runs, found, strict=True):
        groups.setdefault(str(folder.summary()["group"]), run.method)
    named = []
    for folder, run in zip(runs, found, strict=True):
        # two settings of one algorithm are two methods, distinguished by their folders
        twins = sum(method == run.method for method in groups.values())
        named.append(run if twins == 1 else replace(run, method=_twin(folder, runs)))
    return named


def _twin(folder: Folder, runs: Sequence[Folder]) -> str:
    group = folder.summary()["group"]
    return next(other.name for other in runs if other.summary()["group"] == group)


def _read(folder: Folder) -> Evaluated:
    row = folder.summary()
    if row["problem"]:
        raise RunError(str(row["problem"]))
    lines = [line for line in folder.evaluations() if not line.get("hint")]
    if not lines or not all(line.get("outcomes") for line in lines):
        raise RunError(
            f"{folder.path} was not evaluated; set eval.every when it is trained, or leave it out"
        )
    if not all({"panel", "split", "step"} <= line.keys() for line in lines):
        raise RunError(f"{folder.path} has an evaluation without its panel; evaluate it again")
    panels = {str(line["panel"]) for line in lines}
    if len(panels) > 1:
        raise RunError(f"{folder.path} was evaluated on several panels: {', '.join(panels)}")
    x = folder.series([], "train")["x"]
    return Evaluated(
        name=str(folder.path),
        method=str(row["method"]),
        seed=_seed(row["seed"]),
        panel=str(lines[-1]["panel"]),
        split=str(lines[-1]["split"]),
        evaluations=tuple(
            Measured(
                outcomes=tuple(float(won) for won in line["outcomes"]),
                spent=_spent(x, int(line["step"])),
            )
            for line in lines
        ),
    )


def _seed(value: object) -> int:
    return value if isinstance(value, int) else 0


def _spent(x: Mapping[str, Sequence[float]], step: int) -> dict[str, float]:
    """What had been spent when so many steps were done, the warm start's part in it."""
    at = max((k for k, done in enumerate(x["step"]) if done <= step), default=None)
    spent = {"steps": float(step)}
    if at is not None:
        spent |= {name: x[name][at] for name in ("episodes", "tokens", "seconds")}
    elif step == 0:
        spent |= dict.fromkeys(("episodes", "tokens", "seconds"), 0.0)
    return spent


def compare(
    folders: Sequence[Path],
    console: Console,
    *,
    baseline: str,
    last: int,
    mark: float | None,
    form: str,
    out: Path | None,
    plot: Path | None,
    by: str = "steps",
) -> None:
    """Print the comparison, or write it to a file whose ending says its form; and a plot."""
    if out is not None and out.suffix not in FORMS:
        raise ConfigError(f"--out {out} must end in one of {', '.join(FORMS)}")
    if plot is not None and plot.suffix not in PLOTS:
        raise ConfigError(f"--plot {plot} must end in one of {', '.join(PLOTS)}")
    for path in (out, plot):
        if path is not None and path.exists():
            raise ConfigError(f"{path} exists already; choose another file, or remove it")
    runs = evaluated(folders)
    found = comparison.compare(runs, baseline=baseline, last=last, mark=mark)
    if out is not None:
        _write(out, comparison.rendered(found, FORMS[out.suffix]))
        print(f"written to {out}")
    elif form == "text":
        _text(found, console)
    else:
        sys.stdout.write(comparison.rendered(found, form))
    if plot is not None:
        _plot(runs, found, plot, by)
        print(f"written to {plot}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror})") from error


def _text(found: Comparison, console: Console) -> None:
    titles, cells = comparison.columns(found)
    half = RESULT + (len(titles) - RESULT) // 2
    parts = [range(RESULT), [0, *range(RESULT, half)], [0, *range(half, len(titles))]]
    if console.width >= WIDE:
        parts[1:] = [[0, *range(RESULT, len(titles))]]
    for part in parts:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for k in part:
            # the verdict alone is wrapped, where it must be
            side, whole = "left" if k < 2 else "right", k != RESULT - 1
            table.add_column(titles[k], justify=side, no_wrap=whole)  # type: ignore[arg-type]
        for line in cells:
            table.add_row(*(line[k] for k in part))
        print_table(console, table)
        console.print()
    console.print(comparison.note(found), soft_wrap=True, highlight=False)


def _plot(runs: Sequence[Evaluated], found: Comparison, path: Path, by: str) -> None:
    """Success by training steps, or by the mean of what a method's seeds had spent of something
    else; seeds are pooled."""
    curves = {}
    for row in found.rows:
        members = [run for run in runs if run.method == row.method]
        steps = [[e.spent["steps"] for e in run.evaluations] for run in members]
        common = [step for step in steps[0] if all(step in other for other in steps)]
        points = []
        for step in common:
            table = [
                run.evaluations[own.index(step)].outcomes
                for run, own in zip(members, steps, strict=True)
            ]
            pooled = rate(table)
            spent = [
                run.evaluations[own.index(step)].spent.get(by)
                for run, own in zip(members, steps, strict=True)
            ]
            known = [x for x in spent if x is not None]
            if len(known) < len(spent):
                continue  # it was not logged how much that was
            points.append(
                Point(
                    step=int(step),
                    at=sum(known) / len(known),
                    success=pooled.mean,
                    low=pooled.low,
                    high=pooled.high,
                    n=pooled.tasks,
                )
            )
        seeds = f", {len(members)} seeds" if len(members) > 1 else ""
        curves[f"{row.method}{seeds}"] = points
    if len(curves) > len(COLOURS):
        raise ConfigError(
            f"at most {len(COLOURS)} methods can be told apart in a plot, and there are {len(curves)}; "
            "name fewer runs"
        )
    note = comparison.caption(found)
    learning_curve(curves, path, title="", note=note, label=LABELS[by])


def power(console: Console, design: Design, *, wished: float | None) -> None:
    """Print what a design can show, and what a wished difference takes."""
    shown: list[Any] = [
        f"{design.tasks} tasks, {design.seeds} seed{'s' if design.seeds > 1 else ''} a method, "
        f"success near {100 * design.rate:.0f} %:",
        f"a true difference of {100 * design.detectable:.1f} points is found in 80 of 100 "
        "comparisons (95 % intervals)",
    ]
    if design.seeds == 1:
        shown.append("one seed covers the variation of tasks alone: it says nothing of other seeds")
    if wished is not None:
        tasks = comparison.tasks_needed(design, wished)
        seeds = comparison.seeds_needed(design, wished)
        few = "no number of tasks" if tasks is None else f"{tasks:,} tasks"
        many = "no number of seeds below 1,000" if seeds is None else f"{seeds:,} seeds a method"
        shown.append(
            f"a difference of {100 * wished:.1f} points takes {few} with these seeds, or {many} "
            "with these tasks"
        )
    for line in shown:
        console.print(line, soft_wrap=True, highlight=False)
