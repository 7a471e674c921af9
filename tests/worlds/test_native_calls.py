"""Suites of text actions, played by calls in a model's own format."""

from typing import Any

import pytest

from tutelage.config.schema import EnvSection
from tutelage.envs.check import check
from tutelage.envs.registry import suite_of
from tutelage.rollout.session import context_for
from tutelage.types import Episode, Turn

WORLDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tau_bench": ("tau_bench", {"size": "small"}),
    "search_qa": ("search_qa", {"size": "small"}),
    "verl_agent": ("search_qa", {"size": "small", "protocol": "verl_agent"}),
    "sole": ("travelplanner", {"size": "small"}),
    "two-stage": ("travelplanner", {"size": "small", "mode": "two-stage"}),
    "brief": ("travelplanner", {"size": "small", "mode": "two-stage", "brief": True}),
}
EVERY = pytest.mark.parametrize(("suite", "options"), WORLDS.values(), ids=WORLDS)


@EVERY
def test_calls_do_what_the_text_actions_do(suite: str, options: dict[str, Any]) -> None:
    section = EnvSection(suite=suite, options=options)
    texts, calls = suite_of(section), suite_of(section, calls=True)
    for task in list(texts.tasks("train"))[:5]:
        a, b = texts.make(), calls.make()
        one, other = a.reset(task), b.reset(task)
        assert one == other
        pairs = list(zip(texts.demonstrate(task), calls.demonstrate(task), strict=True))  # type: ignore[attr-defined]
        for action, answer in pairs:
            one, other = a.step(action), b.step(answer)
            assert (one.reward, one.score, one.done, one.won, one.valid, one.state) == (
                other.reward,
                other.score,
                other.done,
                other.won,
                other.valid,
                other.state,
            )
            assert other.text in one.text or other.text == "(nothing)"
            assert bool(other.results) == ("<tool_call>" in answer)
        assert one.won
        assert calls.describe(task) == texts.describe(task)  # type: ignore[attr-defined]


@EVERY
def test_the_checks_of_an_environment_pass(suite: str, options: dict[str, Any]) -> None:
    found = check(
        suite_of(EnvSection(suite=suite, options=options), calls=True), ["train"], tasks=2
    )
    assert [problem for finding in found for problem in finding.problems] == []


@EVERY
def test_the_rules_name_no_format_of_actions(suite: str, options: dict[str, Any]) -> None:
    section = EnvSection(suite=suite, options=options)
    context = context_for(suite_of(section, calls=True))
    plain = context_for(suite_of(section))
    assert not plain.tools
    assert plain.instructions != context.instructions
    for mark in ("<search>", "<action>", '{"name"', "FlightSearch[", "Finish["):
        assert mark not in context.instructions
    assert context.names


@pytest.mark.parametrize("depth", [31, 32, 800])
def test_arguments_nested_deeply_are_refused_in_words(depth: int) -> None:
    calls = suite_of(EnvSection(suite="tau_bench", options={"size": "small"}), calls=True)
    env = calls.make()
    env.reset(calls.tasks("train")[0])
    seen = env.step(
        '<tool_call>{"name": "return_delivered_order_items", "arguments": {"order_id": "#W1", '
        f'"payment_method_id": "x", "item_ids": {"[" * depth}{"]" * depth}}}}}</tool_call>'
    )
    if depth < 32:  # the arguments themselves are one more
        assert seen.text == "Error: order not found"
    else:
        assert seen.text == "Error: the arguments are nested too deeply"


def test_compact_wording_of_results() -> None:
    suite = suite_of(EnvSection(suite="tau_bench", options={"size": "small"}), calls=True)
    context, task = context_for(suite, render="compact"), suite.tasks("train")[0]
    env = suite.make()
    env.reset(task)
    seen = env.step('{"name": "list_all_product_types", "arguments": {}}')
    (words,) = context.results(seen)
    assert words
    assert not words.startswith(("tool", "API"))
    assert "{" not in words
    assert seen.text.startswith("{")


def test_rates_of_plans_are_those_of_the_text_actions() -> None:
    section = EnvSection(suite="travelplanner", options={"size": "small", "mode": "two-stage"})
    texts, calls = suite_of(section), suite_of(section, calls=True)

    def played(suite: Any) -> list[Episode]:
        return [
            Episode(
                task=task,
                group=task.id,
                turns=tuple(
                    Turn(
                        observation=suite.make().reset(task),
                        prompt=(),
                        text=action,
                        tokens=(),
                        logps=(),
                        action=action,
                    )
                    for action in list(suite.demonstrate(task))[: 99 if k else 3]
                ),
            )
            for k, task in enumerate(list(suite.tasks("train"))[:3])
        ]

    rates = texts.summarise(played(texts))  # type: ignore[attr-defined]
    assert 0 < max(rates.values()) < 1 or min(rates.values()) < 1
    assert calls.summarise(played(calls)) == rates  # type: ignore[attr-defined]
