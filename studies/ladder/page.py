"""The tables of the ladder's page and what they show of each method, from the results' files alone."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from studies import analysis, plan, results, tables
from studies.analysis import Panel, result, start
from studies.analysis import verdict as apart
from studies.ladder import claims, drift, family, gates, rung_a, strengths, takeover
from studies.ladder import start as starts
from studies.plan import Study
from tutelage.evaluation import plots
from tutelage.evaluation.comparison import Design
from tutelage.evaluation.statistics import Estimate, difference, wilson

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "studies" / "ladder"
BASELINE, RATES, MATTERS = "grpo", "rates", "matters"
SETTINGS = ("settings", "hints", "retrieval")
"""Groups of one method with other settings, hints or plans, which have a table of their own."""
LADDER = "[The ladder](../studies/ladder.md)."
OTHER_START = (
    "The start of the study below does not read its hint: it is worse with one than without."
)
STUDY, RESULTS, REACHED = HERE / "household.toml", HERE / "household.json", HERE / "rung_a.json"


# -- rung (a)


def save(reached: Sequence[rung_a.Reached], path: Path = REACHED) -> None:
    """Keep the mean over seeds by method and game, in tenths of a percent of the best return."""
    seeds = sorted({r.seed for r in reached})
    lines = [
        f'  "{name}": {json.dumps({g: _mean(reached, name, g) for g in rung_a.GAMES})}'
        for name in dict.fromkeys(r.method for r in reached)
    ]
    body = ",\n".join(lines)
    path.write_text(f'{{\n "seeds": {seeds},\n "reached": {{\n{body}\n }}\n}}\n', encoding="utf-8")


def _mean(reached: Sequence[rung_a.Reached], name: str, game: str) -> float:
    return round(fmean(r.end for r in reached if (r.method, r.game) == (name, game)), 3)


@cache
def reached() -> Mapping[str, Mapping[str, float]]:
    """Method -> game -> mean share of the best return."""
    found: Mapping[str, Mapping[str, float]] = json.loads(REACHED.read_text(encoding="utf-8"))[
        "reached"
    ]
    return found


def rung_a_table() -> str:
    rows = [
        [f"`{name}`", method.taught, *(tables.percent(share) for share in reached()[name].values())]
        for name, method in rung_a.METHODS.items()
    ]
    return tables.table(["method", "taught by", *rung_a.GAMES], rows)


# -- rung (b)


def rung_b_table() -> str:
    return family.table()


# -- rung (c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a method of rung (c) came to.

    method, title  its entry in the study, and its name there
    algorithm      the registered name
    wins           seed -> tasks of the panel won at the start and at the end
    seeds          seed -> end minus start, paired by task
    found          the same over all seeds
    detectable     the true difference that this design finds in 80 of 100 repetitions
    one            the same with one of its seeds
    """

    method: str
    title: str
    algorithm: str
    wins: Mapping[int, tuple[int, int]]
    seeds: Mapping[int, Estimate]
    found: Estimate
    detectable: float
    one: float


@cache
def measured() -> tuple[Study, Panel]:
    """The study and its results."""
    study = plan.load(STUDY)
    return study, Panel(results.read(RESULTS), study.last)


@cache
def gains() -> tuple[Gain, ...]:
    """In the study's order, of the methods that have results; what was run with one seed to choose or
    compare settings is left out."""
    study, panel = measured()
    names = [name for name in study.titles if panel.values(name)]
    tried = (RATES, MATTERS)
    return tuple(_gain(study, panel, name) for name in names if study.group(name) not in tried)


def _gain(study: Study, panel: Panel, name: str) -> Gain:
    before, after = panel.values(name, start), panel.values(name, result)
    found = panel.gap(name, name, result, of_baseline=start)
    assert found is not None
    config = next(r.config for r in study.runs if r.method == name)
    assert config is not None
    return Gain(
        method=name,
        title=study.titles[name],
        algorithm=config.algorithm.name,
        wins={s: (round(sum(before[s])), round(sum(after[s]))) for s in sorted(after)},
        seeds={s: difference([before[s]], [after[s]]) for s in sorted(after)},
        found=found,
        detectable=design(before, after).detectable,
        one=max(design({s: before[s]}, {s: after[s]}).detectable for s in after),
    )


def design(before: Mapping[int, list[float]], after: Mapping[int, list[float]]) -> Design:
    """The design of a comparison, with the rate and the variation that its runs have."""
    seeds = sorted(after)
    a, b = ([x for s in seeds for x in side[s]] for side in (before, after))
    changes = [fmean(after[s]) - fmean(before[s]) for s in seeds]
    return Design(
        tasks=len(after[seeds[0]]),
        seeds=len(seeds),
        rate=(fmean(a) + fmean(b)) / 2,
        alike=min(0.999, max(0.0, correlation(a, b))),
        # the error of a difference holds both sides' variation, and here the change's is known
        seed_sd=min(1.0, stdev(changes) / math.sqrt(2)) if len(seeds) > 1 else 0.0,
    )


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two columns; 0 where one does not vary.

    >>> correlation([0, 1, 0, 1], [0, 1, 0, 1]), correlation([1, 1], [0, 1])
    (1.0, 0.0)
    """
    x, y = fmean(a), fmean(b)
    across = math.sqrt(sum((p - x) ** 2 for p in a) * sum((q - y) ** 2 for q in b))
    return sum((p - x) * (q - y) for p, q in zip(a, b, strict=True)) / across if across else 0.0


ENOUGH = 3
"""Seeds from which on an interval over seeds says something: with two, Student's t is 12.7."""


