"""The ladder: its methods, its verdict, and the start that is shown some families under a hint only."""

import pytest

from studies.ladder import rung_a
from tutelage.algorithms import ALGORITHMS
from tutelage.algorithms.sft import sft
from tutelage.objective import Acting
from tutelage.rollout.play import play
from tutelage.runs.diagnosis import hint_gaps
from tutelage_worlds.household.suite import NAMES, Household


def test_every_algorithm_stands_on_the_ladder() -> None:
    assert set(rung_a.METHODS) == set(ALGORITHMS)


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_a_method_learns_and_one_that_does_not_fails(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not rung_a.failing([rung_a.climb(name, "bandit", 0)])
    monkeypatch.setattr(rung_a, "METHODS", {name: rung_a.Method(taught="", rate=0.0)})
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


def test_a_hint_that_informs_nothing_is_told() -> None:
    plain = {"step": 0, "hint": "", "success": 0.5}
    assert (
        "informs, plan: +40 points"
        in hint_gaps([plain, {"step": 0, "hint": "plan", "success": 0.9}], step=0)[0]
    )
    assert (
        "does not inform, plan: -12 points"
        in hint_gaps([plain, {"step": 0, "hint": "plan", "success": 0.38}], step=0)[0]
    )
    assert hint_gaps([plain], step=0) == []
