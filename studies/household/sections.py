"""The parts of the study's page, as Markdown."""

from studies.analysis import Panel, result, spread, start, totals, verdict
from studies.household.claims import CLAIMS, judged, summary
from studies.plan import Study, episodes_of
from studies.results import Result, Results
from studies.tables import count, ends, percent, signed, table


def methods_of(study: Study, *groups: str) -> list[str]:
    """The methods of some groups in the study's order."""
    return list(dict.fromkeys(run.method for run in study.runs if run.group in groups))


def link(run: Result) -> str:
    return f"[{run.seed}](#{anchor(run)})"


def anchor(run: Result) -> str:
    return f"{run.method}-{run.seed}".replace("_", "-")


# -- the sections


def head(study: Study, results: Results) -> str:
    machine = results.machine
    commits = sorted({run.commit[:10] for run in results.runs})
    seeds = [f"{name}: {', '.join(map(str, n))}" for name, n in study.groups.items()]
    return f"""# Methods on the household tasks

<!-- Written by `python -m studies.household render` from studies/household/results.json. -->

Every method starts from the same checkpoint (one for each seed), trains on equally many episodes of
tasks drawn from the training split, and is measured on one pinned panel of {len(results.families)}
unseen tasks, the student alone at temperature {results.temperature:g}. Models have less than a million
parameters: nothing here says how the methods compare at the size of the papers' models.

```sh
make study                              # run what is not finished; continues after any interruption
make study-render                       # this page, from studies/household/results.json alone
python -m studies.household status      # what is finished
```

| | |
|---|---|
| settings | [studies/household/study.toml](../../studies/household/study.toml) |
| results | [studies/household/results.json](../../studies/household/results.json) |
| panel | `{results.panel}`: the first {len(results.families)} tasks of the split `{results.split}` |
| seeds | {"; ".join(seeds)} |
| machine | {machine["processor"]}, one thread a run; {machine["system"]}, Python {machine["python"]}, torch {machine["torch"]} |
| commit | {", ".join(f"`{c}`" for c in commits) or "no run yet"} |
| runs | {len(results.runs)} of {len(study.runs)} finished |"""  # noqa: E501


LEARNS = {
    "short": "Every other method: does it learn?",
    "longer": "Those that need longer, or smaller steps",
}
"""Groups of which that is all they are asked."""
HEAD = (
    "",
    "result",
    "95 % interval",
    "by seed",
    "seconds",
    "sampled by student",
    "by a teacher",
    "scored by a teacher",
    "runs",
)


def _row(study: Study, panel: Panel, method: str) -> list[str]:
    runs = panel.results.of(method)
    found = panel.rate(method)
    if not runs or found is None:
        return [study.titles[method], "not run", *[""] * (len(HEAD) - 2)]
    cost = totals(runs)
    others = sum(
        v for k, v in cost.items() if k not in ("seconds", "episodes", "student", "scored")
    )
    return [
        study.titles[method],
        percent(found.mean),
        ends(found),
        ", ".join(f"{100 * x:.0f}" for x in spread(runs, panel.last)),
        f"{cost['seconds']:.0f}",
        count(cost.get("student", 0)),
        count(others),
        count(cost["scored"]),
        ", ".join(link(run) for run in runs),
    ]


def _others(panel: Panel) -> list[list[str]]:
    """The teacher and the shared start, which are no methods."""
    found = {"*teacher, alone*": panel.rate("teacher"), "*shared start*": panel.start()}
    return [
        [name, percent(e.mean), ends(e), *[""] * (len(HEAD) - 3)] for name, e in found.items() if e
    ]


def main(study: Study, panel: Panel, note: str) -> str:
    rows = [_row(study, panel, m) for m in methods_of(study, "main")]
    budget = _budget(study, "main")
    return (
        f"## Results\n\n{budget} Success is the mean of the last {panel.last} evaluations; "
        "seconds (by the clock, beside other runs) and tokens are of training alone, a run's mean; "
        "those of the shared start are not in them.\n\n"
        + table(HEAD, [*_others(panel), *rows])
        + (f"\n\n{note}" if note else "")
    )


