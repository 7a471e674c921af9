"""The page of the study, made from results.json alone: equal results give equal bytes."""

from collections.abc import Mapping
from pathlib import Path

from studies.analysis import Panel
from studies.household import sections
from studies.plan import Study
from studies.results import Results
from studies.runner import put
from tutelage.evaluation import plots
from tutelage.evaluation.statistics import Estimate

PAGE, PICTURES = "household.md", "household"
HERE, REPEAT = "## Measured here\n\n", "To repeat the small run:\n"
"""Between these, the page of a method has its results."""


def render(study: Study, results: Results, out: Path) -> Path:
    """Write `out`/household.md and its pictures in `out`/household, and into the pages of methods
    beside `out` what each of them came to; the page."""
    panel = Panel(results, study.last)
    pictures = _pictures(study, panel, out / PICTURES)
    parts = [
        sections.head(study, results),
        sections.main(study, panel, study.notes.get("general", "")),
        *(f"![{title}]({PICTURES}/{name}.png)" for name, title in pictures.items()),
        sections.paired(study, panel),
        sections.families(study, panel),
        sections.claimed(study, panel),
        sections.further(study, panel),
        sections.method(study, results),
        sections.every_run(study, panel),
    ]
    page = out / PAGE
    put(page, "\n\n".join(part for part in parts if part) + "\n")
    for path in sorted((out.parent / "methods").glob("*.md")):
        before, here, rest = path.read_text(encoding="utf-8").partition(HERE)
        _, repeat, after = rest.partition(REPEAT)
        if here and repeat:
            found = sections.of_algorithm(study, panel, path.stem)
            put(path, f"{before}{here}{found}\n\n{repeat}{after}")
    return page


def _pictures(study: Study, panel: Panel, folder: Path) -> dict[str, str]:
    """Draw what there are results for: name -> title."""
    pictures: dict[str, str] = {}
    results = panel.results
    note = f"panel {results.panel}, {len(results.families)} unseen tasks, temperature "
    note += f"{results.temperature:g}; the student alone"
    teacher = panel.rate("teacher")
    rows = _rows(study, panel)
    if rows:
        starts = [e for e in (panel.start(),) if e]
        marks = {
            **({"teacher": teacher.mean} if teacher else {}),
            **({"start": starts[0].mean} if starts else {}),
        }
        pictures["success"] = "Success on the panel, mean of the last evaluations"
        plots.intervals(
            rows, folder / "success.png", title=pictures["success"], marks=marks, note=note
        )
    for name, (title, methods) in study.pictures.items():
        curves = {
            study.titles.get(m, m): [_point(e, step) for step, e in panel.curve(m)]
            for m in methods
            if results.of(m)
        }
        if curves:
            pictures[name] = title
            plots.learning_curve(
                curves,
                folder / f"{name}.png",
                title=f"{title}: mean over seeds",
                teacher=_point(teacher, 0) if teacher else None,
                note=note,
            )
    return pictures


def _rows(study: Study, panel: Panel) -> Mapping[str, plots.Point]:
    found = {study.titles[m]: panel.rate(m) for m in sections.methods_of(study, "main", "ablation")}
    return {name: _point(e, 0) for name, e in found.items() if e}


def _point(found: Estimate, step: int) -> plots.Point:
    return plots.Point(step=step, success=found.mean, low=found.low, high=found.high, n=found.tasks)
