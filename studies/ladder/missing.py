"""The entries of rung (c)'s file that have no results."""

from studies.ladder import page


def sentence() -> str:
    """Each method that lacks runs, with its seeds."""
    study, panel = page.measured()
    found = {(run.method, run.seed) for run in panel.results.runs}
    seeds: dict[str, list[int]] = {}
    for run in study.runs:
        if (run.method, run.seed) not in found:
            seeds.setdefault(run.method, []).append(run.seed)
    parts = (
        f"{study.titles[name]} ({'seed' if len(of) == 1 else 'seeds'} {', '.join(map(str, of))})"
        for name, of in seeds.items()
    )
    entries = "; ".join(parts) or "none"
    return f"Entries of [the study's file](../../studies/ladder/household.toml) without results: {entries}."
