"""A world with real weights: its teacher, its study, what came of it, and the page's tables."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from studies import analysis, command, plan, results, tables
from studies.analysis import Panel, after, result, start, verdict
from studies.pretrained import page
from studies.runner import ONE_THREAD
from tutelage.config.toml_file import load
from tutelage.evaluation import plots
from tutelage.runs.folder import CONFIG

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "studies" / "pretrained"
RATES = "rates"
ENOUGH = 3
"""Seeds from which on an interval over them says something."""


@dataclass(frozen=True)
class World:
    """A folder with study.toml, teacher.toml and results.json, and the title of its picture."""

    name: str
    title: str

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def study(self) -> Path:
        return self.folder / "study.toml"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    def run(self, methods: Sequence[str], seeds: Sequence[int], jobs: int) -> int:
        """Train the teacher where it is not, then what is not finished of the study; its exit code."""
        if code := self._teach():
            return code
        study = plan.load(self.study)
        runs = study.only(methods=methods, seeds=seeds)
        return command.run(study, runs, self.results, jobs=jobs)

    def _teach(self) -> int:
        file = self.folder / "teacher.toml"
        resume = ["--resume"] if (Path(load(file).run.folder) / CONFIG).exists() else []
        words = [sys.executable, "-m", "tutelage", "train", str(file), "--quiet", *resume]
        return subprocess.run(words, env={**os.environ, **ONE_THREAD}).returncode

    def table(self) -> str:
        """A row for each method: its curve over the seeds, and what it gained. Seeds that are too few
        for an interval over them have a row each."""
        rows = []
        for name, title, panel in self._shown():
            curve, gain = panel.curve(name), panel.gap(name, name, result, of_baseline=start)
            assert gain is not None
            ends = [each.evaluations[-1] for each in panel.results.of(name)]
            rows.append(
                [
                    _with_seeds(title, ends),
                    *(f"{tables.percent(found.mean)} ({tables.ends(found)})" for _, found in curve),
                    ", ".join(f"{100 * fmean(end.won):.0f}" for end in ends),
                    f"{tables.signed(gain)}: {verdict(gain, 'gains', 'loses')}",
                    tables.percent(fmean(end.invalid for end in ends)),
                ]
            )
        _, panel = measured(self)
        steps = [f"{at} steps" if at else "start" for at, _ in panel.curve(self.methods()[0])]
        head = ["method", *steps, "by seed", "minus its start", "refused turns"]
        return tables.table(head, rows)

    def _shown(self) -> Iterator[tuple[str, str, Panel]]:
        """Each method with its title and its results: all seeds, or one where they are few."""
        study, panel = measured(self)
        for name in self.methods():
            runs = sorted(panel.results.of(name), key=lambda run: run.seed)
            if len(runs) >= ENOUGH:
                yield name, study.titles[name], panel
                continue
            for run in runs:
                one = Panel(replace(panel.results, runs=(run,)), panel.last)
                yield name, f"{study.titles[name]}, seed {run.seed}", one

    def differences_table(self) -> str:
        """Each method beside its start and each other, paired by seed and task, at each evaluation."""
        study, panel = measured(self)
        names, rows = self.methods(), []
        for step, _ in panel.curve(names[0])[1:]:
            for name, title, own in self._shown():
                gain = own.gap(name, name, after(step), of_baseline=start)
                assert gain is not None
                seeds = ", ".join(map(str, sorted(own.values(name))))
                begin = [f"{step} steps", f"{title} minus its start", seeds]
                rows.append([*begin, tables.signed(gain), verdict(gain)])
            for place, one in enumerate(names):
                for other in names[:place]:
                    at = after(step)
                    found = panel.gap(one, other, at, of_baseline=at)
                    if found is not None:
                        both = sorted(set(panel.values(one)) & set(panel.values(other)))
                        title = f"{study.titles[one]} minus {study.titles[other]}"
                        seeds, points = ", ".join(map(str, both)), tables.signed(found)
                        rows.append([f"{step} steps", title, seeds, points, verdict(found)])
        return tables.table(["after", "difference", "seeds", "points (95 %)", ""], rows)

    def rates_table(self) -> str:
        """The sweep over rates, with a seed that the comparison does not use."""
        study, panel = measured(self)
        runs = [run for run in panel.results.runs if run.group == RATES]
        return analysis.rates_table(study.titles, runs)

    def draw(self) -> Path:
        """Success by training step of each method, over its seeds."""
        curves = {
            _with_seeds(title, panel.results.of(name)): [
                plots.Point(step=at, success=e.mean, low=e.low, high=e.high, n=e.tasks)
                for at, e in panel.curve(name)
            ]
            for name, title, panel in self._shown()
        }
        path = PICTURES / f"{self.name}.png"
        title = f"SmolLM2-135M: {self.title}"
        plots.learning_curve(curves, path, title=title, teacher=self._teacher())
        return path

    def _teacher(self) -> plots.Point | None:
        """The last evaluation of the teacher; None where none was kept."""
        found = [each for each in page.read() if each.run == f"{self.name}/teacher"]
        if not found:
            return None
        last = found[-1]
        success = last.won / last.n
        return plots.Point(step=0, success=success, low=last.low, high=last.high, n=last.n)

    def methods(self) -> list[str]:
        """Those of the comparison that have results."""
        study, panel = measured(self)
        return [name for name in study.titles if panel.values(name) and study.group(name) != RATES]


def _with_seeds(title: str, runs: Sequence[object]) -> str:
    return f"{title} ({len(runs)} seeds)" if len(runs) > 1 else title


@cache
def measured(world: World) -> tuple[plan.Study, Panel]:
    """A world's study and its results."""
    study = plan.load(world.study)
    return study, Panel(results.read(world.results), study.last)


GUESS = World("guess", "a number of 15 in four guesses")
HOUSEHOLD = World("household", "household tasks in small rooms")
WORLDS = {world.name: world for world in (GUESS, HOUSEHOLD)}
