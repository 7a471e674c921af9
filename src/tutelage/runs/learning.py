"""How a run learnt, from its folder: what `tutelage doctor RUN` prints.

Each finding is one sentence: what was seen, what it means, and the settings that help.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from tutelage.evaluation.statistics import Estimate, difference
from tutelage.rollout import record
from tutelage.rollout.record import Line
from tutelage.runs.metrics import entropy
from tutelage.types import Episode

ROSE = 0.15
"""Share of refused turns that a student gains beside its hinted self, above which that is told."""
FELL = 0.2
"""Success that the hinted policy loses while it trains, above which that is told."""
COLLAPSED = 0.2
"""Share of the first steps' entropy below which the last steps' has collapsed."""
FEW = 0.2
"""Share of groups with signal below which most of a step's episodes teach nothing."""
CLIPPED = 0.2
"""Share of clipped tokens above which much of the data teaches nothing."""
PART = 5
"""Steps at the beginning and at the end that are compared."""
_Ratios = Mapping[str, Mapping[str, float | None]]
INFORMS = 0.05
"""Least gain in success from a hint that informs."""


def of_run(folder: Path) -> list[str]:
    """What the folder of a run tells about how it learnt, each finding with the setting that helps.

    Entropy is the mean of -log p of the student's sampled tokens, which estimates it without bias
    at the temperature of sampling.
    """
    from tutelage.runs.run import Run

    run = Run(folder)
    metrics = [line for line in run.metrics() if line["phase"] == "train"]
    if not metrics:
        return ["no training step is finished, so there is nothing to diagnose yet"]
    lines = record.read(folder / "episodes.jsonl")
    groups: dict[int, list[Episode]] = {}
    for line in lines:
        if line["phase"] == "train":
            groups.setdefault(int(str(line["step"])), []).append(record.episode_of(line))
    episodes = [e for k in sorted(groups) for e in groups[k] if not e.stop.broken]
    found = [*_signal(metrics), *ratios(metrics), *_entropy([groups[k] for k in sorted(groups)])]
    evaluations = run.evaluations()
    return [
        *success(evaluations),
        *found,
        *_won_apart(episodes),
        *hint_gaps(evaluations, step=None),
    ]


def success(evaluations: Sequence[Line]) -> Iterator[str]:
    """What training did to the student's success without a hint: first and last evaluation, paired by
    task, and an evaluation between them that was better."""
    plain = [line for line in evaluations if not line["hint"] and line["name"] == "student"]
    plain = [line for line in plain if line["panel"] == plain[-1]["panel"]]
    if len({line["step"] for line in plain}) < 2:
        yield (
            "success before and after cannot be compared: there are not two evaluations; set "
            "eval.every"
        )
        return
    first, last = plain[0], plain[-1]
    found = _gap(first, last)
    change = "rose" if found.mean > 0 else "fell" if found.mean < 0 else "went"
    numbers = (
        f"success {change} from {_rate(first):.0%} at step {first['step']} to {_rate(last):.0%} at "
        f"step {last['step']}: {_points(found)}, {last['n']} tasks"
    )
    if not found.distinguishable:
        numbers += (
            ", not distinguishable; more eval.tasks and more seeds tell more (`tutelage power`)"
        )
    elif found.mean < 0:
        numbers += "; a lower update.lr is the first thing to try"
    yield numbers
    best = max(plain, key=_rate)
    lost = _gap(best, last)
    if best is not first and lost.mean < 0 and lost.distinguishable:
        yield (
            f"it was better before its end: {_rate(best):.0%} at step {best['step']}, the best of "
            f"{len(plain)} evaluations and so partly luck, and since then {_points(lost)}; let "
            "update.lr fall, such as { linear = [1e-4, 0.0] }, or end there"
        )


def _gap(first: Line, last: Line) -> Estimate:
    outcomes = [cast(Sequence[float], line["outcomes"]) for line in (first, last)]
    before, after = ([float(x) for x in each] for each in outcomes)
    return difference([before], [after])


def _rate(line: Line) -> float:
    return float(str(line["success"]))


def _points(found: Estimate) -> str:
    low, mean, high = (100 * x for x in (found.low, found.mean, found.high))
    return f"{mean:+.0f} points (95 % interval {low:+.0f} to {high:+.0f})"


def _signal(metrics: Sequence[Line]) -> Iterator[str]:
    counts = [int(str(line["groups"])) for line in metrics]
    varied = sum(
        float(str(line["varied"])) * n for line, n in zip(metrics, counts, strict=True)
    ) / max(1, sum(counts))
    if sum(counts) == sum(int(str(line["episodes"])) for line in metrics):
        yield "every group holds one episode, so no returns are compared"
    elif varied == 0:
        yield (
            "no group differed: the reward taught nothing to a method that compares groups; raise "
            "rollout.group_size or rollout.temperature, or choose tasks between easy and hard"
        )
    elif varied < FEW:
        yield (
            f"few groups differed: {varied:.0%} of them have a signal; choose tasks that are won "
            "now and then, raise rollout.group_size, or take dapo, which plays until enough differ"
        )
    else:
        yield f"{varied:.0%} of the groups differ in their returns and give a signal"
    norms = [float(str(line["grad_norm"])) for line in metrics]
    middle = sum(norms) / len(norms)
    spread = (sum((x - middle) ** 2 for x in norms) / len(norms)) ** 0.5
    if middle and spread > middle:
        yield (
            f"the gradient's norm varies more than it is large ({middle:.2g}, deviation "
            f"{spread:.2g}): steps are noisy; raise rollout.tasks_per_step or lower update.lr"
        )


