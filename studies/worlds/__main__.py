"""A learning curve in every world: a start by imitation, and methods that go on from there.

python -m studies.worlds run [WORLD ...]   run what is not finished, then write WORLD.json
python -m studies.worlds render            WORLD.json -> docs/environments/learning.md, pictures
python -m studies.worlds smoke [WORLD ...] a few steps of every world's examples, in minutes

Each world is a study like that of the household tasks (studies/household/plan.py says how its file
is read), with a page of its own kind.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from studies.household import plan, results, runner
from studies.household.__main__ import main as study_main
from studies.household.analysis import Panel, result, start, verdict
from studies.household.plan import Study, episodes_of
from studies.household.results import Results
from studies.household.sections import ends, percent, signed, table
from understudy import plots

HERE = Path(__file__).parent
WORLDS = ("webshop", "search_qa", "tau_bench", "travelplanner", "scienceworld")
DOCS = Path("docs/environments")
EXAMPLES = HERE.parents[1] / "examples"
SHORT = (
    "run.steps=3", "run.eval_every=3", "run.checkpoint_every=3", "rollout.tasks=2", "eval.tasks=8",
)  # fmt: skip
HEAD = """# Learning curves

<!-- Written by `python -m studies.worlds render` from studies/worlds/*.json. -->

In every world a small model built from nothing imitates demonstrations for a while: the shared
start, one for each seed. From there methods go on, and are measured on that world's own pinned
panel, the student alone. Intervals are two-way bootstraps over seeds and tasks; a result is the
mean of the last evaluations. Household has [a study of its own](../studies/household.md).

```
python -m studies.worlds run WORLD     # goes on after any interruption
python -m studies.worlds render
```"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.worlds", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", choices=["run", "render", "smoke"])
    parser.add_argument("worlds", nargs="*", metavar="WORLD", help=f"of {', '.join(WORLDS)}")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, a thread each")
    parser.add_argument("--seed", action="append", default=[], help="only these; again for more")
    given = parser.parse_args(argv)
    if unknown := set(given.worlds) - set(WORLDS):
        parser.error(f"there is no world {min(unknown)!r}; there are {', '.join(WORLDS)}")
    chosen = given.worlds or WORLDS
    if given.command == "render":
        print(f"written: {render(DOCS)}")
        return 0
    if given.command == "smoke":
        return max(smoke(world) for world in chosen)
    seeds = [part for seed in given.seed for part in ("--seed", seed)]
    return max(
        study_main(["run", *_files(world), "--jobs", str(given.jobs), *seeds]) for world in chosen
    )


def _files(world: str) -> list[str]:
    return ["--study", str(HERE / f"{world}.toml"), "--results", str(HERE / f"{world}.json")]


def smoke(world: str) -> int:
    """Train for a few steps as the world's examples say; the worst exit code."""
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind, more in {"sft": (), "grpo": ("warm_start.steps=3", "rollout.copies=2")}.items():
            file = EXAMPLES / f"{world}_{kind}.toml"
            settings = [*SHORT, *more, f"run.folder={folder}/{kind}"]
            command = [sys.executable, "-m", "understudy", "train", str(file), *settings]
            code = subprocess.run(command, check=False).returncode
            print(f"{world} {kind}: {'trained' if code == 0 else f'exit {code}'}", flush=True)
            worst = max(worst, abs(code))
    return worst


def render(out: Path) -> Path:
    """Write `out`/learning.md and its pictures; the page."""
    parts = [HEAD]
    for world in WORLDS:
        path = HERE / f"{world}.json"
        if path.exists():
            study = plan.load(HERE / f"{world}.toml")
            parts.append(section(world, study, results.read(path), out))
        else:
            parts.append(f"## {world}\n\nNot run yet.")
    page = out / "learning.md"
    runner.put(page, "\n\n".join(parts) + "\n")
    return page


def section(world: str, study: Study, found: Results, out: Path) -> str:
    """A world's table and picture."""
    panel = Panel(found, study.last)
    methods = [m for m in study.titles if found.of(m)]
    rows, first = [], panel.start()
    for m in methods:
        rate, gain = panel.rate(m), panel.gap(m, m, result, start)
        if rate and gain and first:
            rows.append(
                [
                    study.titles[m], percent(rate.mean), ends(rate), signed(gain),
                    verdict(gain, "learns", "gets worse"), str(len(found.of(m))),
                ]
            )  # fmt: skip
    if first:
        rows.insert(0, ["*shared start*", percent(first.mean), ends(first), "", "", ""])
    curves = {
        study.titles[m]: [
            plots.Point(step=s, success=e.mean, low=e.low, high=e.high, n=e.tasks)
            for s, e in panel.curve(m)
        ]
        for m in methods
    }
    title = f"{world}: success on the panel, mean over seeds"
    note = f"panel {found.panel}, {len(found.families)} tasks of the split {found.split}"
    if curves:
        plots.learning_curve(curves, out / "learning" / f"{world}.png", title=title, note=note)
    run = next(r for r in study.runs if r.config)
    assert run.config is not None
    head = ["", "success", "95 % interval", "gain over the start, in points", "", "seeds"]
    commits = ", ".join(sorted({f"`{r.commit[:10]}`" for r in found.runs}))
    return (
        f"## {world}\n\n[studies/worlds/{world}.toml](../../studies/worlds/{world}.toml): "
        f"{episodes_of(run.config)} training episodes in {run.steps} steps; {note}, temperature "
        f"{found.temperature:g}; {found.machine['processor']}, one thread a run; commit {commits}."
        f"\n\n{table(head, rows)}\n\n![{title}](learning/{world}.png)"
    )


if __name__ == "__main__":
    sys.exit(main())