def _budget(study: Study, group: str) -> str:
    config = next((r.config for r in study.runs if r.group == group and r.config), None)
    if config is None:
        return ""
    return (
        f"{episodes_of(config)} training episodes a run in {config.run.steps} steps, an evaluation "
        f"every {config.eval.every} steps."
    )


def paired(study: Study, panel: Panel) -> str:
    """Differences to the baselines; empty where no baseline was run."""
    there = [b for b in study.baselines if panel.results.of(b)]
    rows = []
    for m in methods_of(study, "main", "ablation"):
        if not panel.results.of(m):
            continue
        cells = []
        for b in there:
            found = panel.gap(m, b) if m != b else None
            cells.append(f"{signed(found)}: {verdict(found)}" if found else "")
        rows.append([study.titles[m], *cells])
    if not there:
        return ""
    return (
        "## Paired differences\n\nMethod minus baseline in points of success, on the same tasks "
        "and seeds, with 95 % intervals. Each interval stands for itself: among twenty, one is "
        "expected to miss.\n\n" + table(["", *(f"minus {study.titles[b]}" for b in there)], rows)
    )


def families(study: Study, panel: Panel) -> str:
    names = sorted(set(panel.results.families))
    sizes = {name: panel.results.families.count(name) for name in names}
    rows = []
    for m in ["teacher", *methods_of(study, "main")]:
        found = [panel.rate(m, family=name) for name in names]
        if any(found):
            cells = [f"{100 * e.mean:.0f} ({ends(e)})" if e else "" for e in found]
            rows.append([study.titles.get(m, f"*{m}*"), *cells])
    if not rows:
        return ""
    head = ["", *(f"{name.replace('_', ' ')} ({sizes[name]})" for name in names)]
    return (
        "## By family\n\nSuccess in per cent and its 95 % interval; the number of tasks is in "
        "brackets.\n\n" + table(head, rows)
    )


def claimed(study: Study, panel: Panel) -> str:
    """The papers' claims, each test with what its interval allows."""
    overview = [
        [
            claim.says,
            "; ".join(f"{need.says}: {need.look(panel).met}" for need in claim.needs),
            summary(claim, panel).rstrip("."),
        ]
        for claim in CLAIMS
    ]
    parts = [
        "## The papers' claims at this scale\n\nEach is turned into differences that were fixed "
        "before the runs (studies/household/claims.py). *As claimed* and *the reverse* are said "
        "where the interval leaves zero out, *not distinguishable* where it holds zero: that is no "
        "proof that two methods are equal. A claim is tested only where what it presupposes is met: "
        "where it is not, the numbers describe this set-up and say nothing against the claim. [The "
        "ladder](ladder.md) has a start and a reward that meet the conditions.\n\n"
        + table(["claim", "what it presupposes", "measured"], overview)
    ]
    for claim in CLAIMS:
        rows = []
        for test in claim.tests:
            found = test.found(panel)
            rows.append([test.says, signed(found) if found else "", judged(test, found)])
        text = f"### {claim.says}\n\nClaimed in {claim.source}. {summary(claim, panel)}\n\n"
        found_of = [(need, need.look(panel)) for need in claim.needs]
        text += table(
            ["presupposed", "found", ""],
            [[need.says, found.number, found.met] for need, found in found_of],
        )
        text += "\n\n"
        text += table(["difference, in points", "estimate (95 % interval)", ""], rows)
        if note := study.notes.get(claim.name):
            text += f"\n\n{note}"
        parts.append(text)
    return "\n\n".join(parts)