def verdict(gain: Gain) -> str:
    """The words that the intervals allow, and what could have been shown where they allow none."""
    if len(gain.seeds) >= ENOUGH:
        if gain.found.distinguishable:
            return f"{_word(gain.found)} over {len(gain.seeds)} seeds"
        return f"not distinguishable over {len(gain.seeds)} seeds; {_could(gain.detectable)}"
    if apart := [s for s in gain.seeds if gain.seeds[s].distinguishable]:
        parts = [f"{_word(gain.seeds[s])} with seed {s}" for s in apart]
        parts += [f"not distinguishable with seed {s}" for s in gain.seeds if s not in apart]
        return ", ".join(parts) + ("" if len(apart) == len(gain.seeds) else f"; {_could(gain.one)}")
    return f"not distinguishable; {_could(gain.one)}"


def _word(found: Estimate) -> str:
    return "gains" if found.mean > 0 else "loses"


def _could(difference: float) -> str:
    """What a design could have shown."""
    if difference >= 1:
        return "no difference could have been shown"
    return f"{100 * difference:.0f} points could have been shown"


def rung_c_table() -> str:
    """A row for each method, over its seeds."""
    study, _ = measured()
    return _gains_table([g for g in gains() if study.group(g.method) not in SETTINGS])


def settings_table() -> str:
    """The same of a method's other settings, hints and plans."""
    study, _ = measured()
    return _gains_table([g for g in gains() if study.group(g.method) in SETTINGS])


def _gains_table(found_of: Sequence[Gain]) -> str:
    _, panel = measured()
    rows = []
    for gain in found_of:
        found = panel.rate(gain.method)
        assert found is not None
        ends = [run.evaluations[-1] for run in panel.results.of(gain.method)]
        beside = panel.gap(gain.method, BASELINE) if gain.method != BASELINE else None
        rows.append(
            [
                gain.title,
                tables.percent(found.mean),
                tables.ends(found),
                ", ".join(f"{100 * won / found.tasks:.0f}" for _, won in gain.wins.values()),
                f"{tables.signed(gain.found)}: {verdict(gain)}",
                f"{tables.signed(beside)}: {apart(beside)}" if beside else "",
                tables.percent(fmean(e.invalid for e in ends)),
            ]
        )
    head = ["method", "result", "95 %", "by seed", "minus its start", "minus GRPO", "refused turns"]
    return tables.table(head, rows)


def household_rates_table() -> str:
    """The sweep over rates, with a seed that the comparison does not use."""
    study, panel = measured()
    runs = [run for run in panel.results.runs if run.group == RATES]
    return analysis.rates_table(study.titles, runs)


def matters_table() -> str:
    """GRPO with one setting changed, beside GRPO at the same rate: one seed, paired by task."""
    study, panel = measured()
    (plain,) = panel.results.of("grpo_3e-4")
    rows = []
    for run in (plain, *(run for run in panel.results.runs if run.group == MATTERS)):
        end = run.evaluations[-1]
        beside = difference([plain.evaluations[-1].won], [end.won])
        rows.append(
            [
                study.titles[run.method],
                *(tables.percent(fmean(e.won)) for e in run.evaluations),
                f"{tables.signed(beside)}: {apart(beside)}" if run is not plain else "",
                tables.percent(end.invalid),
            ]
        )
    steps = [f"{e.step} steps" if e.step else "start" for e in plain.evaluations]
    head = ["method", *steps, "minus GRPO at the end", "refused turns"]
    return tables.table(head, rows)


def claims_table() -> str:
    return claims.table(*measured())


def hint_speed_table() -> str:
    return claims.hint_speed_table(*measured())


def starts_table() -> str:
    return starts.grades_table(starts.read())


def handed_table() -> str:
    return starts.handed_table(starts.read())


def drift_table() -> str:
    return drift.table(drift.read())


def gates_table() -> str:
    return gates.table(gates.read())


def strengths_table() -> str:
    return strengths.table()


def rates_table() -> str:
    return strengths.rates_table()


def curricula_table() -> str:
    return strengths.curricula_table()


def takeover_table() -> str:
    titles = plan.load(strengths.STUDY, over=strengths.STARTS[0]).titles
    return takeover.table(takeover.read(), titles)


