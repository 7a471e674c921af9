"""Episodes whose answers call functions: prompts, invalid turns, demonstrations."""

import json
from typing import Any

import pytest
from support.tool_chats import BLOCKS, Scripted, Sums, tool_chat

from tutelage import algorithms
from tutelage.envs.registry import as_suite
from tutelage.envs.tool_suite import call_text
from tutelage.objective import Algorithm
from tutelage.prompts.prompter import Prompter
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session, context_for
from tutelage.types import Episode

ADDED = "<think>two sums</think>\n" + "\n".join(
    call_text("add", {"a": a, "b": b}) for a, b in ((1, 1), (2, 3))
)
BROKEN = "<tool_call>{nothing</tool_call>"
LACKING = call_text("add", {"a": 1})
DONE = call_text("submit", {"result": 7})


def played(*texts: str, algorithm: Algorithm | None = None, **context: Any) -> tuple[Any, Episode]:
    suite = as_suite(Sums())
    policy = Scripted(tool_chat(BLOCKS), texts)
    session = Session(
        suite,
        {"self": policy},  # type: ignore[dict-item]
        context=context_for(suite, **context),
        limits=Limits(invalid_penalty={"format": 0.5, "refused": 0.25}),
    )
    task = suite.tasks("train")[1]
    (episode,) = play(session, [task], algorithm or algorithms.grpo(), seed=1)
    return policy, episode


def test_the_prompts_of_an_episode_are_what_the_template_renders() -> None:
    policy, episode = played(ADDED, BROKEN, LACKING, DONE)
    assert [t.valid for t in episode.turns] == [True, False, False, True]
    assert [t.penalty for t in episode.turns] == [0.0, 0.5, 0.25, 0.0]
    assert [t.reward for t in episode.turns] == [0.5, 0.0, 0.0, 1.0]
    assert episode.won
    assert episode.turns[0].action == ADDED.partition("</think>\n")[2]
    context = context_for(as_suite(Sums()))
    refused = [t.observation.text for t in episode.turns[2:]]
    assert "a call is not JSON" in refused[0]
    assert "add needs the argument 'b'" in refused[1]
    tokenizer = policy.chat.tokenizer
    conversation = [
        {"role": "system", "content": "Add with add, then submit."},
        {"role": "user", "content": episode.turns[0].observation.text},
        {"role": "assistant", "content": ADDED},
        {"role": "tool", "content": "2"},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": BROKEN},
        {"role": "user", "content": refused[0]},
        {"role": "assistant", "content": LACKING},
        {"role": "user", "content": refused[1]},
    ]
    text = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True, tools=json.loads(context.tools)
    )
    assert tokenizer.decode(policy.asked[-1].prompt) == text
    # and scoring reads the same prompts
    prompter = Prompter(chat=policy.chat, context=context)
    for sample, request in zip(prompter.samples(episode), policy.asked, strict=True):
        assert sample.prompt == request.prompt


def test_a_window_shows_functions_in_every_prompt() -> None:
    policy, episode = played(ADDED, DONE, kind="window", window=1)
    assert episode.won
    for request in policy.asked:
        assert '"name": "submit"' in policy.chat.tokenizer.decode(request.prompt)


def test_without_instructions_functions_are_shown_all_the_same() -> None:
    policy, _ = played(ADDED, DONE, instructions=False)
    text = policy.chat.tokenizer.decode(policy.asked[0].prompt)
    assert '"name": "submit"' in text
    assert "Add with add" not in text


def test_a_demonstration_is_written_as_the_template_writes_calls() -> None:
    policy, episode = played(algorithm=algorithms.sft())
    assert episode.won
    assert [t.actor for t in episode.turns] == ["expert", "expert"]
    tokenizer = policy.chat.tokenizer
    calls = [
        {"id": "x", "type": "function", "function": {"name": "add", "arguments": {"a": a, "b": b}}}
        for a, b in ((1, 1), (2, 3))
    ]
    conversation = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    text = tokenizer.apply_chat_template(conversation, tokenize=False)
    answer = text.partition("assistant\n")[2].partition("<|im_end|>")[0]
    assert episode.turns[0].text == answer


def test_an_unended_thought_is_no_answer() -> None:
    context = context_for(as_suite(Sums()))
    assert context.parse(f"<think>maybe {DONE}").action == ""
    assert context.problem(f"<think>maybe {DONE}") == "it is empty"
    assert context.parse(f"<think>a</think>{DONE}").thought == "a"
    assert not context.parse(BROKEN).valid
    assert context.problem(DONE) == ""
    assert context.written("x", "y") == "<think>y</think>\nx"


@pytest.mark.parametrize("with_thought", [True, False])
def test_what_is_written_is_read(with_thought: bool) -> None:
    context = context_for(as_suite(Sums()))
    parsed = context.parse(context.written(DONE, "why" if with_thought else ""))
    assert parsed.action == DONE
    assert parsed.thought == ("why" if with_thought else "")
