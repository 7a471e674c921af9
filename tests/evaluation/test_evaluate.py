"""Intervals against published values and exact coverage, panels, and evaluations."""

import json
import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.broken_envs import Trouble
from support.fake_policy import Table

from tutelage.algorithms.sft import sft
from tutelage.envs.base import Suite
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.envs.pool import LocalPool
from tutelage.errors import ConfigError, RunError
from tutelage.evaluation.evaluate import (
    Evaluation,
    Panel,
    default_split,
    evaluate,
    panel,
)
from tutelage.evaluation.results import write
from tutelage.evaluation.statistics import (
    Z95,
    mean,
    paired,
    wilson,
)
from tutelage.objective import STUDENT
from tutelage.prompts.context import Context
from tutelage.rollout.hint_preparation import Hinter
from tutelage.rollout.record import episode_of, read
from tutelage.rollout.session import Limits, Session
from tutelage.types import Episode, Observation, Stop, Task
from tutelage_worlds.household import Household


# Newcombe, Two-sided confidence intervals for the single proportion (Statistics in Medicine 17,
# 1998), table I, method 3
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), abs=6e-5)


@given(n=st.integers(1, 400), data=st.data())
def test_wilson_holds_its_estimate_and_is_symmetric(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    # its ends are where the score test is just not rejected
    for p in (low, high):
        if 0 < p < 1 and 0 < k < n:
            assert abs(k - n * p) == pytest.approx(Z95 * math.sqrt(n * p * (1 - p)), rel=1e-6)


def test_nothing_played_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize("n", [10, 50, 134])
def test_wilson_covers_what_it_says_on_average(n: int) -> None:
    """Coverage counted out over every outcome, at 199 proportions."""
    held = []
    for i in range(1, 200):
        p = i / 200
        ends = [wilson(k, n) for k in range(n + 1)]
        held.append(sum(binomial(n, k, p) for k, (a, b) in enumerate(ends) if a <= p <= b))
    assert 0.945 < sum(held) / len(held) < 0.965
    assert min(held) > 0.83


def table(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * both + [True] * first + [False] * second + [False] * neither
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return a, b


# first: Altman et al., Statistics with Confidence (2000), table 6.2; second: Bentur et al. 2009, as
# in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8
@pytest.mark.parametrize(
    ("cells", "difference", "low", "high"),
    [((14, 5, 0, 22), -0.122, -0.226, -0.011), ((1, 1, 7, 12), 0.286, 0.026, 0.507)],
)
def test_a_paired_difference_as_published(
    cells: tuple[int, int, int, int], difference: float, low: float, high: float
) -> None:
    assert paired(*table(*cells)) == pytest.approx((difference, low, high), abs=6e-4)


CELLS = st.tuples(*[st.integers(0, 30)] * 4).filter(lambda c: sum(c) > 0)


@given(cells=CELLS)
def test_a_paired_difference_turns_with_its_sides(cells: tuple[int, int, int, int]) -> None:
    a, b = table(*cells)
    d, low, high = paired(a, b)
    assert d == pytest.approx((cells[2] - cells[1]) / sum(cells))
    assert -1 - 1e-9 <= low <= d <= high <= 1 + 1e-9
    back = paired(b, a)
    assert back == pytest.approx((-d, -high, -low), abs=1e-12)


def test_pairing_narrows_the_interval_of_what_goes_together() -> None:
    apart = paired(*table(25, 25, 25, 25))
    together = paired(*table(48, 2, 2, 48))
    against = paired(*table(2, 48, 48, 2))
    widths = [high - low for _, low, high in (together, apart, against)]
    assert widths == sorted(widths)
    assert widths[0] < 0.6 * widths[1]


@pytest.mark.parametrize(
    "chances", [(0.3, 0.1, 0.1, 0.5), (0.2, 0.05, 0.25, 0.5), (0.05, 0.02, 0.13, 0.8)]
)
def test_a_paired_interval_covers_what_it_says(chances: tuple[float, ...]) -> None:
    """Counted out over every table of 30 tasks."""
    n, (p, q, r, s) = 30, chances
    truth = r - q
    held = 0.0
    for i in range(n + 1):
        for j in range(n + 1 - i):
            for k in range(n + 1 - i - j):
                rest = n - i - j - k
                ways = math.comb(n, i) * math.comb(n - i, j) * math.comb(n - i - j, k)
                _, low, high = paired(*table(i, j, k, rest))
                if low <= truth <= high:
                    held += ways * p**i * q**j * r**k * s**rest
    assert 0.93 < held <= 1


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False])])
def test_a_comparison_needs_the_same_tasks(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(ValueError, match="same tasks"):
        paired(a, b)


# -- panels


@dataclass(frozen=True)
class Renamed(Doors):
    """The same tasks in a world that words its rooms otherwise."""

    word: str = "room {}"

    def make(self) -> DoorsEnv:
        return _Renamed(self.word)


class _Renamed(DoorsEnv):
    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def reset(self, task: Task) -> Observation:
        seen = super().reset(task)
        return replace(seen, text=self.word.format(seen.text))


def test_a_panel_is_the_first_tasks_of_a_split_and_known_by_what_they_show() -> None:
    result = panel(Doors(3), "unseen", 10)
    assert [t.id for t in result.tasks] == [t.id for t in Doors(3).tasks("unseen")[:10]]
    assert result == panel(Doors(3), "unseen", 10)
    others = [
        panel(Doors(3), "unseen", 9),
        panel(Doors(4), "unseen", 10),
        panel(Renamed(3), "unseen", 10),
        panel(Renamed(3, "hall {}"), "unseen", 10),
    ]
    assert len({result.fingerprint, *(o.fingerprint for o in others)}) == 5
    assert result.fingerprint == panel(Renamed(3, "{}"), "unseen", 10).fingerprint


def test_the_panel_of_the_published_study_is_reproduced() -> None:
    root = Path(__file__).parents[2] / "studies" / "household"
    base = tomllib.loads((root / "study.toml").read_text())["base"]
    published = json.loads((root / "results.json").read_text())
    result = panel(
        Household(**base["env"]["options"]), published["split"], len(published["families"])
    )
    assert result.fingerprint == published["panel"]


def test_a_panel_larger_than_its_split_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"seen split has 9 tasks, fewer than the 10"):
        panel(Doors(2), "seen", 10)


