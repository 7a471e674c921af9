"""Guided-OPD beside OPD from students of three strengths: does help matter more to weaker students?"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from studies import plan, results, tables
from studies.analysis import Panel, verdict

STUDY = Path(__file__).with_name("strengths.toml")
STARTS = ("weak", "middle", "strong")
"""Tables of the study's file: the student imitated 3, 4 and 10 batches of 32 demonstrations."""
BASELINE, GUIDED = "opd", "guided_opd"
CURRICULA = ("guided_linear", "guided_exponential", "guided_fixed")


def results_of(start: str) -> Path:
    return STUDY.with_name(f"strengths_{start}.json")


def table() -> str:
    """The seeds of the comparison, by start: what each student wins, and how far methods part."""
    head = ["start", "method", "seed", "won at the start", "in the middle", "at the end"]
    rows = [row for measured in _measured() for row in _rows(*measured)]
    return tables.table([*head, "minus OPD, points (95 %)", "", "sampled tokens"], rows)


def lead() -> str:
    """How far Guided-OPD ends ahead of OPD from each start, in a sentence."""
    parts = []
    for start, study, found in _measured():
        if gap := Panel(found, study.last).gap(GUIDED, BASELINE):
            parts.append(f"{tables.signed(gap)} points from the {start} one ({gap.seeds} seeds)")
    return f"Beside OPD, from students of three strengths: {', '.join(parts)}."


def rates_table() -> str:
    """The runs in which the rate was chosen, with a seed of their own."""
    rows = []
    for start, study, found in _measured():
        for run in found.runs:
            if run.group == "rates":
                won = [tables.percent(fmean(e.won)) for e in run.evaluations]
                rows.append([start, study.titles[run.method], *won])
    return tables.table(["start", "method", "start", "5 steps", "10 steps"], rows)


def curricula_table() -> str:
    """Guided-OPD with other shares of teacher's turns, beside its default over the same seeds."""
    rows = []
    for start, study, found in _measured():
        panel = Panel(found, study.last)
        for method in CURRICULA:
            if (gap := panel.gap(method, GUIDED)) is None:
                continue
            runs = sorted(found.of(method), key=lambda run: run.seed)
            ends = [tables.percent(fmean(run.evaluations[-1].won)) for run in runs]
            guided = fmean(run.tokens.get("teacher", 0) for run in runs)
            rows.append(
                [
                    start,
                    study.titles[method],
                    ", ".join(ends),
                    tables.signed(gap),
                    verdict(gap),
                    tables.count(round(guided)),
                ]
            )
    head = ["start", "method", "at the end, by seed", "minus cosine, points (95 %)", ""]
    return tables.table([*head, "teacher's tokens"], rows)


def _measured() -> Iterator[tuple[str, plan.Study, results.Results]]:
    """Each start that has results, with its study and them."""
    for start in STARTS:
        if results_of(start).exists():
            yield start, plan.load(STUDY, over=start), results.read(results_of(start))


def _rows(start: str, study: plan.Study, found: results.Results) -> Iterator[list[str]]:
    panel = Panel(found, study.last)
    for method in (BASELINE, GUIDED):
        title = study.titles[method]
        runs = sorted((r for r in found.of(method) if r.group == "main"), key=lambda r: r.seed)
        gap = None if method == BASELINE else panel.gap(method, BASELINE)
        for k, run in enumerate(runs):
            won = [tables.percent(fmean(e.won)) for e in run.evaluations]
            tokens = {who: n for who, n in sorted(run.tokens.items()) if who != "scored"}
            by = ", ".join(f"{who} {tables.count(n)}" for who, n in tokens.items())
            shown = [tables.signed(gap), verdict(gap)] if gap and k == 0 else ["", ""]
            yield [start if k == 0 else "", title, str(run.seed), *won, *shown, by]
