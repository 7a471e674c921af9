"""The game of suite.py with real weights: its study, what came of it, and the page's tables."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean

from studies import analysis, command, plan, results, tables
from studies.analysis import Measure, Panel, result, start, verdict
from studies.pretrained.guess import play
from studies.runner import ONE_THREAD
from tutelage.config.toml_file import load
from tutelage.evaluation import plots
from tutelage.runs.folder import CONFIG

HERE = Path(__file__).parent
STUDY, RESULTS = HERE / "study.toml", HERE / "results.json"
TEACHER = HERE / "teacher.toml"
PICTURE = HERE.parents[2] / "docs" / "studies" / "pretrained" / "guess.png"
RATES = "rates"


def run(methods: Sequence[str], seeds: Sequence[int], jobs: int) -> int:
    """Train the teacher where it is not, then what is not finished of the study; its exit code."""
    if code := _teacher():
        return code
    study = plan.load(STUDY)
    code = command.run(study, study.only(methods=methods, seeds=seeds), RESULTS, jobs=jobs)
    play.save(play.of_runs(study.runs))
    return code


def _teacher() -> int:
    config = load(TEACHER)
    folder = Path(config.run.folder)
    resume = ["--resume"] if (folder / CONFIG).exists() else []
    words = [sys.executable, "-m", "tutelage", "train", str(TEACHER), "--quiet", *resume]
    return subprocess.run(words, env={**os.environ, **ONE_THREAD}).returncode


@cache
def measured() -> tuple[plan.Study, Panel]:
    """The study and its results."""
    study = plan.load(STUDY)
    return study, Panel(results.read(RESULTS), study.last)


def table() -> str:
    """A row for each method: its curve over the seeds, and what it gained."""
    study, panel = measured()
    rows = []
    for name in _main(study, panel):
        curve, gain = panel.curve(name), panel.gap(name, name, result, of_baseline=start)
        assert gain is not None
        ends = [each.evaluations[-1] for each in panel.results.of(name)]
        rows.append(
            [
                study.titles[name],
                *(f"{tables.percent(found.mean)} ({tables.ends(found)})" for _, found in curve),
                ", ".join(f"{100 * fmean(end.won):.0f}" for end in ends),
                f"{tables.signed(gain)}: {verdict(gain, 'gains', 'loses')}",
                tables.percent(fmean(end.invalid for end in ends)),
            ]
        )
    steps = [f"{at} steps" if at else "start" for at, _ in panel.curve(_main(study, panel)[0])]
    head = ["method", *steps, "by seed", "minus its start", "refused turns"]
    return tables.table(head, rows)


def differences_table() -> str:
    """Each method beside its start and beside each other, paired by seed and task, at each evaluation."""
    study, panel = measured()
    names = _main(study, panel)
    rows = []
    for step, _ in panel.curve(names[0])[1:]:
        at = partial(_at, step)
        for place, one in enumerate(names):
            beside: list[tuple[str, Measure]] = [(one, start)]
            beside += [(other, at) for other in names[:place]]
            for other, measure in beside:
                found = panel.gap(one, other, at, of_baseline=measure)
                if found is not None:
                    of = "its start" if other == one else study.titles[other]
                    title = f"{study.titles[one]} minus {of}"
                    seeds = ", ".join(
                        map(str, sorted(set(panel.values(one)) & set(panel.values(other))))
                    )
                    points = tables.signed(found)
                    rows.append([f"{step} steps", title, seeds, points, verdict(found)])
    return tables.table(["after", "difference", "seeds", "points (95 %)", ""], rows)


def _at(step: int, run: results.Result, last: int) -> list[float]:
    """The evaluation after a step."""
    return [float(x) for e in run.evaluations if e.step == step for x in e.won]


def rates_table() -> str:
    """The sweep over rates, with a seed that the comparison does not use."""
    study, panel = measured()
    runs = [run for run in panel.results.runs if run.group == RATES]
    return analysis.rates_table(study.titles, runs)


def play_table() -> str:
    """What the student's guesses were like."""
    study, panel = measured()
    return play.table(play.read(), {name: study.titles[name] for name in _main(study, panel)})


def draw(path: Path = PICTURE) -> Path:
    """Success by training step of each method, over its seeds."""
    study, panel = measured()
    curves = {}
    for name in _main(study, panel):
        seeds = len(panel.values(name))
        title = f"{study.titles[name]} ({seeds} seed{'s' if seeds > 1 else ''})"
        curves[title] = [
            plots.Point(step=at, success=e.mean, low=e.low, high=e.high, n=e.tasks)
            for at, e in panel.curve(name)
        ]
    plots.learning_curve(curves, path, title="SmolLM2-135M: a number of 15 in four guesses")
    return path


def _main(study: plan.Study, panel: Panel) -> list[str]:
    return [name for name in study.titles if panel.values(name) and study.group(name) != RATES]
