"""What SDAR's gate made of right and wrong plans: from the columns of runs with a retriever that errs.

The gate of a sampled token is sigmoid(beta D), D the hinted self's log-probability of it minus the
student's (arXiv:2605.15155), so it is above one half where the hinted self likes the token
more.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from studies import tables
from studies.ladder.misled import is_misled
from studies.plan import Run
from studies.runner import put
from tutelage.rollout import record
from tutelage.types import Task

FOUND = Path(__file__).with_name("gates.json")
GATE, CLOSED = "gate[sdar]", 0.5
COLUMNS = "columns.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Sampled tokens of a run's episodes whose plans were right, or wrong.

    tokens  how many there are
    above   how many of them the hinted self likes more than the student, its gate above one half
    high    mean gate of these
    low     mean gate of the others
    """

    wrong_share: float
    seed: int
    plan: str  # right or wrong
    episodes: int
    tokens: int
    above: int
    high: float
    low: float


def of_runs(runs: Iterable[Run]) -> list[Gates]:
    """Of all finished runs of SDAR that wrote their columns."""
    found = []
    for run in runs:
        if run.config is None or run.config.algorithm.name != "sdar" or not run.finished:
            continue
        if run.config.run.columns and (run.folder / COLUMNS).exists():
            share = float(cast(float, run.config.env.options.get("wrong", 0.0)))
            found += measure(run.folder / COLUMNS, share, run.seed)
    return found


def measure(path: Path, share: float, seed: int) -> list[Gates]:
    """Of a run's columns, for its right and its wrong plans."""
    by_plan: dict[str, list[list[float]]] = {"right": [], "wrong": []}
    for line in record.read(path):
        wrong = is_misled(Task(id=str(line["task"])), share)
        columns = cast(dict[str, list[float]], line["columns"])
        by_plan["wrong" if wrong else "right"].append(columns[GATE])
    found = []
    for plan, episodes in by_plan.items():
        gates = [gate for episode in episodes for gate in episode]
        high, low = [g for g in gates if g > CLOSED], [g for g in gates if g <= CLOSED]
        if gates:
            found.append(
                Gates(
                    wrong_share=share,
                    seed=seed,
                    plan=plan,
                    episodes=len(episodes),
                    tokens=len(gates),
                    above=len(high),
                    high=round(sum(high) / max(1, len(high)), 4),
                    low=round(sum(low) / max(1, len(low)), 4),
                )
            )
    return found


def save(found: Sequence[Gates], path: Path = FOUND) -> None:
    """Put measurements into the file, over those of the same share, seed and plan."""
    known = {(g.wrong_share, g.seed, g.plan): g for g in (*read(path), *found)}
    put(path, "[\n" + ",\n".join(json.dumps(asdict(known[k])) for k in sorted(known)) + "\n]\n")


def read(path: Path = FOUND) -> list[Gates]:
    """What `save` wrote; nothing where there is no file."""
    if not path.exists():
        return []
    return [Gates(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def table(found: Sequence[Gates]) -> str:
    """A row for each share of wrong plans, over its seeds."""
    rows = []
    for share, plan in sorted({(g.wrong_share, g.plan) for g in found}):
        own = [g for g in found if (g.wrong_share, g.plan) == (share, plan)]
        tokens, above = sum(g.tokens for g in own), sum(g.above for g in own)
        high = sum(g.high * g.above for g in own) / max(1, above)
        low = sum(g.low * (g.tokens - g.above) for g in own) / max(1, tokens - above)
        mean = (high * above + low * (tokens - above)) / tokens
        rows.append(
            [
                f"{100 * share:.0f} %",
                plan,
                ", ".join(str(g.seed) for g in own),
                tables.count(tokens),
                tables.percent(above / tokens),
                f"{high:.2f}",
                f"{low:.2f}",
                f"{mean:.2f}",
            ]
        )
    head = ["wrong plans", "this plan", "seeds", "tokens", "liked more with the plan"]
    return tables.table([*head, "their gate", "the others' gate", "mean gate"], rows)
