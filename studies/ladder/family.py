"""Rung (b): every method on one family of household tasks, with a transformer and one seed."""

from functools import cache
from pathlib import Path
from statistics import fmean

from studies import plan, results, tables
from studies.analysis import Panel, result, start, verdict
from studies.ladder import rung_a
from tutelage.evaluation.statistics import Estimate

STUDY = Path(__file__).with_name("family.toml")
RESULTS = STUDY.with_name("family.json")


@cache
def measured() -> Panel | None:
    """The results; None where there are none yet."""
    if not RESULTS.exists():
        return None
    return Panel(results.read(RESULTS), plan.load(STUDY).last)


def gain(method: str) -> Estimate | None:
    """Success after training minus before, paired by task; None for a method that was not run."""
    panel = measured()
    if panel is None or not panel.values(method):
        return None
    return panel.gap(method, method, result, of_baseline=start)


def learnt(method: str) -> bool:
    """Whether the success rose by more than chance explains."""
    found = gain(method)
    return found is not None and found.distinguishable and found.mean > 0


def table() -> str:
    """A row for each method that was run, in the order of rung (a)."""
    panel, study = measured(), plan.load(STUDY)
    rows = []
    for name, method in rung_a.METHODS.items():
        found = gain(name)
        if panel is None or found is None:
            continue
        (run,) = panel.results.of(name)
        before, after = run.evaluations[0], run.evaluations[-1]
        config = next(r.config for r in study.runs if r.method == name)
        assert config is not None
        rows.append(
            [
                f"`{name}`",
                method.taught,
                f"{config.update.lr:.0e}".replace("e-0", "e-"),
                tables.percent(fmean(before.won)),
                tables.percent(fmean(after.won)),
                f"{tables.signed(found)}: {verdict(found, 'gains', 'loses').removesuffix(', one seed')}",
                tables.percent(after.invalid),
            ]
        )
    head = ["method", "taught by", "rate", "start", "6 steps", "points (95 %)", "refused turns"]
    return tables.table(head, rows)
