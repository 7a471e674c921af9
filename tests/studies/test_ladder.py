"""The ladder: its methods, its verdict, and the start that is shown some families under a hint only."""

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from studies import plan
from studies.ladder import drift, family, gates, page, rung_a, start, takeover, teachers
from studies.ladder.misled import Misled, following, is_misled
from studies.ladder.tabular import LETTERS, Shared
from tutelage.algorithms import ALGORITHMS
from tutelage.algorithms.sft import sft
from tutelage.errors import RunError
from tutelage.evaluation.statistics import difference
from tutelage.objective import Acting, Algorithm, View
from tutelage.objective.scores import Scores
from tutelage.rollout import record
from tutelage.rollout.play import play
from tutelage.types import Task
from tutelage_worlds.household.suite import NAMES, Household


def test_every_algorithm_stands_on_the_ladder() -> None:
    assert set(rung_a.METHODS) == set(ALGORITHMS)


@pytest.mark.parametrize(
    "game",
    [g if g == "doors" else pytest.param(g, marks=pytest.mark.nightly) for g in rung_a.GAMES],
)
@pytest.mark.parametrize("name", rung_a.METHODS)
def test_every_method_learns(name: str, game: str) -> None:
    """One seed of `make ladder-smoke`: a method that stops learning fails the build."""
    assert not rung_a.failing([rung_a.climb(name, game, 0)])


BROKEN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # the advantage has the wrong sign
    "grpo": ("tutelage.algorithms.grpo.group_relative", lambda of: lambda **k: -1.0 * of(**k)),
    # the gate of the hint's pull never opens
    "gated_opsd": ("tutelage.algorithms.gated_opsd.GATES", lambda of: {"gap": lambda beta: _shut}),
    # the teacher's gap is left out
    "opd": ("tutelage.algorithms.opd.gap", lambda of: lambda: 0.0 * of()),
}
"""Method -> what is broken, and what takes its place."""


def _shut(student: Scores, teacher: Scores) -> Tensor:
    return torch.zeros_like(student.logp)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_method_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, broken = BROKEN[name]
    file, _, attribute = path.rpartition(".")
    module = import_module(file)
    monkeypatch.setattr(module, attribute, broken(getattr(module, attribute)))
    (sentence,) = rung_a.failing([rung_a.climb(name, "bandit", 0)])
    assert "it must reach 95.0%" in sentence


def test_a_family_that_is_only_hinted_is_never_demonstrated_plainly() -> None:
    session = rung_a.session_of(rung_a.METHODS["sft"], rung_a.GAMES["bandit"])
    tasks = session.suite.tasks("train")
    free = play(session, tasks, sft(mixture={"plan": 0.3}), seed=0, step=0)
    only = sft(mixture={"plan": 0.3}, hinted_only=["bandit"])
    bound = play(session, tasks, only, seed=0, step=0)
    assert {e.turns[0].actor for e in free} == {"expert", "with_plan"}
    assert {e.turns[0].actor for e in bound} == {"with_plan"}
    with pytest.raises(ValueError, match="hinted_only"):
        sft(hinted_only=["bandit"])
    with pytest.raises(ValueError, match="hinted_only"):
        Acting(hinted_only=("bandit",))


def test_chosen_families_are_the_same_tasks_in_the_same_order() -> None:
    chosen = (NAMES[4], NAMES[1])
    every = [t for t in Household(train=60).tasks("train") if t.family in chosen]
    assert list(Household(train=20, families=chosen).tasks("train")) == every
    with pytest.raises(ValueError, match="no family 'fly'"):
        Household(families=["fly"])


def gain(before: list[list[float]], after: list[list[float]]) -> page.Gain:
    a, b = dict(enumerate(before)), dict(enumerate(after))
    return page.Gain(
        method="grpo",
        title="GRPO",
        algorithm="grpo",
        wins={},
        seeds={s: difference([a[s]], [b[s]]) for s in a},
        found=difference(before, after),
        detectable=page.design(a, b).detectable,
        one=page.design({0: a[0]}, {0: b[0]}).detectable,
    )


def test_what_is_learnt_without_a_hint_moves_what_is_said_with_one() -> None:
    policy = Shared(reads=5.0)
    before = policy.table().detach()
    row = LETTERS.index("b") * 5
    with torch.no_grad():
        policy.logits[row] += 1.0
    assert torch.equal(policy.table()[row : row + 5], before[row : row + 5] + 1.0)
    assert torch.equal(policy.table()[row + 5 :], before[row + 5 :])


