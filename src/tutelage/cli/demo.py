"""`tutelage demo`: train a small household agent with two methods and compare them.

Guided-OPD and plain on-policy distillation start from the same warm start, with the same seeds and
budget. The student before and after, and the teacher, are evaluated on the same unseen tasks.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tutelage.cli.progress import watch_for
from tutelage.config import json_text
from tutelage.config.plain_file import read_text
from tutelage.config.run_mark import is_run
from tutelage.config.schema import Config
from tutelage.config.toml_file import load
from tutelage.config.values import write_value
from tutelage.errors import ConfigError
from tutelage.evaluation import plots
from tutelage.evaluation.statistics import Z95, paired
from tutelage.rollout import record
from tutelage.rollout.disk import write_whole
from tutelage.runs import models
from tutelage.runs.offline import STUDENT, evaluations
from tutelage.runs.train import train

WARM = "warm_start"
OWN = ("results.md", "learning_curve.png")
"""Files that the demo writes at its end."""
RUNS = {"guided_opd": "Guided-OPD", "opd": "plain OPD"}
QUICK = ("run.steps=2", "eval.every=2", "eval.tasks=4", "rollout.tasks_per_step=2")
"""What `--quick` changes: enough to see that everything works, not to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table: a line of evals.jsonl, and the training time in seconds."""

    name: str
    line: Mapping[str, object]
    seconds: float | None = None

    def number(self, key: str) -> float:
        return float(str(self.line[key]))

    @property
    def outcomes(self) -> list[bool]:
        outcomes = self.line["outcomes"]
        assert isinstance(outcomes, list)
        return [bool(x) for x in outcomes]


def settings(folder: Path, name: str, *, seed: int, quick: bool) -> Config:
    """One of the runs, demo-NAME.toml, which extends demo.toml. The two methods start from the
    same checkpoint, and differ in their algorithm and in nothing else."""
    changes = [*(QUICK if quick else ()), f"run.seed={seed}"]
    changes.append(f"run.folder={write_value(str(folder / name))}")
    if name != WARM:
        changes.append(f"policy.model={write_value(str(folder / WARM))}")
    return load(models.ASSETS / f"demo-{name}.toml", changes)


def show(folder: Path, *, seed: int, quick: bool, console: Console) -> None:
    """Run what is missing, then plot and print. An interrupted demo continues."""
    began = time.perf_counter()
    there = [name for name in OWN if (folder / name).exists()]
    if there and not is_run(folder / WARM):
        raise ConfigError(
            f"{folder} already holds {' and '.join(there)}, which the demo would write over; name "
            "another --folder"
        )
    configs = {n: settings(folder, n, seed=seed, quick=quick) for n in (WARM, *RUNS)}
    console.print(
        "A small student learns household tasks (ALFWorld's rules) from a teacher. Everything is "
        f"written to [bold]{folder}[/]. If you interrupt it, the same command continues."
    )
    teacher = taught_by(configs["guided_opd"], folder / "teacher.json", console)
    for name, config in configs.items():
        console.rule(f"[bold]{RUNS.get(name, 'warm start: imitate a few demonstrations')}")
        again = (Path(config.run.folder) / "config.toml").exists()
        train(config, resume=again, watch=watch_for(console))
    methods = {name: configs[name] for name in RUNS}
    results = [teacher, *results_of(methods)]
    picture = folder / "learning_curve.png"
    curve(methods, teacher, picture)
    console.rule("[bold]results")
    console.print(table_of(results))
    console.print(verdict(results))
    console.print(
        f"Learning curve: [bold]{picture}[/]   table: [bold]{folder / 'results.md'}[/]   "
        f"time: {(time.perf_counter() - began) / 60:.1f} minutes"
    )
    record_results(results, folder)


def taught_by(config: Config, path: Path, console: Console) -> Result:
    """The teacher alone on the panel; evaluated once and stored in `path`."""
    if path.exists():
        try:
            return Result(name="teacher", line=json_text.table(read_text(path)))
        except (ValueError, TypeError):
            raise ConfigError(
                f"{path} holds no evaluation that the demo wrote; remove it, or name another --folder"
            ) from None
    console.rule("[bold]the teacher, on unseen tasks")
    alone = config.model_copy(update={"policy": config.policies["teacher"], "policies": {}})
    evaluation = evaluations(alone, [STUDENT], tick=lambda done, total: None)[STUDENT]
    line = evaluation.line(0, "teacher")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, record.dump(line))
    console.print(f"{line['won']} of {line['n']} solved")
    return Result(name="teacher", line=line)


def results_of(configs: Mapping[str, Config]) -> list[Result]:
    """The first evaluation of the first run, and the last one of each."""
    rows: list[Result] = []
    for name, config in configs.items():
        folder = Path(config.run.folder)
        lines = list(record.read(folder / "evals.jsonl"))
        if not rows:
            rows.append(Result(name="before", line=lines[0]))
        rows.append(Result(name=f"after {RUNS[name]}", line=lines[-1], seconds=_seconds(folder)))
    return rows


def _seconds(folder: Path) -> float:
    """Seconds of training, without evaluations."""
    total = 0.0
    for line in record.read(folder / "timings.jsonl"):
        seconds = line["seconds"]
        assert isinstance(seconds, dict)
        total += float(seconds["all"]) if line.get("phase") == "train" else 0.0
    return total


def curve(configs: Mapping[str, Config], teacher: Result, path: Path) -> None:
    runs = {RUNS[name]: plots.points(Path(c.run.folder)) for name, c in configs.items()}
    n = int(teacher.number("n"))
    plots.learning_curve(
        runs,
        path,
        title=f"{n} unseen household tasks, one seed per curve",
        teacher=plots.Point(
            step=0,
            success=teacher.number("success"),
            low=teacher.number("low"),
            high=teacher.number("high"),
            n=n,
        ),
        note=f"panel {teacher.line['panel']}; the student alone, temperature "
        f"{configs['guided_opd'].eval.temperature:g}",
    )


def _cells(result: Result) -> list[str]:
    return [
        result.name,
        f"{result.number('won'):.0f}/{result.number('n'):.0f}",
        f"{100 * result.number('success'):.1f} %",
        f"{100 * result.number('low'):.1f} to {100 * result.number('high'):.1f}",
        f"{result.number('turns'):.1f}",
        f"{100 * result.number('invalid'):.1f} %",
        "" if result.seconds is None else f"{result.seconds:.0f} s",
    ]


COLUMNS = ("", "solved", "rate", "95 % interval", "turns", "invalid", "training")


def table_of(results: Sequence[Result]) -> Table:
    table = Table(
        title="The student on unseen tasks (95 % Wilson intervals)",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for result in results:
        table.add_row(*_cells(result))
    return table


def verdict(results: Sequence[Result]) -> str:
    """A sentence that compares the two methods on the same tasks."""
    by_name = {r.name: r for r in results}
    guided, plain = (by_name[f"after {name}"] for name in RUNS.values())
    gain, low, high = paired(plain.outcomes, guided.outcomes, Z95)
    if low <= 0 <= high:
        words = "not distinguishable on these tasks"
    else:
        words = "Guided-OPD is ahead" if gain > 0 else "plain OPD is ahead"
    return (
        f"Guided-OPD minus plain OPD, paired on the same tasks: {gain:+.1%} "
        f"(95 % interval {low:+.1%} to {high:+.1%}): {words}. One seed: the interval covers the "
        "variation of tasks, not of seeds."
    )


def record_results(results: Sequence[Result], folder: Path) -> None:
    rows = [
        [name or " " for name in COLUMNS],
        ["---"] + ["---:"] * (len(COLUMNS) - 1),
        *(_cells(r) for r in results),
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    (folder / "results.md").write_text("\n".join([*lines, "", verdict(results), ""]))
