"""Signs that a run cannot learn: dropped layers, and hints that are empty or never read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_runs import tiny_run

from tutelage.config.schema import Config, PolicySection
from tutelage.maths.estimators import k3
from tutelage.objective import Algorithm, DistillSampled, View
from tutelage.prompts.context import Context
from tutelage.runs import diagnosis
from tutelage.runs.diagnosis import Causes, Signs
from tutelage.runs.phases import Phase
from tutelage.types import Episode, Observation, Stop, Task, Turn

HINTED = Algorithm(
    terms=(DistillSampled(estimate=k3, teacher="wise"),),
    views={"wise": View(policy="self", hint="plan"), "plain": View(policy="teacher")},
)
TURN = Turn(
    observation=Observation(text="a"),
    prompt=(1,),
    text="",
    tokens=(2,),
    logps=(-1.0,),
)


def signs(*empty: int, tasks: int = 3) -> Signs:
    """After steps in which the hint was empty for so many of the tasks."""
    config = tiny_run()
    phase = Phase(name="train", algorithm=HINTED, steps=9, lr=1e-3, seed=0)
    found = Signs(config, phase)
    episodes = [
        Episode(task=Task(id=f"t{k}"), group=f"g{k}", turns=(TURN,), stop=Stop.DONE)
        for k in range(tasks)
    ]
    for count in empty:
        hints = {"wise": {"mean": 1.0, "max": 2.0, "empty": float(count)}}
        found.add({"varied": 1.0, "grad_norm": 1.0, "hints": hints}, episodes)
    return found


def test_a_hint_that_is_empty_for_all_tasks_is_told_about() -> None:
    (sentence,) = signs(3).sentences(after="first")
    assert "hint of wise is empty for all 3 tasks in the first step" in sentence
    (sentence,) = signs(3, 3).sentences(after="last")
    assert "for all 6 tasks in all 2 steps" in sentence


@pytest.mark.parametrize("empty", [(2,), (3, 2), (0, 3)])
def test_a_hint_that_says_something_is_left_alone(empty: tuple[int, ...]) -> None:
    assert signs(*empty).sentences(after="last") == []


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("gap[wise|student]", [0.0, 0.0], True),
        ("gap[wise|student]", [0.0, torch.nan], True),
        ("gap[wise|student]", [0.0, 1e-6], False),
        ("gap[wise|student]", [torch.nan, torch.nan], False),  # nothing was scored
        ("gap[plain|student]", [0.0, 0.0], False),  # it has no hint to read
        ("advantage", [0.0, 0.0], False),
    ],
)
def test_a_hint_that_changes_no_score_was_not_read(
    name: str, values: list[float], expected: bool
) -> None:
    sentences = signs(0).sentences(after="first", columns={name: torch.tensor(values)})
    assert [
        ("wise scores every token" in s and "policy.chat.template" in s) for s in sentences
    ] == ([True] if expected else [])


def of_turns(*texts: str, length: int = 2, shown: bool = True) -> str:
    """What a first step says whose turns are all invalid, with 4 as the limit of tokens."""
    config = tiny_run(context={"instructions": shown})
    found = Signs(config, Phase(name="train", algorithm=HINTED, steps=9, lr=1e-3, seed=0))
    turns = tuple(
        replace(TURN, text=text, valid=False, tokens=(2,) * length, logps=(-1.0,) * length)
        for text in texts
    )
    episode = Episode(task=Task(id="t"), group="g", turns=turns, stop=Stop.DONE)
    found.add({"varied": 1.0, "grad_norm": 1.0, "hints": {}}, [episode])
    return " ".join(found.sentences(after="first"))


def test_invalid_turns_are_told_with_three_causes_and_what_was_measured() -> None:
    readable, bare = "<action>fly</action>", "fly"
    sentence = of_turns(readable, readable, readable, bare)
    assert "4 of the student's 4 turns in the first step are invalid" in sentence
    assert "25% of the turns have no action between its tags" in sentence
    assert "shows it already (context.instructions = true)" in sentence
    assert "0% were cut at rollout.max_new_tokens = 4" in sentence
    assert "refused the actions of 75%" in sentence
    assert 'start with [warm_start] name = "sft"' in sentence
    sentence = of_turns(bare, bare, length=4, shown=False)
    assert "100% of the turns have no action between its tags; it was never shown" in sentence
    assert "100% were cut at rollout.max_new_tokens = 4" in sentence
    assert "refused the actions of 0%" in sentence


def test_the_tags_of_an_environment_are_readable() -> None:
    phase = Phase(name="train", algorithm=HINTED, steps=9, lr=1e-3, seed=0)
    found = Signs(tiny_run(), phase, Context(tags=("search",)))
    turn = replace(TURN, text="<search>Lima</search>", valid=False)
    episode = Episode(task=Task(id="t"), group="g", turns=(turn,), stop=Stop.DONE)
    found.add({"varied": 1.0, "grad_norm": 1.0, "hints": {}}, [episode])
    assert "refused the actions of 100%" in found.sentences(after="first")[0]


def model(folder: Path, layers: int | None, keep_layers: int | None, **more: Any) -> Config:
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": layers}))
    section = PolicySection.model_validate({"model": str(folder), "layers": keep_layers, **more})
    return tiny_run().model_copy(update={"policy": section})


def test_layers_that_are_dropped_are_told_about(tmp_path: Path) -> None:
    (sentence,) = diagnosis.dropped_layers(model(tmp_path, 4, 3))
    assert "policy.layers = 3 keeps 3 of the 4 layers" in sentence
    assert list(diagnosis.dropped_layers(model(tmp_path, 4, 4))) == []
    assert list(diagnosis.dropped_layers(model(tmp_path, 4, None))) == []


def test_a_new_model_and_those_that_are_made_to_be_cut_lose_nothing() -> None:
    built = tiny_run()
    assert built.policy.layers == 1
    assert list(diagnosis.dropped_layers(built)) == []
    section = PolicySection(model="builtin:household-teacher", layers=1)
    shipped = built.model_copy(update={"policy": section})
    assert list(diagnosis.dropped_layers(shipped)) == []


def test_causes_that_differ_in_numbers_and_addresses_are_one() -> None:
    def broken(*errors: str) -> list[Episode]:
        task = Task(id="t")
        return [
            Episode(task=task, group="t", turns=(), stop=Stop.ERROR, error=error)
            for error in errors
        ]

    causes = Causes()
    (sentence,) = causes.new(
        broken(
            "<Game object at 0x7fa3c0> left after 3 s", "<Game object at 0x7bB3d1e> left after 41 s"
        )
    )
    assert "0x7fa3c0" in sentence
    assert causes.new(broken("<Game object at 0xd> left after 7 s")) == []
    assert len(causes.new(broken("<Door object at 0xd> left after 7 s"))) == 1