def draw(folder: Path = PICTURES) -> list[Path]:
    """The pictures of rung (c): every method's gain and, over k, what the hinted self can take over."""
    _, panel = measured()
    tasks = len(panel.results.families)
    note = f"panel {panel.results.panel}, {tasks} unseen tasks; the student alone, without a hint"
    rows = {}
    for gain in gains():
        found = panel.rate(gain.method)
        assert found is not None
        count = len(gain.seeds)
        name = f"{gain.title} ({count} seed{'s' if count > 1 else ''})"
        rows[name] = plots.Point(
            step=0, success=found.mean, low=found.low, high=found.high, n=found.tasks
        )
    begun = panel.start()
    plots.intervals(
        rows,
        folder / "methods.png",
        title="Last three evaluations",
        marks={"start": begun.mean} if begun else {},
        note=note,
    )
    curves = {}
    for known in starts.read():
        for name, won in (("its hinted self continues", "hinted"), ("it continues", "plain")):
            points = []
            for row in known.handed:
                low, high = wilson(getattr(row, won), row.n)
                rate = getattr(row, won) / row.n
                points.append(
                    plots.Point(step=row.after, success=rate, low=low, high=high, n=row.n)
                )
            curves[f"start {known.seed}: {name}"] = points
    plots.learning_curve(
        curves,
        folder / "handed.png",
        title="Success by the turns that the student took before",
        label="turns that the student took",
    )
    return [folder / "methods.png", folder / "handed.png"]


# -- for the table of methods


def shown(name: str) -> str:
    """Where a registered method was shown to learn."""
    parts = []
    if on_games(name):
        parts.append(f"games ({100 * min(reached()[name].values()):.0f} % of the best)")
    if family.learnt(name):
        found = family.gain(name)
        assert found is not None
        parts.append(f"one household family ({100 * found.mean:+.0f} points, one seed)")
    if gain := on_household(name):
        parts.append(f"household tasks ({_gained(gain)})")
    return ", ".join(parts) or "not shown"


def of_method(name: str) -> str:
    """What a registered method came to on each rung, for its own page."""
    sentences = []
    if name in reached():
        games = [f"{tables.percent(share)} ({game})" for game, share in reached()[name].items()]
        sentences.append(f"Of the best return on two games: {', '.join(games)}, 3 seeds.")
    if found := family.gain(name):
        sentences.append(
            f"On one family of household tasks: {tables.signed(found)} points in 6 steps, one seed."
        )
    if name == strengths.GUIDED:
        sentences.append(strengths.lead())
    own = [g for g in gains() if g.algorithm == name]
    if not own:
        return f"{LADDER} {' '.join(sentences)} On three families it was not run."
    _, panel = measured()
    rows = [
        [gain.title, tables.percent(found.mean), f"{tables.signed(gain.found)}: {verdict(gain)}"]
        for gain in own
        if (found := panel.rate(gain.method))
    ]
    head = ["", "result", "minus its start, points (95 %)"]
    hinted = "hint" in rung_a.METHODS[name].taught
    apart_from_below = f"\n\n{OTHER_START}" if hinted else ""
    return (
        f"{LADDER} {' '.join(sentences)} On three families, 200 unseen tasks, from starts that read "
        f"their hint, 640 episodes or demonstrations:\n\n{tables.table(head, rows)}{apart_from_below}"
    )


def on_games(name: str) -> bool:
    """Whether a method reached on both games what it must."""
    on_a = reached().get(name, {})
    return bool(on_a) and min(on_a.values()) >= rung_a.WANTED


def on_household(name: str) -> Gain | None:
    """The entry with the most seeds, and of those the largest gain, in which a method learnt."""
    own = [g for g in gains() if g.algorithm == name and learnt(g)]
    return max(own, key=lambda g: (len(g.seeds), g.found.mean), default=None)


def _gained(gain: Gain) -> str:
    seeds = "one seed" if len(gain.seeds) == 1 else f"{len(gain.seeds)} seeds"
    return f"{100 * gain.found.mean:+.0f} points, {seeds}"


def shown_in_short(names: Sequence[str], title: Callable[[str], str]) -> str:
    """Where methods were shown to learn, in three sentences; `title` is how a method is called."""
    found = {name: gain for name in names if (gain := on_household(name))}
    best = sorted(found, key=lambda name: (-len(found[name].seeds), -found[name].found.mean))
    household = "; ".join(f"{title(name)} ({_gained(found[name])})" for name in best)
    games = [name for name in names if on_games(name)]
    rest = [title(name) for name in names if name not in games]
    tried = [name for name in names if family.gain(name) is not None]
    missing = [title(name) for name in tried if not family.learnt(name)]
    return (
        f"Shown to learn on two games with a known optimum: {len(games)} of {len(names)}"
        f"{', all but ' + ', '.join(rest) if rest else ''}; on one family of household tasks, with one seed: "
        f"{len(tried) - len(missing)} of {len(tried)}"
        f"{', all but ' + ', '.join(missing) if missing else ''}. On three families, from a start that "
        f"leaves room and reads its hint: {household or 'none'}. The others were not tried there, or "
        "not shown to learn."
    )


def learnt(gain: Gain) -> bool:
    """Whether the success rose over seeds or, where these are few, with every one of them."""
    found = [gain.found] if len(gain.seeds) >= ENOUGH else list(gain.seeds.values())
    return all(each.distinguishable and each.mean > 0 for each in found)
