"""Rows of an agent's conversation: what is continued, and what begins anew."""

import json
from dataclasses import replace

import pytest
from support.tiny_models import ASK, CHATML, TURN, byte_tokenizer

from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import HINT_OPEN, Context
from tutelage.prompts.conversation import Rows, whole
from tutelage.prompts.prompter import Prompter, Reader
from tutelage.types import Call, Episode, Message, Observation, Task, Turn


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(byte_tokenizer(CHATML, merges=[("h", "e"), ("l", "l")]))


def asks(*texts: str, tools: str = "") -> Call:
    """Messages of the user and the assistant in turn, after a system message."""
    roles = ("user", "assistant") * len(texts)
    named = [Message(role, text) for role, text in zip(roles, texts, strict=False)]  # type: ignore[arg-type]
    return Call(messages=(Message("system", "be brief"), *named), tools=tools)


def answered(call: Call, tokens: tuple[int, ...], chat: Chat) -> Turn:
    return Turn(
        observation=Observation(text="", call=call),
        prompt=(),
        text=chat.text(tokens),
        tokens=tokens,
        logps=(0.0,) * len(tokens),
    )


def by_letters(chat: Chat, text: str) -> tuple[int, ...]:
    """A text as a model may sample it, and as no tokenizer would encode it."""
    ids = tuple(i for letter in text for i in chat.content(letter))
    assert ids != chat.content(text)
    assert chat.text(ids) == text
    return ids


def test_a_growing_conversation_has_the_prompts_of_a_transcript(chat: Chat) -> None:
    context = Context(instructions="be brief")
    plain = Reader(prompter=Prompter(chat=chat, context=context))
    rows = Rows(chat=chat)
    turns: list[Turn] = []
    seen: list[Turn] = []
    texts: list[str] = []
    for k in range(3):
        texts.append(f"question {k}")
        call = asks(*texts)
        expected = plain.prompt(seen, Observation(text=f"question {k}"))
        assert rows.prompt(turns, call) == expected
        assert not rows.fresh
        tokens = (*by_letters(chat, f"the answer{k}"), *((chat.end,) if k else ()))
        turns.append(answered(call, tokens, chat))
        seen.append(replace(turns[-1], observation=Observation(text=f"question {k}")))
        texts.append(turns[-1].text)
    assert rows.started == 1


def test_a_rewritten_history_starts_a_row_and_the_old_one_goes_on(chat: Chat) -> None:
    rows = Rows(chat=chat)
    one = answered(asks("one"), by_letters(chat, "hello there"), chat)
    first, _ = rows.prompt([], one.observation.call)  # type: ignore[arg-type]
    shortened = asks("in short: one", "hello there", "two")
    prompt, new = rows.prompt([one], shortened)
    assert rows.fresh
    assert prompt == new
    assert prompt[: len(first)] != first
    two = answered(shortened, chat.reply("fine"), chat)
    whole, new = rows.prompt([one, two], asks("one", " hello there\n", "three"))
    assert whole[: len(first) + len(one.tokens)] == (*first, *one.tokens)
    assert rows.fresh  # it does not extend the turn before it
    assert new == whole
    assert rows.started == 2


def test_the_longest_of_several_parents_is_continued(chat: Chat) -> None:
    rows = Rows(chat=chat)
    calls = [asks("one")]
    turns: list[Turn] = []
    for k in range(2):
        rows.prompt(turns, calls[-1])
        turns.append(answered(calls[-1], by_letters(chat, f"hello{k}"), chat))
        texts = [m.content for m in calls[-1].messages[1:]]
        calls.append(asks(*texts, turns[-1].text, f"more {k}"))
    prompt, _ = rows.prompt(turns, calls[-1])
    assert prompt[: len(rows.last)] == rows.last