def test_a_wrong_hint_beats_the_reward_only_with_a_large_weight() -> None:
    small, large = (
        drift.run("wrong", f"{beta}, teacher moves with the student", 0, steps=6).hinted
        for beta in (0.1, 0.5)
    )
    assert small[-1] < small[0] == large[0] < large[-1]


def test_a_hinted_self_goes_on_where_the_student_stopped() -> None:
    method, game = rung_a.METHODS["opsd"], rung_a.GAMES["bandit"]
    session = rung_a.session_of(method, game)
    tasks = tuple(game.suite.tasks("unseen"))
    plain = play(session, tasks, Algorithm(terms=()), seed=0, step=-1)
    whole, late = (start._handed(session, tasks, plain, after, 0) for after in (0, 1))
    assert whole.n == late.n == len(tasks)
    assert whole.hinted >= 0.75 * len(tasks), "from the first turn it follows the plan"
    first_right = sum(e.turns[0].action == "4" for e in plain)
    assert late.hinted <= first_right < len(tasks), "the first turn is the student's own"
    # its episodes have two turns
    assert start.handed(session, tasks, plain, 0) == (whole,)


@pytest.mark.parametrize("there", [(8,), (8, 22), (22,)])
def test_a_teacher_is_the_checkpoint_after_its_steps(
    there: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for step in there:
        folder = run / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
        (folder / "model").write_text(f"{step}")
    (run / "latest").write_text(f"step-{there[-1]:06d}\n")
    (tmp_path / "after-22").mkdir()
    monkeypatch.setattr(teachers, "FOLDER", tmp_path)
    monkeypatch.setattr(teachers, "FOUND", tmp_path / "teachers.json")
    (tmp_path / "teachers.json").write_text(json.dumps({"8": {}, "22": {}}))
    if 8 in there:
        teachers.train(["pick_and_place"])
        assert (tmp_path / "after-8" / "model").read_text() == "8"
        return
    with pytest.raises(RunError, match=r"after step 8 .* delete .* anew"):
        teachers.train(["pick_and_place"])
    assert not (tmp_path / "after-8").exists()


def test_a_teacher_that_takes_over_plays_from_there_on() -> None:
    method, game = rung_a.METHODS["opd"], rung_a.GAMES["bandit"]
    session = rung_a.session_of(method, game)
    tasks = tuple(game.suite.tasks("unseen"))
    plain = play(session, tasks, Algorithm(terms=()), seed=0, step=-1)
    begun, taken = start.taken_over(session, tasks, plain, 1, View(policy="teacher"), seed=0)
    assert [e.task for e in begun] == [e.task for e in taken] == list(tasks)
    assert [e.turns[0].action for e in begun] == [e.turns[0].action for e in taken]
    assert {t.actor for e in taken for t in e.turns[1:]} == {"taker"}
    assert not start.taken_over(session, tasks, plain, 2, View(policy="teacher"), seed=0)[1]


def test_the_curve_over_the_students_turns_is_kept_and_pooled_over_seeds(tmp_path: Path) -> None:
    def curve(method: str, seed: int, taken: int) -> takeover.Curve:
        first = takeover.Point(after=0, n=10, taken=10, plain=2, logp=-0.1, in_time=9)
        last = takeover.Point(
            after=4, n=5 * seed, taken=taken, plain=1, logp=-0.2 * seed, in_time=8
        )
        return takeover.Curve(
            start="weak", method=method, seed=seed, won=2, tasks=10, points=(first, last)
        )

    path = tmp_path / "takeover.json"
    takeover.save([curve("", 1, 3), curve("", 2, 6), curve("opd", 0, 0)], path)
    takeover.save([curve("", 1, 4)], path)
    found = takeover.read(path)
    assert len(found) == 3, "a measurement takes the place of the one before it"
    lines = takeover.table(found, {"opd": "OPD"}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "before training (2 seeds; wins 20 % alone)",
        "",
        "after OPD (1 seed; wins 20 % alone)",
    ], "an empty point is left out"
    assert "| 15 | 67 % (42 to 85) | 13 % (4 to 38) | 80.0 % | -0.333 |" in lines[3]


def test_a_wrong_plan_is_that_of_another_task_of_the_family() -> None:
    right, misled = Household(size="small"), Misled(size="small", wrong=0.4)
    tasks = right.tasks("train")[:200]
    assert misled.tasks("train")[:200] == tasks
    wrong = [task for task in tasks if misled.plan(task) != right.plan(task)]
    assert 60 < len(wrong) < 100
    assert all(is_misled(task, 0.4) for task in wrong)
    for task in wrong:
        assert following(task).family == task.family
        assert misled.plan(task) == right.plan(following(task))
    assert all(Misled(size="small").plan(task) == right.plan(task) for task in tasks)


def test_starts_are_kept_and_shown(tmp_path: Path) -> None:
    known = start.read()
    path = tmp_path / "start.json"
    start.save(known, path)
    assert start.read(path) == known
    table = start.grades_table(known)
    assert "| the plan | 0 | 190 of 200 |" in table
    assert "another task's plan" in table


def test_a_verdict_without_a_difference_says_what_could_have_been_shown() -> None:
    half, rest = [1.0, 0.0] * 48, [0.0, 1.0] * 48
    won, lost = [1.0] * 96, [0.0] * 96
    for before, after, learnt, words in (
        ([half], [won], True, "gains with seed 0"),
        ([won], [half], False, "loses with seed 0"),
        # (1.96 + 0.84) sqrt(2 / 4 / 96) of uncorrelated outcomes at a rate of one half
        ([half], [rest], False, "not distinguishable; 20 points could have been shown"),
        ([half, half], [won, won], True, "gains with seed 0, gains with seed 1"),
        ([half] * 3, [won] * 3, True, "gains over 3 seeds"),
        (
            [half] * 3,
            [won, lost, half],
            False,
            "not distinguishable over 3 seeds; no difference could have been shown",
        ),
    ):
        found = gain(before, after)
        assert page.verdict(found) == words
        assert page.learnt(found) == learnt
    mixed = page.verdict(gain([half, half], [won, rest]))
    assert mixed.startswith("gains with seed 0, not distinguishable with seed 1; ")


def test_what_was_reached_is_kept_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(game: str, seed: int, end: float) -> rung_a.Reached:
        return rung_a.Reached(method="grpo", game=game, seed=seed, start=0.2, end=end, seconds=1.0)

    path = tmp_path / "reached.json"
    page.save([one("doors", 0, 0.98), one("doors", 1, 0.99), one("bandit", 0, 0.9)], path)
    monkeypatch.setattr(page, "REACHED", path)
    assert page.reached.__wrapped__() == {"grpo": {"doors": 0.985, "bandit": 0.9}}


def test_every_method_says_where_it_was_shown_to_learn() -> None:
    assert set(page.reached()) == set(rung_a.METHODS)
    for name in rung_a.METHODS:
        assert "games" in page.shown(name)
    assert "household tasks" in page.shown("sdar")
    assert page.shown("none_such") == "not shown"


def test_gates_are_told_apart_by_the_plan_and_by_the_side_of_one_half(tmp_path: Path) -> None:
    """Two episodes with right plans and one with a wrong one; every number by hand."""
    share = 0.5
    ids = [f"t{n}" for n in range(20)]
    right = [name for name in ids if not is_misled(Task(id=name), share)][:2]
    wrong = next(name for name in ids if is_misled(Task(id=name), share))
    rows = [(right[0], [0.5, 0.9]), (right[1], [0.7, 0.1]), (wrong, [0.2, 0.3, 0.4])]
    path = tmp_path / "columns.jsonl"
    path.write_text(
        "".join(
            record.dump({"step": 0, "task": task, "copy": 0, "columns": {"gate[sdar]": values}})
            + "\n"
            for task, values in rows
        )
    )
    found = {each.plan: each for each in gates.measure(path, share, seed=4)}
    one = found["right"]
    assert (one.episodes, one.tokens, one.above, one.high, one.low) == (2, 4, 2, 0.8, 0.3)
    two = found["wrong"]
    assert (two.episodes, two.tokens, two.above, two.high, two.low) == (1, 3, 0, 0.0, 0.3)
    file = tmp_path / "gates.json"
    gates.save([one], file)
    gates.save([one, two], file)
    assert gates.read(file) == [one, two], "a measurement takes the place of the one before"
    assert "| 50 % | wrong | 4 | 3 | 0.0 % | 0.00 | 0.30 | 0.30 |" in gates.table([one, two])


def test_rung_b_runs_every_registered_method_from_one_start() -> None:
    study = plan.load(family.STUDY)
    assert {run.method for run in study.runs} == set(rung_a.METHODS)
    assert not [run.problem for run in study.runs if run.problem]
    assert len({run.start.key for run in study.runs if run.start}) == 1
