"""The table and the curve of the page, from the evaluations that were kept of each run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from studies import tables
from studies.runner import put
from tutelage.evaluation import plots
from tutelage.rollout import record

HERE = Path(__file__).parent
EVALS = "evals.jsonl"
RESULTS = HERE / "results.json"
PICTURES = HERE.parents[1] / "docs" / "studies" / "pretrained"
TITLES = {
    "whole/sft": "SFT, all layers",
    "whole/grpo": "GRPO after it",
    "whole/opd": "OPD after it",
    "whole/guided_opd": "Guided-OPD after it",
    "guess/teacher": "SFT",
    "household/teacher": "SFT",
    "cpu/sft": "SFT, small rooms",
    "cpu/grpo": "GRPO after it, small rooms",
    "cpu/teacher": "SFT for longer, small rooms",
    "cpu/guided_opd": "Guided-OPD after SFT, small rooms",
}
"""The runs by their folder, in the page's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An evaluation of a run; `episodes` are those trained on before, `loss` the last step's, `seconds`
    those of playing and learning until then, by the clock."""

    run: str
    step: int
    episodes: int
    won: int
    n: int
    low: float
    high: float
    turns: float
    invalid: float
    loss: float | None
    seconds: float


def of_run(name: str, folder: Path) -> list[Evaluated]:
    """The evaluations of the student alone in a run's folder, which may not be finished."""
    steps = list(record.read(folder / "metrics.jsonl"))
    clock = [float(line["seconds"]["all"]) for line in record.read(folder / "timings.jsonl")]  # type: ignore[index]
    found = []
    for line in _evaluations(folder, len(steps)):
        step = int(str(line["step"]))
        found.append(
            Evaluated(
                run=name,
                step=step,
                episodes=sum(int(str(each["episodes"])) for each in steps[:step]),
                won=int(str(line["won"])),
                n=int(str(line["n"])),
                low=float(str(line["low"])),
                high=float(str(line["high"])),
                turns=round(float(str(line["turns"])), 2),
                invalid=round(float(str(line["invalid"])), 4),
                loss=round(float(str(steps[step - 1]["loss"])), 4) if step else None,
                seconds=round(sum(clock[:step]), 1),
            )
        )
    return found


def _evaluations(folder: Path, steps: int) -> Sequence[record.Line]:
    """Those that a run wrote, or that `tutelage eval FOLDER --out FOLDER-eval` wrote after its last step."""
    if own := list(record.read(folder / EVALS)):
        return own
    after = json.loads(evaluated_after(folder).read_text(encoding="utf-8"))
    return [{**line, "step": steps} for line in after]


def evaluated_after(folder: Path) -> Path:
    """The summary of an evaluation after a run's last step."""
    return folder.with_name(f"{folder.name}-eval") / "summary.json"


def has_evaluations(folder: Path) -> bool:
    """Whether there is anything to keep of a run."""
    own = folder / EVALS
    return (own.exists() and own.stat().st_size > 0) or evaluated_after(folder).exists()


def save(found: Sequence[Evaluated], path: Path = RESULTS) -> None:
    """Put a run's evaluations into the file, in place of those that it had."""
    names = {each.run for each in found}
    all_of = [*(each for each in read(path) if each.run not in names), *found]
    all_of.sort(key=lambda each: (list(TITLES).index(each.run), each.step))
    put(path, "[\n" + ",\n".join(f" {json.dumps(asdict(each))}" for each in all_of) + "\n]\n")


def read(path: Path = RESULTS) -> list[Evaluated]:
    """What `save` wrote; nothing where there is no file."""
    if not path.exists():
        return []
    return [Evaluated(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def table(folder: str = "") -> str:
    """A row for each evaluation, of the runs in one folder."""
    found = [each for each in read() if each.run.startswith(folder)]
    rows = [
        [
            TITLES[each.run]
            if each.step == min(e.step for e in found if e.run == each.run)
            else "",
            str(each.step),
            str(each.episodes),
            f"{each.won} of {each.n}",
            f"{100 * each.low:.0f} to {100 * each.high:.0f} %",
            tables.percent(each.invalid),
            f"{each.turns:.1f}",
            f"{each.loss:.3f}" if each.loss is not None else "",
            f"{each.seconds:.0f}",
        ]
        for each in found
    ]
    head = ["", "step", "episodes", "won", "95 %", "refused turns", "turns", "loss", "seconds"]
    return tables.table(head, rows)


def draw(path: Path = PICTURES / "curve.png") -> Path:
    """Success by training episodes of the runs on a GPU, a curve for each."""
    curves: dict[str, list[plots.Point]] = {}
    for each in read():
        if not each.run.startswith("whole/"):  # other rooms and tasks
            continue
        point = plots.Point(
            step=each.step,
            success=each.won / each.n,
            low=each.low,
            high=each.high,
            n=each.n,
            at=each.episodes,
        )
        curves.setdefault(TITLES[each.run], []).append(point)
    plots.learning_curve(
        curves,
        path,
        title="SmolLM2-135M on household tasks",
        label="training episodes",
    )
    return path
