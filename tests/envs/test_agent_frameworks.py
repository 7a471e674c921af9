"""The examples of frameworks: each calls its tool, answers, and survives a call that is broken."""

import importlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tutelage.envs.agents.pool import AgentPool
from tutelage.envs.pool import Reply
from tutelage.types import Observation, Task

pytest.importorskip("starlette")
EXAMPLES = Path(__file__).parents[2] / "examples/agents"
CALL = '<tool_call>{"name": "double", "arguments": {"number": 21}}</tool_call>'
FINAL = '<tool_call>{"name": "final_answer", "arguments": {"answer": "42"}}</tool_call>'
NEEDED = {
    "letters": "openai",
    "openai_agents_sdk": "openai-agents",
    "pydantic_ai_agent": "pydantic-ai-slim",
    "langgraph_agent": "langgraph",
    "smolagents_agent": "smolagents",
}
"""Distributions: a folder `agents` on the path would pass for the module of that name."""


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def play(name: str, answers: list[str]) -> tuple[list[Observation], Observation]:
    """What its agent asked, and how it ended; the last answer is given again and again."""
    pool = AgentPool(importlib.import_module(name).solve, seconds=60)
    try:
        pool.open("k", Task(id="t", seed=21, data={"question": "door", "answer": "a"}))
        seen: list[Observation] = []
        while True:
            ((_, got),) = pool.poll(block=True)
            assert isinstance(got, Observation), got
            if got.done:
                return seen, got
            seen.append(got)
            pool.answer("k", Reply(text=answers[min(len(seen), len(answers)) - 1]))
    finally:
        pool.shutdown()


@pytest.mark.parametrize("name", NEEDED)
def test_an_agent_of_each_framework(name: str) -> None:
    try:
        distribution(NEEDED[name])
    except PackageNotFoundError:
        pytest.skip(f"needs {NEEDED[name]}")
    if name == "letters":
        seen, end = play(name, ["a"])
        assert (len(seen), end.reward, end.won) == (2, 1.0, True)
        assert play(name, ["ab", "a"])[1].reward == 0.5
        return
    seen, end = play(name, [CALL, FINAL if name == "smolagents_agent" else "It is 42."])
    assert len(seen) == 2
    assert seen[0].call is not None
    assert "double" in seen[0].call.tools
    assert (end.reward, end.counts) == (1.0, ())
    assert play(name, ["<tool_call>{"])[1].reward == 0.0