def episode(won: bool, *, family: str = "", stop: Stop = Stop.DONE, k: int = 0) -> Episode:
    return Episode(task=Task(id=str(k), family=family), group=str(k), turns=(), stop=stop, won=won)


def test_an_evaluation_counts_every_task_of_its_panel() -> None:
    wins = [True, False, True, True]
    families = ["put", "put", "heat", "heat"]
    episodes = [
        episode(w, family=f, k=k) for k, (w, f) in enumerate(zip(wins, families, strict=True))
    ]
    episodes[1] = replace(episodes[1], stop=Stop.ERROR)
    tested = Panel(split="seen", tasks=tuple(e.task for e in episodes), fingerprint="f")
    result = Evaluation(panel=tested, episodes=tuple(episodes))
    assert result.rate == (0.75, *wilson(3, 4))
    line = result.line(20, "student")
    assert {key: line[key] for key in ("step", "name", "panel", "n", "won", "broken")} == {
        "step": 20,
        "name": "student",
        "panel": "f",
        "n": 4,
        "won": 3,
        "broken": 1,
    }
    assert line["outcomes"] == [1, 0, 1, 1]
    assert line["families"] == {
        "heat": [2, 2, *wilson(2, 2)],
        "put": [1, 2, *wilson(1, 2)],
    }
    assert (line["success"], line["low"], line["high"]) == result.rate


def test_the_mean_of_scores_as_computed_by_hand() -> None:
    # s = sqrt(0.2 / 3), and 1.96 s / 2 to each side
    assert mean([0.2, 0.4, 0.6, 0.8]) == pytest.approx((0.5, 0.24697, 0.75303), abs=1e-5)
    assert mean([]) == (0.0, 0.0, 1.0)
    assert mean([0.25]) == (0.25, *wilson(0.25, 1))
    assert mean([1.0, 0.0, 1.0])[2] == 1.0


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_of_scores_is_of_scores_and_holds_their_mean(scores: list[float]) -> None:
    middle, low, high = mean(scores)
    assert 0 <= low <= middle + 1e-12
    assert middle - 1e-12 <= high <= 1
    assert low < high or len(set(scores)) > 1