def further(study: Study, panel: Panel) -> str:
    """The ablations, and the other methods with whether they learn."""
    parts = []
    if rows := [_row(study, panel, m) for m in methods_of(study, "ablation")]:
        parts.append(f"## Ablations\n\n{_budget(study, 'ablation')}\n\n{table(HEAD, rows)}")
    for group, title in LEARNS.items():
        if found := _learning(study, panel, group):
            parts.append(f"## {title}\n\n{found}")
    if panel.results.failed:
        lines = [f"- `{name}`: {reason}" for name, reason in sorted(panel.results.failed.items())]
        parts.append("## What did not run\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _learning(study: Study, panel: Panel, group: str) -> str:
    """Whether the methods of a group pass their own start; empty where there are none."""
    rows = []
    for m in methods_of(study, group):
        runs = panel.results.of(m)
        found, gap = panel.rate(m), panel.gap(m, m, result, start)
        if not runs or found is None or gap is None:
            rows.append([study.titles[m], "not run", *[""] * 5])
            continue
        first = panel.rate(m, start)
        rows.append(
            [
                study.titles[m],
                percent(first.mean) if first else "",
                percent(found.mean),
                signed(gap),
                verdict(gap, "learns", "gets worse"),
                f"{totals(runs)['seconds']:.0f}",
                ", ".join(link(run) for run in runs),
            ]
        )
    head = ["", "start", "result", "gain (95 % interval)", "", "seconds", "runs"]
    return (
        f"{_budget(study, group)} The gain is over the run's own start, on the same tasks.\n\n"
        + table(head, rows)
        if rows
        else ""
    )


def of_algorithm(study: Study, panel: Panel, name: str) -> str:
    """What an algorithm's runs came to, for its own page."""
    page = "[The household study](../studies/household.md)"
    rows = []
    for m in study.titles:
        named = any(
            r.config and r.config.algorithm.name == name for r in study.runs if r.method == m
        )
        found, gap = panel.rate(m), panel.gap(m, m, result, start)
        if not named or found is None or gap is None:
            continue
        first, runs = panel.rate(m, start), panel.results.of(m)
        rows.append(
            [
                study.titles[m],
                percent(first.mean) if first else "",
                percent(found.mean),
                f"{signed(gap)}: {verdict(gap, 'learns', 'gets worse')}",
                f"{runs[0].steps}, {len(runs)}",
            ]
        )
    if not rows:
        return f"{page} has no run of it."
    head = ["", "start", "result", "gain in points (95 % interval)", "steps, seeds"]
    return f"{page}, success on {len(panel.results.families)} unseen tasks:\n\n{table(head, rows)}"


def method(study: Study, results: Results) -> str:
    odd = Panel(results, study.last).starts_differ()
    checked = (
        "Before its first step every run of a seed solved exactly the same tasks."
        if not odd
        else f"With seed {', '.join(map(str, odd))} not all runs solved the same tasks before "
        "their first step, although their weights are the same: they were measured on machines "
        "that round differently, or with other versions."
    )
    return (
        "## How the numbers are made\n\n"
        f"- **One start.** {checked}\n"
        "- **One budget.** The same number of training episodes (tasks x copies x steps). Methods "
        "differ in what an episode costs; seconds and tokens say how much. *Scored by a teacher* "
        "counts each training token once for each other view that was asked about it, be it a "
        "bigger model or the student with privileged text.\n"
        f"- **A run's result** is the mean of its last {study.last} evaluations, task by task, so "
        "that no lucky evaluation is picked.\n"
        "- **Intervals** are two-way bootstraps: seeds and tasks are both drawn anew, 10,000 "
        "times, with the correction for few draws that makes three seeds as uncertain as they are "
        "(`tutelage.evaluation.statistics`). With one seed an interval knows the tasks only, and the "
        "text says so. A rate's interval is nowhere narrower than Wilson's.\n"
        "- **Differences** are paired: the same tasks, seeds and starts.\n"
        "- **Settings** that are not in study.toml are the library's defaults "
        "(`tutelage algorithms NAME`)."
    )


def every_run(study: Study, panel: Panel) -> str:
    rows = []
    for run in panel.results.runs:
        solved = ", ".join(str(sum(e.won)) for e in run.evaluations)
        rows.append(
            [
                f'<a id="{anchor(run)}"></a>{study.titles.get(run.method, run.method)}',
                str(run.seed),
                f"`{run.key}`",
                f"`{run.commit[:10]}`",
                f"{run.seconds:.0f}",
                str(run.episodes),
                solved,
                f"`python -m studies.household run --method {run.method} --seed {run.seed}`",
            ]
        )
    if not rows:
        return ""
    head = [
        "",
        "seed",
        "settings",
        "commit",
        "seconds",
        "episodes",
        "solved, by evaluation",
        "command",
    ]
    return (
        "## Every run\n\n*Settings* is the hash of all that a run's result follows from: its "
        "settings, the built-in weights and the shared start. A run with the same hash is not run "
        "again.\n\n" + table(head, rows)
    )
