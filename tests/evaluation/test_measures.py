"""What is reported of an evaluation: means by hand, and intervals that cover what they say."""

import math
import random

import pytest

from tutelage.evaluation.measures import Played, as_json, average, by_family, measured, share


def row(task: str, *, won: bool = False, family: str = "", **numbers: int) -> Played:
    counted = {"turns": 4, "tokens": 40, "invalid": 0, **numbers}
    return Played(task=task, family=family, won=won, score=None, **counted)


def test_repeats_of_a_task_are_one_observation() -> None:
    rows = [row("a", won=True, turns=2), row("a", turns=4), row("b", won=True, turns=8)]
    rows += [row("b", won=True, turns=10)]
    found = measured(rows)
    assert (found["success"].mean, found["success"].n) == (0.75, 2)
    assert (found["turns"].mean, found["turns"].n) == (6.0, 2)
    assert "score" not in found


def test_families_are_measured_apart() -> None:
    rows = [row("a", family="x", won=True), row("b", family="y"), row("c", family="y", tokens=10)]
    found = by_family(rows)
    assert found["x"]["success"].mean == 1
    assert (found["y"]["success"].mean, found["y"]["success"].n) == (0, 2)
    assert found["y"]["tokens"].mean == 25
    assert by_family([row("a"), row("b")]) == {}


def test_one_task_says_little() -> None:
    found = measured([row("a", won=True)])
    assert found["turns"].high == math.inf
    assert as_json(found)["turns"] == {"mean": 4.0, "low": 0.0, "high": None, "n": 1}
    assert found["success"].low < 0.3


@pytest.mark.parametrize(("kind", "truth"), [("average", 5.0), ("share", 0.2)])
def test_intervals_cover_what_they_say(kind: str, truth: float) -> None:
    """1,000 draws of 12 tasks with 1 to 9 turns, each invalid with a chance of 0.2 that differs by
    task: 95 % intervals hold the truth 92 to 98 times in 100."""
    draw = random.Random(3)
    held = 0
    for _ in range(1000):
        turns = [draw.randint(1, 9) for _ in range(12)]
        chances = [draw.choice((0.1, 0.3)) for _ in turns]
        bad = [
            sum(draw.random() < c for _ in range(n)) for n, c in zip(turns, chances, strict=True)
        ]
        found = average(turns) if kind == "average" else share(bad, turns)
        held += found.low <= truth <= found.high
    assert 920 <= held <= 980