def test_scores_are_reported_over_all_tasks_and_by_family() -> None:
    scores = [1.0, 0.5, None, 0.9]
    episodes = [
        replace(episode(k == 0, family="ab"[k // 2], k=k), score=score)
        for k, score in enumerate(scores)
    ]
    episodes[3] = replace(episodes[3], stop=Stop.ERROR)
    tested = Panel(split="seen", tasks=tuple(e.task for e in episodes), fingerprint="f")
    result = Evaluation(panel=tested, episodes=tuple(episodes), summary={"pass_rate": 0.75})
    line = result.line(0, "student")
    # what was not scored or broke is worth nothing, and is never left out
    assert line["scores"] == [1.0, 0.5, 0.0, 0.0]
    assert (line["score"], line["score_low"], line["score_high"]) == mean([1.0, 0.5, 0.0, 0.0])
    assert line["score_families"] == {"a": [*mean([1.0, 0.5])], "b": [*mean([0.0, 0.0])]}
    assert line["summary"] == {"pass_rate": 0.75}
    silent = Evaluation(panel=tested, episodes=tuple(replace(e, score=None) for e in episodes))
    assert not {"score", "scores", "score_families", "summary"} & silent.line(0, "x").keys()


def test_episodes_of_one_task_are_one_observation() -> None:
    """Three tasks, two episodes each: an interval that took six tasks would be too narrow."""
    wins, scores = [1, 1, 0, 1, 0, 0], [1.0, 1.0, 0.2, 1.0, 0.0, 0.4]
    episodes = tuple(
        replace(episode(w == 1, family="aab"[k // 2], k=k // 2), score=scores[k], copy=k % 2)
        for k, w in enumerate(wins)
    )
    tested = Panel(split="seen", tasks=tuple(e.task for e in episodes[::2]), fingerprint="f")
    result = Evaluation(panel=tested, episodes=episodes, repeats=2)
    line = result.line(0, "student")
    assert (line["n"], line["won"], line["outcomes"]) == (6, 3, [1.0, 0.5, 0.0])
    assert (line["success"], line["low"], line["high"]) == mean([1.0, 0.5, 0.0])
    assert line["families"] == {"a": [3, 4, *mean([1.0, 0.5])[1:]], "b": [0, 2, *wilson(0, 1)]}
    assert line["scores"] == pytest.approx([1.0, 0.6, 0.2])
    assert (line["score"], line["score_low"], line["score_high"]) == mean(result.scores)
    assert line["score_families"] == {
        "a": [*mean(result.scores[:2])],
        "b": [*mean(result.scores[2:])],
    }


def run(suite: Suite, tested: Panel, retries: int = 1) -> Evaluation:
    on = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies={"self": Table(knows=30.0)},
        context=Context(),
        limits=Limits(max_turns=9, max_new_tokens=8, retries=retries),
    )
    return evaluate(on, tested, seed=0, temperature=0.0)


def test_a_task_that_breaks_is_a_failure_and_is_never_left_out(tmp_path: object) -> None:
    suite = Trouble(("step raises",))
    tested = panel(suite, "seen", 4)
    always = run(suite, tested)
    assert always.won == [False, True, True, True]
    assert always.line(0, "x")["broken"] == 1
    # one that breaks once counts as what it did the second time
    once = run(replace(suite, folder=str(tmp_path)), tested)
    assert once.won == [True] * 4
    assert once.line(0, "x")["broken"] == 0


def test_only_an_evaluation_with_a_hint_shows_it() -> None:
    """Without a hint, the student acts under its own view: a hint in the prompt would measure
    somebody who is told the solution."""
    suite = Doors(2)
    session = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies={"self": Table(knows=30.0)},
        context=Context(),
        limits=Limits(max_turns=2, max_new_tokens=8),
    )
    session = replace(session, ready=Hinter(session=session, seed=0))
    tested = panel(suite, "seen", 3)
    plain = evaluate(session, tested, seed=0, temperature=0.0)
    hinted = evaluate(session, tested, hint="plan", seed=0, temperature=0.0)
    assert {t.actor for e in plain.episodes for t in e.turns} == {STUDENT}
    assert {t.actor for e in hinted.episodes for t in e.turns} == {"hinted"}
    for without, with_hint in zip(plain.episodes, hinted.episodes, strict=True):
        assert len(with_hint.turns[0].prompt) > len(without.turns[0].prompt)
    assert (plain.hint, hinted.hint) == ("", "plan")


def test_the_expert_can_act_in_the_policys_place() -> None:
    suite = Doors(2)
    session = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies={"self": Table(knows=-30.0)},
        context=Context(),
        limits=Limits(max_turns=2, max_new_tokens=8),
    )
    tested = panel(suite, "seen", 3)
    assert evaluate(session, tested, seed=0, temperature=0.0).won == [False] * 3
    expert = evaluate(session, tested, acting=sft(), seed=0, temperature=0.0)
    assert expert.won == [True] * 3


@dataclass(frozen=True)
class Splits:
    names: tuple[str, ...]

    def tasks(self, split: str) -> list[Task]:
        if split not in self.names:
            raise ValueError(f"no split {split!r}")
        return [Task(id=split)]

    def make(self) -> DoorsEnv:
        return DoorsEnv()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("train", "seen", "unseen"), "unseen"),
        (("test", "dev", "train"), "test"),
        (("train", "validation", "test"), "test"),
        (("train", "dev"), "dev"),
        (("train",), "train"),
    ],
)
def test_the_default_split_is_the_most_test_like_one(names: tuple[str, ...], chosen: str) -> None:
    assert default_split(Splits(names)) == chosen


def test_results_on_disk_hold_a_row_and_a_transcript_per_task(tmp_path: Path) -> None:
    evaluation = run(Doors(2), panel(Doors(2), "seen", 3))
    folder = tmp_path / "a" / "results"
    write({"student": evaluation}, folder, step=7)
    (summary,) = json.loads((folder / "summary.json").read_text())
    line = json.loads(json.dumps(evaluation.line(7, "student")))
    assert {name: summary[name] for name in line} == line
    rows = list(read(folder / "tasks.jsonl"))
    assert [row["task"] for row in rows] == [t.id for t in evaluation.panel.tasks]
    assert [row["won"] for row in rows] == evaluation.won
    transcript = rows[0]["transcript"]
    assert isinstance(transcript, list)
    assert transcript[0]["observation"] == "a"
    assert transcript[0]["reply"] == evaluation.episodes[0].turns[0].text
    episodes = [episode_of(line) for line in read(folder / "episodes.jsonl")]
    assert [e.won for e in episodes] == evaluation.won
    with pytest.raises(RunError, match="exists already"):
        write({"student": evaluation}, folder, step=7)