def test_of_two_equally_good_parents_neither_is_continued(chat: Chat) -> None:
    rows = Rows(chat=chat)
    call = asks("one")
    whole, letters = (*chat.content("hello there"), chat.end), by_letters(chat, "hello there")
    turns = [answered(call, tokens, chat) for tokens in (whole, letters)]
    rows.prompt([], call)
    rows.prompt(turns[:1], call)
    prompt, _ = rows.prompt(turns, asks("one", "hello there", "two"))
    assert (rows.started, rows.ambiguous) == (3, 1)
    assert prompt == Rows(chat=chat).prompt([], asks("one", "hello there", "two"))[0]
    same = Rows(chat=chat)
    twice = [answered(call, letters, chat)] * 2
    same.prompt([], call)
    same.prompt(twice[:1], call)
    same.prompt(twice, asks("one", "hello there", "two"))
    assert same.ambiguous == 0  # the same ids are no question


def test_other_tools_are_another_conversation(chat: Chat) -> None:
    rows = Rows(chat=chat)
    turn = answered(asks("one"), chat.reply("yes"), chat)
    rows.prompt([], turn.observation.call)  # type: ignore[arg-type]
    tools = '[{"type": "function", "function": {"name": "add"}}]'
    rows.prompt([turn], asks("one", "yes", "two", tools=tools))
    assert rows.started == 2


QWEN = (
    "{%- if tools %}{{ '<|im_start|>system\\n' + messages[0].content + '\\n\\n# Tools\\n' }}"
    "{%- for tool in tools %}{{ tool | tojson + '\\n' }}{%- endfor %}{{ '<|im_end|>\\n' }}"
    "{%- for m in messages[1:] %}"
    + TURN
    + "{%- endfor %}"
    + ASK
    + "{%- else %}"
    + CHATML
    + "{% endif %}"
)
"""A template that writes functions into the system message, as Qwen's do."""


@pytest.mark.parametrize("template", [CHATML, QWEN])
def test_functions_are_written_as_the_template_writes_them(template: str) -> None:
    chat = Chat(byte_tokenizer(template))
    tools = [{"type": "function", "function": {"name": "add", "note": "<|im_end|>"}}]
    ids = whole(chat, asks("1+1", tools=json.dumps(tools)))
    text = chat.tokenizer.decode(list(ids))
    if template == QWEN:
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1"}]
        assert text == chat.tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True
        )
    else:
        assert "You may call these functions:" in text
    assert '"name": "add"' in text
    assert ids.count(chat.end) == 2  # what a function's text says ends no message


def test_a_view_with_a_hint_reads_the_same_turns_after_it(chat: Chat) -> None:
    turns = [answered(asks("one"), by_letters(chat, "hello there"), chat)]
    turns.append(answered(asks("one", "hello there", "two"), chat.reply("bye"), chat))
    turns.append(answered(asks("new"), chat.reply("bye"), chat))
    episode = Episode(task=Task(id="t"), group="t", turns=tuple(turns))
    prompter = Prompter(chat=chat, context=Context(kind="agent"), hint="the answer is 7")
    samples = prompter.samples(episode)
    hint = chat.content(f"be brief\n\n{HINT_OPEN}\nthe answer is 7")
    for sample in samples:
        starts = [k for k in range(len(sample.prompt)) if sample.prompt[k : k + len(hint)] == hint]
        assert len(starts) == 1
    assert samples[1].prompt[: len(samples[0].prompt)] == samples[0].prompt
    after = len(samples[0].prompt)
    assert samples[1].prompt[after : after + len(turns[0].tokens)] == turns[0].tokens
    assert [sample.tokens for sample in samples] == [turn.tokens for turn in turns]


def test_every_shape_of_conversation_has_a_prompt(chat: Chat) -> None:
    rows = Rows(chat=chat)
    odd = [
        (Message("assistant", "I begin"),),
        (Message("user", "a"), Message("user", "b")),
        (Message("user", "a"), Message("system", "late"), Message("tool", "42")),
        (Message("system", "alone"),),
        (Message("user", "a"), Message("assistant", "b")),
        (Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")),
    ]
    for messages in odd:
        ids = Rows(chat=chat).prompt([], Call(messages=messages))[0]
        text = chat.tokenizer.decode(list(ids))
        assert all(message.content in text for message in messages)
    assert rows.started == 0