def ratios(metrics: Sequence[Line]) -> Iterator[str]:
    """Tokens that the surrogate clips; nothing for runs that did not record them."""
    by_term: dict[str, list[Mapping[str, float | None]]] = {}
    for line in metrics:
        for name, numbers in cast(_Ratios, line.get("ratios", {})).items():
            by_term.setdefault(name, []).append(numbers)
    for name, lines in by_term.items():
        clipped = sum(n["clipped"] or 0.0 for n in lines) / len(lines)
        # a ratio that is not finite is recorded as none
        largest = max(math.inf if n["max"] is None else n["max"] for n in lines)
        if clipped > CLIPPED:
            yield (
                f"ratios clipped, {name}: {clipped:.0%} of the tokens, the largest ratio "
                f"{largest:.3g}: their gradient is lost; lower update.lr, update.minibatches or "
                "update.epochs"
            )
        elif clipped or largest > 1:
            yield f"{clipped:.1%} of {name}'s ratios are clipped, the largest is {largest:.3g}"


def _entropy(steps: Sequence[Sequence[Episode]]) -> Iterator[str]:
    known = [x for x in map(entropy, steps) if x is not None]
    if len(known) < 2:
        return
    part = min(PART, len(known) // 2)
    first, last = sum(known[:part]) / part, sum(known[-part:]) / part
    if last < COLLAPSED * first:
        yield (
            f"entropy collapsed: from {first:.3f} to {last:.3f} nats a token, so the episodes of a "
            "group come to be alike; set algorithm.entropy or algorithm.kl above 0, or lower "
            "update.lr"
        )
    else:
        yield f"entropy went from {first:.3f} to {last:.3f} nats a token"


def _won_apart(episodes: Sequence[Episode]) -> Iterator[str]:
    won, lost = [e for e in episodes if e.won], [e for e in episodes if not e.won]
    if not won or not lost:
        yield f"{len(won)} of {len(episodes)} training episodes were won"
        return

    def summary(chosen: Sequence[Episode]) -> str:
        turns = [turn for e in chosen for turn in e.turns]
        invalid = sum(not turn.valid for turn in turns) / max(1, len(turns))
        repeated = sum(
            b.action == a.action for e in chosen for a, b in zip(e.turns, e.turns[1:], strict=False)
        )
        return (
            f"{len(turns) / len(chosen):.1f} turns, {invalid:.0%} invalid, "
            f"{repeated / max(1, len(turns)):.0%} the action before once more"
        )

    yield (
        f"{len(won)} of {len(episodes)} training episodes were won; a won one has {summary(won)}; "
        f"a lost one {summary(lost)}"
    )


def hint_gaps(evaluations: Sequence[Line], *, step: int | None) -> list[str]:
    """What a hint adds to success, from evaluations of one step with and without it.

    step  None for the first and the last step that have both
    """
    plain = {int(str(x["step"])): x for x in evaluations if not x["hint"]}
    shown = {int(str(x["step"])): x for x in evaluations if x["hint"]}
    both = sorted(set(plain) & set(shown))
    chosen = [step] if step is not None else both[:1] + both[1:][-1:]
    sentences = []
    for k in chosen:
        if k not in both:
            continue
        without, given = float(str(plain[k]["success"])), float(str(shown[k]["success"]))
        gap = given - without
        numbers = (
            f"{shown[k]['hint']}: {gap * 100:+.0f} points at step {k} (success {given:.0%} with "
            f"it, {without:.0%} without)"
        )
        if gap >= INFORMS:
            sentences.append(f"the hint informs, {numbers}")
        elif without > 1 - INFORMS:
            sentences.append(f"nothing is left for the hint to add, {numbers}")
        else:
            sentences.append(
                f"the hint does not inform, {numbers}; start with an sft whose mixture imitates "
                "under it, with families in hinted_only, or choose another hint"
            )
    if step is None and len(chosen) == 2:
        first, last = (float(str(shown[k]["success"])) for k in chosen)
        if last < first - FELL:
            sentences.append(
                f"the hinted policy itself fell, {shown[chosen[1]]['hint']}: from {first:.0%} to "
                f"{last:.0%}; where it teaches, it shares the weights that it pulls: lower update.lr "
                'or the weight of its term, or freeze it at the start (algorithm.teacher = "reference")'
            )
        sentences += _beyond_reach(*((plain[k], shown[k]) for k in chosen))
    return sentences


def _beyond_reach(first: tuple[Line, Line], last: tuple[Line, Line]) -> Iterator[str]:
    """A student that acts as if it knew what only its hint tells; each pair is (without, with)."""
    (before, _), (after, shown) = first, last
    if not all("invalid" in line for line in (before, after, shown)):
        return  # a run from before it was recorded
    start, end, hinted = (float(str(line["invalid"])) for line in (before, after, shown))
    if end < start + ROSE or hinted > end - ROSE:
        return
    yield (
        f"refused turns rose from {start:.0%} to {end:.0%} without the hint, with it they are "
        f"{hinted:.0%}: the student may act as if it knew what only {shown['hint']} tells, such as "
        "where things are; a hint that tells no more than a student can find out teaches better "
        '("actions" tells less than "plan")'
    )
