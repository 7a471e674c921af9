"""docs/environments/learning.md and its pictures, from the worlds' results."""

from pathlib import Path

from studies import plan, results, runner
from studies.analysis import Panel, result, start, verdict
from studies.plan import Study, episodes_of
from studies.results import Results
from studies.tables import ends, percent, signed, table
from studies.worlds import WORLDS, results_file, study_file
from tutelage.evaluation import plots

HEAD = """# Learning curves

<!-- Written by `python -m studies.worlds render` from studies/worlds/*.json. -->

In each suite below, a small model with random weights first imitates demonstrations: the shared
start, one per seed. Methods continue from there and are evaluated on the suite's pinned panel, the student
alone. Intervals (95 %) are two-way bootstraps over seeds and tasks; a result is
the mean of the last evaluations, the start that of step 0. The tasks are small generated ones
under the originals' rules: the curves show whether the whole loop learns in a suite, not what a
language model reaches on the papers' data. Household has [a study of its own](../studies/household.md);
`bfcl` and `textworldexpress` have no curve yet.

```sh
python -m studies.worlds run SUITE     # continues after any interruption
python -m studies.worlds render
```"""
COLUMNS = [
    "",
    "episodes",
    "success",
    "95 % interval",
    "gain over the start, in points",
    "",
    "seeds",
]


def render(out: Path) -> Path:
    """Write `out`/learning.md and its pictures; the page."""
    parts = [HEAD]
    for world in WORLDS:
        path = results_file(world)
        if path.exists():
            parts.append(section(world, plan.load(study_file(world)), results.read(path), out))
        else:
            parts.append(f"## {world}\n\nNot run yet.")
    page = out / "learning.md"
    runner.put(page, "\n\n".join(parts) + "\n")
    return page


def section(world: str, study: Study, found: Results, out: Path) -> str:
    """A world's heading, table and picture."""
    panel = Panel(found, study.last)
    methods = [m for m in study.titles if found.of(m)]
    warm = study.starts[0].config
    assert warm is not None
    commits = ", ".join(sorted({f"`{r.commit[:10]}`" for r in found.runs}))
    parts = [
        f"## {world}",
        study.notes.get("world", "").strip(),
        f"[studies/worlds/{world}.toml](../../studies/worlds/{world}.toml): the start saw "
        f"{episodes_of(warm):,} demonstrations. Panel {found.panel}, {len(found.families)} tasks "
        f"of the split {found.split}, temperature {found.temperature:g}; "
        f"{found.machine['processor']}, one thread a run; commit {commits}.",
        table(COLUMNS, _rows(study, panel, methods)),
        _picture(world, study, panel, methods, out),
        study.notes.get("found", "").strip(),
    ]
    return "\n\n".join(part for part in parts if part)


def _rows(study: Study, panel: Panel, methods: list[str]) -> list[list[str]]:
    rows = []
    played = {run.method: episodes_of(run.config) for run in study.runs if run.config}
    if first := panel.start():
        rows.append(["*shared start*", "", percent(first.mean), ends(first), "", "", ""])
    for m in methods:
        rate, gain = panel.rate(m), panel.gap(m, m, result, start)
        if rate and gain:
            seeds = str(len(panel.results.of(m)))
            outcome = verdict(gain, "learns", "gets worse")
            row = [percent(rate.mean), ends(rate), signed(gain), outcome, seeds]
            rows.append([study.titles[m], f"{played[m]:,}", *row])
    return rows


def _picture(world: str, study: Study, panel: Panel, methods: list[str], out: Path) -> str:
    curves = {
        study.titles[m]: [
            plots.Point(step=s, success=e.mean, low=e.low, high=e.high, n=e.tasks)
            for s, e in panel.curve(m)
        ]
        for m in methods
    }
    if not curves:
        return ""
    title = f"{world}: success on the panel, mean over seeds"
    note = f"panel {panel.results.panel}, {len(panel.results.families)} tasks"
    plots.learning_curve(curves, out / "learning" / f"{world}.png", title=title, note=note)
    return f"![{title}](learning/{world}.png)"
