"""AdaSwitch and TCOD back to front against their formulas, token by token."""

from dataclasses import replace

import pytest
from algorithms.test_formulas import clipped, tokens
from support.fake_steps import World, parts, world

from tutelage.algorithms.adaswitch import adaswitch
from tutelage.algorithms.tcod import tcod
from tutelage.types import Taken


def handed(seed: int) -> World:
    """A world in which every other turn of the student's is ended by the teacher."""
    of = world(seed)
    episodes = tuple(
        replace(
            e,
            turns=tuple(
                replace(t, taken=Taken(at=len(t.tokens) // 2, by="teacher"))
                if t.actor == "student" and k % 2 == 0
                else t
                for k, t in enumerate(e.turns)
            ),
        )
        for e in of.episodes
    )
    return World(episodes, of.hidden, of.heads)


def writers(of: World) -> list[str]:
    return [who for e in of.episodes for t in e.turns for who in t.writers()]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("own", ["sampled", "full"])
@pytest.mark.parametrize("rest", ["sampled", "full"])
def test_adaswitch(seed: int, own: str, rest: str) -> None:
    of = handed(seed)
    result = parts(
        adaswitch(student_tokens=own, teacher_tokens=rest, clip=0.3, dual_clip=2.0),  # type: ignore[arg-type]
        of,
    )
    every, who = tokens(of), writers(of)
    actual = [t for t, w in zip(every, who, strict=True) if w == "student"]
    references = [t for t, w in zip(every, who, strict=True) if w == "teacher"]
    assert any(t.actor == "student" for t in references)  # inside turns that the student began
    n = len(every)
    reverse = [
        t.reverse_kl if own == "full" else clipped(t.ratio, t.gap, 0.3, 0.3, 2.0) for t in actual
    ]
    forward = [t.forward_kl if rest == "full" else -t.logp for t in references]
    want = {"student_tokens": sum(reverse) / n, "teacher_tokens": sum(forward) / n}
    assert result == pytest.approx(want, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("vocabulary", ["sampled", "full"])
def test_tcod_from_the_back_is_opd_on_the_students_own_tokens(seed: int, vocabulary: str) -> None:
    of = world(seed)
    episodes = tuple(
        replace(
            e,
            turns=tuple(
                replace(t, actor="expert" if t.actor == "teacher" else "student") for t in e.turns
            ),
        )
        for e in of.episodes
    )
    of = World(episodes, of.hidden, of.heads)
    result = parts(tcod(direction="b2f", vocabulary=vocabulary), of)["opd"]  # type: ignore[arg-type]
    actual = [t for t in tokens(of) if t.actor == "student"]
    values = [t.reverse_kl if vocabulary == "full" else -t.gap * t.ratio for t in actual]
    assert result == pytest.approx(sum(values) / len(actual), rel=1e-4, abs=1e-6)


def test_settings_of_the_rule_reach_it() -> None:
    rule = adaswitch(factor=2.0, ema=0.5, floor=0.2).acting.takeover
    assert rule is not None
    assert (rule.view, rule.factor, rule.ema, rule.floor) == ("teacher", 2.0, 0.5, 0.2)
    with pytest.raises(ValueError, match="factor > 0"):
        adaswitch(factor=0.0)
    assert adaswitch(teacher="big").views["teacher"].policy == "big"
    left = tcod(direction="b2f", start=2, every=5).acting.student_turns
    assert left is not None
    assert [left(s) for s in (0, 4, 5, 50)] == [2, 2, 3, 12]
    assert tcod().acting.student_turns is None
