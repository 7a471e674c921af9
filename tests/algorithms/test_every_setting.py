"""Every setting of every algorithm has an effect: on the loss, the actors or the prompts.

An argument that is accepted and then dropped is the commonest bug of such a library, and no formula
test of the default values can see it.
"""

import inspect
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from support.fake_steps import World, parts, world

from tutelage.algorithms import ALGORITHMS
from tutelage.config.signature import annotations
from tutelage.objective import Algorithm, Distill
from tutelage.signals import evidence, group_relative
from tutelage.types import Episode, Observation, Task, Turn

Settings = dict[str, Any]
NEEDS: dict[tuple[str, str], Settings] = {
    ("adaswitch", "clip"): {"student_tokens": "sampled"},
    ("adaswitch", "dual_clip"): {"student_tokens": "sampled"},
    ("dapo", "limit"): {"overlong": 1.0},
    ("dapo", "buffer"): {"overlong": 1.0},
    ("guided_opd", "clip"): {"student_turns": "sampled"},
    ("guided_opd", "dual_clip"): {"student_turns": "sampled"},
    ("guided_opd", "k"): {"student_turns": "topk", "k": 2},
    ("guided_opd", "student_turns"): {"k": 2},
    ("opd", "k"): {"vocabulary": "topk", "k": 2},
    ("opd", "support"): {"vocabulary": "topk", "k": 2},
    ("opd", "dual_clip"): {"clip": 0.2},
    ("reinforce_pp", "estimate"): {"kl": 0.5},
    ("sft", "hinted"): {"hint": "plan"},
    ("sft", "teacher"): {"source": "teacher"},
    ("sft", "with_errors"): {"mixture": {"plan": 0.5}},
    ("vopd", "baseline"): {"k": 2},
    ("vopd", "k"): {"baseline": "topk", "k": 2},
    ("tcod", "k"): {"vocabulary": "topk", "k": 2},
    ("tcod", "dual_clip"): {"clip": 0.2},
    ("tcod", "thoughts"): {"direction": "b2f"},
}
"""What else must be set for a setting to matter."""
CHANGED: dict[tuple[str, str], object] = {
    ("sft", "mixture"): {"plan": 0.5},
    ("sft", "hint"): "plan",
    ("atod", "min_turns"): 5,  # no episode of the fixed step is longer
    ("atod", "min_gap"): 50.0,
    ("reinforce_pp", "kl_in"): None,  # k1 is refused as a loss: below
    ("step_opsd", "hint"): "plan",
    ("ocsd", "share"): 0.9,  # rounded up to whole turns
    ("pcsd", "width"): 1,
}
"""Values that differ from the default where a small change of it would not matter here."""
EXCEPT = {
    ("reinforce_pp", "kl_in"): '"loss" refuses the default estimate; test_rewards.py has the pair',
    ("sft", "hinted_only"): "works with a mixture alone; test_ladder.py plays such families",
}


def cases() -> Iterator[tuple[str, str]]:
    for name, function in ALGORITHMS.items():
        if name != "compose":  # each of its settings has a test of its own in test_compose.py
            for parameter in inspect.signature(function).parameters:
                if (name, parameter) not in EXCEPT and parameter != "total_steps":
                    yield name, parameter


