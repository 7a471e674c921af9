"""What came out: from run folders to one small file that everything else is made from.

An evaluation is a text of 0 and 1, a task each in the panel's order, so that every number and
interval of the page can be computed again without a single run.
"""

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from studies.plan import TEACHER, Run, Study, episodes_of
from studies.runner import Journal, put, teacher_path
from tutelage.envs.registry import suite_of
from tutelage.errors import RunError
from tutelage.objective import STUDENT
from tutelage.rollout import record
from tutelage.runs.assemble import panel_of
from tutelage.runs.phases import phases_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One evaluation of a run: the outcomes on the panel after `step` training steps."""

    step: int
    outcomes: str
    turns: float
    invalid: float

    @property
    def won(self) -> list[int]:
        return [int(x) for x in self.outcomes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run. `tokens` are those sampled in training by who sampled them, and under
    `scored` those that another view than the student's was asked about."""

    method: str
    group: str
    seed: int
    key: str
    commit: str
    steps: int
    episodes: int
    seconds: float
    tokens: Mapping[str, int]
    evaluations: tuple[Evaluated, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that is known of a study."""

    panel: str
    split: str
    temperature: float
    families: tuple[str, ...]  # of each task of the panel
    machine: Mapping[str, str]
    teacher: Mapping[int, str]  # seed -> outcomes
    runs: tuple[Result, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    def of(self, method: str) -> list[Result]:
        """A method's runs in the order of their seeds."""
        return sorted((r for r in self.runs if r.method == method), key=lambda r: r.seed)


def collect(study: Study, journal: Journal, before: Results | None) -> Results:
    """What the folder holds; a run that is planned as it was, but whose folder is gone, keeps what
    was known of it. Raises RunError where results were made on another panel."""
    panel = panel_of(study.base.eval, suite_of(study.base.env))
    same = before if before and before.panel == panel.fingerprint else None
    known = {(r.method, r.seed, r.key): r for r in same.runs} if same else {}
    runs = []
    for run in study.runs:
        old = known.get((run.method, run.seed, run.key))
        if run.finished and not (old and old.steps == run.steps and _same_run(run, old)):
            runs.append(_result(run, panel.fingerprint))
        elif old:
            runs.append(old)
    teacher = dict(same.teacher) if same else {}
    taught = TEACHER in study.base.policies
    for seed in sorted({run.seed for run in study.runs if taught}):
        if (path := teacher_path(study, seed)).exists():
            teacher[seed] = _bits(json.loads(path.read_text())["outcomes"])
    there = {f"{r.method}-{r.seed}" for r in runs}
    problems = {run.name: run.problem for run in study.runs if run.problem}
    failed = {
        n: reason for n, reason in journal.failures().items() if n in {r.name for r in study.runs}
    }
    return Results(
        panel=panel.fingerprint,
        split=panel.split,
        temperature=study.base.eval.temperature,
        families=tuple(task.family for task in panel.tasks),
        machine=machine(),
        teacher=teacher,
        runs=tuple(runs),
        failed={n: t for n, t in {**failed, **problems}.items() if n not in there},
    )


def _same_run(run: Run, old: Result) -> bool:
    """Whether the folder's run is the one that is known already, by when it was made."""
    meta = json.loads((run.folder / "meta.json").read_text())
    return _seconds(run.folder) == old.seconds and meta["commit"] == old.commit


def _result(run: Run, panel: str) -> Result:
    assert run.config is not None
    meta = json.loads((run.folder / "meta.json").read_text())
    if meta["panel"] != panel:
        raise RunError(
            f"{run.folder} was evaluated on the panel {meta['panel']}, which is not the study's "
            f"{panel}: the environment has changed since; remove the folder and run it again"
        )
    lines = record.read(run.folder / "evals.jsonl")
    return Result(
        method=run.method,
        group=run.group,
        seed=run.seed,
        key=run.key,
        commit=str(meta["commit"]),
        steps=run.steps,
        episodes=episodes_of(run.config),
        seconds=_seconds(run.folder),
        tokens=_tokens(run),
        evaluations=tuple(
            Evaluated(
                step=int(str(line["step"])),
                outcomes=_bits(cast(list[int], line["outcomes"])),
                turns=round(float(str(line["turns"])), 2),
                invalid=round(float(str(line["invalid"])), 4),
            )
            for line in lines
            if line["name"] == STUDENT and not line.get("hint")
        ),
    )


def _bits(outcomes: Sequence[int]) -> str:
    return "".join(str(int(x)) for x in outcomes)


def _seconds(folder: Path) -> float:
    """Playing and learning; evaluations and the start of the process are left out."""
    lines = record.read(folder / "timings.jsonl")
    seconds = [cast(dict[str, float], line["seconds"]) for line in lines]
    return round(sum(s["all"] for s in seconds), 1)


def _tokens(run: Run) -> dict[str, int]:
    sampled: Counter[str] = Counter()
    for line in record.read(run.folder / "episodes.jsonl"):
        for turn in cast(list[dict[str, object]], line["turns"]):
            sampled[str(turn["actor"])] += len(cast(list[int], turn["tokens"]))
    assert run.config is not None
    algorithm = phases_of(run.config)[-1].algorithm
    others = [n for n, v in algorithm.views.items() if n != STUDENT and v.policy != "reference"]
    learnt = sum(int(str(x["tokens"])) for x in record.read(run.folder / "metrics.jsonl"))
    return {**dict(sorted(sampled.items())), "scored": learnt * len(others)}


def machine() -> dict[str, str]:
    """Where the study ran, as far as it matters to seconds and last digits."""
    from importlib import metadata

    name = ""
    if (info := Path("/proc/cpuinfo")).exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else ""
    return {
        "processor": name or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }


def save(results: Results, path: Path) -> None:
    """A line a fact, a line a run: what changes is seen in a diff."""
    table = asdict(results)
    runs = ",\n".join("  " + record.dump(run) for run in table.pop("runs"))
    facts = "".join(f" {json.dumps(name)}: {record.dump(table[name])},\n" for name in table)
    put(path, f'{{\n{facts} "runs": [\n{runs}\n ]\n}}\n')


def read(path: Path) -> Results:
    """What `save` wrote. Raises RunError for a file that cannot be read."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        runs = tuple(
            Result(**{**run, "evaluations": tuple(Evaluated(**e) for e in run["evaluations"])})
            for run in table["runs"]
        )
        teacher = {int(seed): bits for seed, bits in table["teacher"].items()}
        families = tuple(table["families"])
        return Results(**{**table, "runs": runs, "teacher": teacher, "families": families})
    except FileNotFoundError:
        raise RunError(
            f"there are no results in {path}; the study's command `run` makes them"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} does not hold a study's results: {error}") from error
