"""The lines of a run's logs: a training step in numbers, and its signals by token."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tutelage.objective import STUDENT
from tutelage.rollout.record import Line
from tutelage.rollout.task_sampling import differing
from tutelage.runs.phases import Phase
from tutelage.training.train_step import Report
from tutelage.types import Episode, Turn


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: null for those that are not finite."""
    return {name: x if math.isfinite(x) else None for name, x in values.items()}


def metrics(
    phase: Phase,
    step: int,
    episodes: Sequence[Episode],
    usable: Sequence[Episode],
    report: Report,
    rate: float,
    cut: int = 0,
) -> Line:
    """A step in numbers. Broken episodes are counted, and in nothing else; those that were left
    out of training because they were too long, or empty, are in all but the loss. "cut", the number
    of observations that were too long, is there only if it is not 0."""
    whole = [e for e in episodes if not e.stop.broken]
    turns = [turn for e in whole for turn in e.turns]
    actors = sorted({turn.actor for turn in turns})
    return {
        "step": step,
        "episodes": len(whole),
        "broken": len(episodes) - len(whole),
        "unfit": len(whole) - len(usable),
        "groups": len({e.group for e in whole}),
        "varied": len(differing(whole)) / len({e.group for e in whole}),
        "won": sum(e.won for e in whole),
        "return": sum(e.total_reward for e in whole) / len(whole),
        "turns": len(turns),
        "tokens": report.tokens,
        "invalid": sum(not turn.valid for turn in turns) / max(1, len(turns)),
        "stops": {s: sum(e.stop == s for e in whole) for s in sorted({e.stop for e in whole})},
        "actors": {a: sum(turn.actor == a for turn in turns) / max(1, len(turns)) for a in actors},
        "penalties": {
            name: sum(e.penalties.get(name, 0.0) for e in whole) / len(whole)
            for name in phase.algorithm.penalties
        },
        "taken": sum(turn.taken is not None for turn in turns) / max(1, len(turns)),
        "chances": {name: chance(step) for name, chance in phase.algorithm.actors.items()},
        "loss": finite({"": sum(report.losses.values())})[""],
        "losses": finite(report.losses),
        "means": finite(report.means),
        "mismatch": finite(report.mismatch),
        "ratios": {name: finite(numbers) for name, numbers in report.ratios.items()},
        "entropy": entropy(whole),
        "grad_norm": report.grad_norm,
        "lr": rate,
        **({"cut": cut} if cut else {}),
        **staleness(step, turns),
    }


def staleness(step: int, turns: Iterable[Turn]) -> dict[str, dict[str, float]]:
    """Updates between the weights that wrote the student's turns and those that learn from them,
    where they are not the same by construction: nothing else is recorded on turns."""
    behind = [step - turn.version for turn in turns if turn.version is not None]
    if not behind:
        return {}
    return {"staleness": {"mean": sum(behind) / len(behind), "max": float(max(behind))}}


def entropy(episodes: Sequence[Episode]) -> float | None:
    """Mean of -log p over the tokens that the student sampled, in nats; None without any. It
    estimates the entropy of the policy without bias, at the temperature of sampling."""
    own = [x for e in episodes for t in e.turns if t.actor == STUDENT for x in t.logps]
    return finite({"": -sum(own) / len(own)})[""] if own else None


def column_lines(
    phase: Phase, step: int, used: Sequence[Episode], report: Report
) -> Iterator[Line]:
    """A line an episode: each signal's value at each of its tokens, in 6 digits; and, where they
    were recorded, the likeliest tokens of each view as [id, log-probability]."""
    start = 0
    for episode in used:
        end = start + sum(len(turn.tokens) for turn in episode.turns)
        line: dict[str, object] = {
            "step": step,
            "task": episode.task.id,
            "copy": episode.copy,
            "columns": {
                name: [_digits(x, 6) for x in column[start:end].tolist()]
                for name, column in report.columns.items()
            },
        }
        if report.alternatives:
            line["alternatives"] = {
                view: [
                    [[i, _digits(x, 4)] for i, x in zip(*pair, strict=True) if i >= 0] or None
                    for pair in zip(ids[start:end].tolist(), logps[start:end].tolist(), strict=True)
                ]
                for view, (ids, logps) in report.alternatives.items()
            }
        yield in_phase(phase, line)
        start = end


def in_phase(phase: Phase, line: Line) -> Line:
    """A line of a log that names its phase first."""
    return {"phase": phase.name, **line}


def _digits(x: float, count: int) -> float | None:
    return float(f"{x:.{count}g}") if math.isfinite(x) else None
