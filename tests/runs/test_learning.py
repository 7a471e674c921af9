"""What `tutelage doctor RUN` says of how a run learnt."""

import pytest

from tutelage.runs.learning import hint_gaps, ratios, success


def evaluated(step: int, won: int, of: int = 100, **other: object) -> dict[str, object]:
    """An evaluation in which the first `won` tasks are won."""
    return {
        "step": step,
        "name": "student",
        "hint": "",
        "panel": "p",
        "n": of,
        "success": won / of,
        "outcomes": [int(k < won) for k in range(of)],
        **other,
    }


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (70, "success rose from 40% at step 0 to 70% at step 9: +30 points"),
        (10, "success fell from 40% at step 0 to 10% at step 9: -30 points"),
        (40, "success went from 40% at step 0 to 40% at step 9: +0 points"),
    ],
)
def test_success_before_and_after_is_compared(last: int, says: str) -> None:
    (sentence,) = success([evaluated(0, 40), evaluated(9, last)])
    assert sentence.startswith(says)
    assert ("not distinguishable" in sentence) == (last == 40)
    assert ("lower update.lr" in sentence) == (last == 10)


def test_a_run_that_was_better_before_its_end_is_told() -> None:
    lines = [evaluated(k, won) for k, won in ((0, 20), (5, 80), (9, 50))]
    _, fell = success(lines)
    assert fell.startswith("it was better before its end: 80% at step 5, the best of 3 evaluations")
    assert "since then -30 points" in fell
    assert len(list(success(lines[:2]))) == 1, "the best is the last"
    assert len(list(success([evaluated(0, 80), evaluated(9, 50)]))) == 1, "the best is the start"


def test_only_evaluations_of_the_student_on_one_panel_are_compared() -> None:
    others = [
        evaluated(0, 90, hint="plan"),
        evaluated(0, 90, name="teacher"),
        evaluated(0, 9, of=10, panel="before the panel changed"),
    ]
    (sentence,) = success([*others, evaluated(0, 40), evaluated(9, 70)])
    assert "from 40% at step 0 to 70%" in sentence
    for few in ([], others, [*others, evaluated(9, 70)]):
        (sentence,) = success(few)
        assert "set eval.every" in sentence


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


def test_a_hinted_policy_that_falls_while_it_teaches_is_told() -> None:
    def lines(last: float) -> list[dict[str, object]]:
        rows = ((0, "", 0.6), (0, "plan", 1.0), (5, "", 0.6), (5, "plan", last))
        return [{"step": k, "hint": hint, "success": success} for k, hint, success in rows]

    *_, fell = hint_gaps(lines(0.7), step=None)
    assert "itself fell, plan: from 100% to 70%" in fell
    assert 'algorithm.teacher = "reference"' in fell
    assert not any("fell" in each for each in hint_gaps(lines(0.9), step=None))
    assert len(hint_gaps(lines(0.7), step=5)) == 1, "before the end only the gap is told"


def test_a_student_that_acts_on_what_only_its_hint_tells_is_told() -> None:
    def lines(plain: float, hinted: float) -> list[dict[str, object]]:
        rows = ((0, "", 0.28), (0, "plan", 0.01), (10, "", plain), (10, "plan", hinted))
        return [{"step": k, "hint": h, "success": 0.5, "invalid": x} for k, h, x in rows]

    *_, sentence = hint_gaps(lines(0.84, 0.05), step=None)
    assert sentence.startswith("refused turns rose from 28% to 84% without the hint, with it they")
    assert "5%: the student may act as if it knew what only plan tells" in sentence
    for plain, hinted in ((0.42, 0.05), (0.84, 0.70)):
        sentences = hint_gaps(lines(plain, hinted), step=None)
        assert not any("refused" in each for each in sentences)


def test_clipped_ratios_are_told_with_what_helps() -> None:
    def line(clipped: float, largest: float | None) -> dict[str, object]:
        return {"ratios": {"grpo": {"mean": 1.0, "max": largest, "clipped": clipped}}}

    (much,) = ratios([line(0.5, 3.0), line(0.3, None)])
    assert "ratios clipped, grpo: 40% of the tokens, the largest ratio inf" in much
    assert "update.lr" in much
    (little,) = ratios([line(0.0, 1.1), line(0.02, 1.3)])
    assert little == "1.0% of grpo's ratios are clipped, the largest is 1.3"
    assert not list(ratios([line(0.0, 1.0)]))
    assert not list(ratios([{"step": 0}])), "a run from before they were recorded"