def options(hint: object) -> list[object]:
    """The choices of a Literal, also within a union."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for part in get_args(hint) for choice in options(part)]


def others(name: str, parameter: str, default: object) -> list[object]:
    """Values of a setting that are not its default."""
    if (name, parameter) in CHANGED:
        return [CHANGED[name, parameter]]
    if choices := options(annotations(ALGORITHMS[name])[parameter]):
        return [choice for choice in choices if choice != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default - 1 if default > 1 else default + 1]
    if isinstance(default, float):
        # a step that shrinks most things and still lies in [0, 1] where the default does
        return [0.3 if default == 0 else default * 0.6 if default != 3.0 else 1.1]
    if default is None:
        return [1.1 if parameter == "dual_clip" else 0.05]
    return ["other"]


def long_episode(tokens: int) -> Episode:
    turn = Turn(
        observation=Observation(text=""),
        prompt=(),
        text="the hint",
        tokens=(0,) * tokens,
        logps=(0.0,) * tokens,
    )
    return Episode(task=Task(id="t"), group="t", turns=(turn,), won=True)


LONG = [long_episode(n) for n in (16_400, 19_000, 20_479)]


def fingerprint(algorithm: Algorithm, of: World) -> list[object]:
    """All that a run takes from an algorithm, on one fixed step and at a few numbers of it."""
    views = algorithm.all_views()
    for view in views:
        if view not in of.hidden:  # views that only some algorithms have
            of = replace(
                of,
                hidden={**of.hidden, view: of.hidden["teacher"]},
                heads={**of.heads, view: of.heads["teacher"]},
            )
    acting = algorithm.acting
    return [
        [parts(algorithm, of, at) for at in (0, 3, 30, 95)],
        {name: (view.policy, view.hint, bool(view.hindsight)) for name, view in views.items()},
        {
            name: view.hindsight
            and getattr(view.hindsight, "__closure__", None)
            and [cell.cell_contents for cell in view.hindsight.__closure__]  # type: ignore[attr-defined]
            for name, view in views.items()
        },
        {name: [chance(s) for s in range(100)] for name, chance in algorithm.actors.items()},
        [getattr(acting, f.name) for f in fields(acting) if f.name != "student_turns"],
        acting.student_turns and [acting.student_turns(s) for s in range(100)],
        {name: [of_(e) for e in LONG] for name, of_ in algorithm.penalties.items()},
        [
            (t.name, t.trains, getattr(t, "live", None), getattr(t, "old", None))
            for t in algorithm.terms
        ],
    ]


def step_with_an_equal_group() -> World:
    """A step whose first group has equal returns, which some settings are about."""
    of = world(1)
    episodes = [
        replace(e, turns=tuple(replace(t, reward=0.0, penalty=0.0) for t in e.turns))
        if e.group == "t0"
        else e
        for e in of.episodes
    ]
    return replace(of, episodes=tuple(episodes))


def built(name: str, settings: Settings) -> Algorithm:
    function = ALGORITHMS[name]
    filled = {"total_steps": 100} if "total_steps" in annotations(function) else {}
    return function(**settings, **filled)


@pytest.mark.parametrize(("name", "parameter"), list(cases()))
def test_every_setting_reaches_its_algorithm(name: str, parameter: str) -> None:
    of, needs = step_with_an_equal_group(), NEEDS.get((name, parameter), {})
    default = inspect.signature(ALGORITHMS[name]).parameters[parameter].default
    default = needs.get(parameter, default)
    plain = fingerprint(built(name, needs), of)
    for value in others(name, parameter, default):
        changed = fingerprint(built(name, {**needs, parameter: value}), of)
        assert changed != plain, f"{name}: {parameter} = {value!r} changes nothing"


def test_equal_settings_give_equal_fingerprints() -> None:
    """Otherwise the test above could not fail."""
    for name in ALGORITHMS:
        if name != "compose":
            of = world(1)
            assert fingerprint(built(name, {}), of) == fingerprint(built(name, {}), of), name


@pytest.mark.parametrize(
    ("name", "parameter", "paper"),
    [("sdar", "coef", 0.01), ("skill_sd", "coef", 0.001), ("opid", "strength", 0.001)],
)
def test_small_weights_are_the_papers(name: str, parameter: str, paper: float) -> None:
    """Ten times the weight of a distillation term still runs, and drowns the reward."""
    assert inspect.signature(ALGORITHMS[name]).parameters[parameter].default == paper


def test_a_reference_reads_the_same_skills() -> None:
    """Skill-GRPO: a KL to a reference without the skills would punish reading them."""
    assert {view.hint for view in built("skill_grpo", {"kl": 0.1}).views.values()} == {"skills"}


@pytest.mark.parametrize(("teacher", "live"), [("self", True), ("reference", False)])
def test_only_a_teacher_that_is_the_student_itself_moves_with_it(teacher: str, live: bool) -> None:
    """OPSD: a frozen reference scored as live would be scored again in every minibatch."""
    (kl,) = (t for t in built("opsd", {"teacher": teacher}).terms if isinstance(t, Distill))
    assert kl.live is live


def test_both_halves_of_pi_distill_follow_each_other() -> None:
    """Both policies share their weights, so a KL to yesterday's other half pulls backwards."""
    terms = [t for t in built("pi_distill", {}).terms if isinstance(t, Distill)]
    assert [(t.name, t.live) for t in terms] == [("teacher_kl", True), ("student_kl", True)]


def test_evidence_reads_the_named_views() -> None:
    step = world(1).step()
    one, other = (
        evidence(group_relative(), 0.5, teacher=t, student=s)(step)
        for t, s in (("teacher", "student"), ("reference", "teacher"))
    )
    assert not torch.equal(one, other)
