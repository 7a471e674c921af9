"""Runs are compared on the same tasks, with the statistics that fit what there is, and printed."""

import csv
import random
from collections.abc import Sequence

import pytest

from tutelage.errors import ConfigError
from tutelage.evaluation.comparison import (
    Design,
    Evaluated,
    Measured,
    compare,
    rendered,
    seeds_needed,
    tasks_needed,
    verdict,
)
from tutelage.evaluation.statistics import difference, paired, rate


def run(
    method: str, seed: int, *evaluations: Sequence[float], panel: str = "p", cost: float = 10.0
) -> Evaluated:
    measured = [
        Measured(outcomes=tuple(outcomes), spent={"steps": 5 * k, "episodes": cost * k})
        for k, outcomes in enumerate(evaluations)
    ]
    return Evaluated(
        name=f"{method} {seed}",
        method=method,
        seed=seed,
        panel=panel,
        split="test",
        evaluations=tuple(measured),
    )


def drawn(draw: random.Random, p: float, n: int = 60) -> list[float]:
    return [float(draw.random() < p) for _ in range(n)]


def test_one_seed_is_compared_task_by_task() -> None:
    draw = random.Random(0)
    a, b = drawn(draw, 0.3), drawn(draw, 0.7)
    first, second = compare([run("grpo", 0, a), run("sdar", 0, b)]).rows
    assert first.gap is None
    assert verdict(first) == "baseline"
    gap = second.gap
    assert gap is not None
    assert (gap.mean, gap.low, gap.high) == paired([x == 1 for x in a], [x == 1 for x in b])
    assert verdict(second) == "better"
    assert second.result == rate([b])


def test_seeds_are_paired_and_pooled() -> None:
    draw = random.Random(1)
    a, b = [drawn(draw, 0.4) for _ in range(4)], [drawn(draw, 0.45) for _ in range(4)]
    runs = [run("b", s, row) for s, row in enumerate(b)] + [
        run("a", s, row) for s, row in enumerate(a)
    ]
    random.Random(2).shuffle(runs)
    found = compare(runs, baseline="a")
    assert [row.method for row in found.rows] == ["a", "b"]
    assert found.rows[1].gap == difference(a, b)
    assert found.rows[1].seeds == (0, 1, 2, 3)
    assert found.rows[0].result == rate(a)
    assert verdict(found.rows[1]) == "not distinguishable"
    fewer = [r for r in runs if r.method == "a" or r.seed != 1]
    assert compare(fewer, baseline="a").rows[1].gap == difference(
        [a[0], a[2], a[3]], [b[0], b[2], b[3]]
    )


def test_runs_of_other_seeds_are_compared_and_it_is_said() -> None:
    a, b = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]
    row = compare([run("a", 0, a), run("b", 7, b)]).rows[1]
    assert row.pairing == "one run each, of other seeds"
    assert row.gap is not None
    assert row.gap.mean == -0.5


def test_the_mean_of_the_last_evaluations_is_the_result() -> None:
    found = compare(
        [run("a", 0, [0, 0], [1, 0], [1, 1]), run("b", 0, [0, 0], [0, 0], [1, 0])], last=2
    )
    assert [row.result.mean for row in found.rows] == [0.75, 0.25]
    with pytest.raises(ConfigError, match="fewer than --last 4"):
        compare([run("a", 0, [0, 0])], last=4)


def test_what_it_took_to_reach_a_mark() -> None:
    slow = run("slow", 0, [0, 0], [0, 0], [0, 1], [1, 1])
    quick = run("quick", 0, [0, 0], [1, 1], [1, 1], [1, 1], cost=7.0)
    never = run("never", 0, [0, 0], [0, 0])
    found = compare([slow, quick, never], mark=0.5)
    assert [row.reached for row in found.rows] == [
        {"steps": 10, "episodes": 20},
        {"steps": 5, "episodes": 7},
        {},
    ]
    assert found.rows[1].spent == {"steps": 15, "episodes": 21}
    assert compare([slow, quick]).mark == 1.0, "the baseline's result, if no mark is given"
    half = compare([run("x", 0, [0, 0], [1, 1]), run("x", 1, [0, 0], [0, 0])], mark=0.5)
    assert half.rows[0].reached == {}, "one of two seeds does not reach it"


WRONG = {
    "different tasks": [run("a", 0, [0, 1]), run("b", 0, [0, 1], panel="q")],
    "evaluated on different": [run("a", 0, [0, 1]), run("b", 0, [0, 1, 1])],
    "the same seed": [run("a", 0, [0, 1]), run("a", 0, [0, 1])],
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_cannot_be_compared_is_refused(reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compare(WRONG[reason])


def test_a_baseline_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no method 'c' among a"):
        compare([run("a", 0, [0, 1])], baseline="c")


def test_it_is_printed_in_every_form() -> None:
    found = compare([run("a_b", 0, [0, 1]), run("c|d", 0, [1, 1])])
    markdown = rendered(found, "markdown").splitlines()
    assert markdown[0].startswith("| method | seeds | solved, % |")
    assert "c\\|d" in markdown[3]
    bars = [line.replace("\\|", "").count("|") for line in markdown[:4]]
    assert len(set(bars)) == 1
    latex = rendered(found, "latex")
    assert "a\\_b &" in latex
    assert latex.count("\\\\\n") == 3
    table = list(csv.DictReader(rendered(found, "csv").splitlines()))
    assert [float(line["success"]) for line in table] == [0.5, 1.0]
    gap = found.rows[1].gap
    assert gap is not None
    assert float(table[1]["difference_low"]) == gap.low
    assert table[0]["difference"] == ""
    with pytest.raises(ValueError, match="no form"):
        rendered(found, "pdf")


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_detectable_difference_is_detected_four_times_in_five(seeds: int) -> None:
    design = Design(tasks=300, seeds=seeds, rate=0.5)
    draw, p = random.Random(3), 0.5 + design.detectable / 2
    found = 0
    for _ in range(400):
        a = sum(draw.random() < 1 - p for _ in range(300 * seeds)) / (300 * seeds)
        b = sum(draw.random() < p for _ in range(300 * seeds)) / (300 * seeds)
        found += abs(b - a) > 1.96 * design.error
    assert 0.74 < found / 400 < 0.86


def test_tasks_and_seeds_that_a_difference_takes() -> None:
    design = Design(tasks=100, seeds=3, rate=0.4, alike=0.3, seed_sd=0.02)
    tasks = tasks_needed(design, 0.1)
    assert tasks is not None
    assert Design(tasks=tasks, seeds=3, rate=0.4, alike=0.3, seed_sd=0.02).detectable <= 0.1
    assert Design(tasks=tasks - 1, seeds=3, rate=0.4, alike=0.3, seed_sd=0.02).detectable > 0.1
    seeds = seeds_needed(design, 0.1)
    assert seeds is not None
    assert Design(tasks=100, seeds=seeds, rate=0.4, alike=0.3, seed_sd=0.02).detectable <= 0.1
    assert tasks_needed(Design(tasks=10, seeds=2, seed_sd=0.2), 0.05) is None


@pytest.mark.parametrize("wrong", [{"tasks": 1}, {"seeds": 0}, {"rate": 1.5}, {"alike": 1.0}])
def test_a_design_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be (from|at least)"):
        Design(**{"tasks": 100, **wrong})  # type: ignore[arg-type]
