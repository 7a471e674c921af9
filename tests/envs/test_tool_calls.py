"""Calls of functions in every family's own words, and what is told of those that cannot be read."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.envs.agents.tools import Read, read, written

NAMES = ["add", "get_weather", "add_all"]
TWO = [("get_weather", {"city": "Zürich", "days": 2}), ("add", {"a": [1, -2.5], "b": None})]
BARRED = {
    "qwen": "Let me see.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}\n</tool_call>\n'
    '<tool_call>\n{"name": "add", "arguments": {"a": [1, -2.5], "b": null}}\n</tool_call>',
    "qwen without an end": '<tool_call>{"name": "get_weather", "arguments": '
    '{"city": "Zürich", "days": 2}}</tool_call><tool_call>{"name": "add", "arguments": '
    '"{\\"a\\": [1, -2.5], \\"b\\": null}"}',
    "coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nZürich\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=add>\n"
    "<parameter=a>[1, -2.5]</parameter><parameter=b>null</parameter></function></tool_call>",
    "coder without blocks": "<function=get_weather><parameter=city>Zürich</parameter>"
    "<parameter=days>2</parameter></function><function=add><parameter=a>[1, -2.5]</parameter>"
    "<parameter=b>null",
    "llama": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Zürich", "days": 2}}; '
    '{"name": "add", "parameters": {"a": [1, -2.5], "b": null}}',
    "llama plain": '{"name": "get_weather", "parameters": {"city": "Zürich", "days": 2}}; '
    '{"name": "add", "parameters": {"a": [1, -2.5], "b": null}}',
    "mistral": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}, '
    '{"name": "add", "arguments": {"a": [1, -2.5], "b": null}, "id": "123456789"}]',
    "mistral 3": '[TOOL_CALLS]get_weather[ARGS]{"city": "Zürich", "days": 2}'
    '[TOOL_CALLS]add[ARGS]{"a": [1, -2.5], "b": null}',
    "mistral 3 plain": 'get_weather{"city": "Zürich", "days": 2}add{"a": [1, -2.5], "b": null}',
    "deepseek r1": "<¦tool▁calls▁begin¦><¦tool▁call▁begin¦>function<¦tool▁sep¦>get_weather\n```json\n"
    '{"city": "Zürich", "days": 2}\n```<¦tool▁call▁end¦>\n<¦tool▁call▁begin¦>function<¦tool▁sep¦>add\n'
    '```json\n{"a": [1, -2.5], "b": null}\n```<¦tool▁call▁end¦><¦tool▁calls▁end¦>',
    "deepseek r1 plain": 'functionget_weather\n```json\n{"city": "Zürich", "days": 2}\n```\n'
    'functionadd\n```json\n{"a": [1, -2.5], "b": null}\n```',
    "deepseek v3.1": "<¦tool▁calls▁begin¦><¦tool▁call▁begin¦>get_weather<¦tool▁sep¦>"
    '{"city": "Zürich", "days": 2}<¦tool▁call▁end¦><¦tool▁call▁begin¦>add<¦tool▁sep¦>'
    '{"a": [1, -2.5], "b": null}<¦tool▁call▁end¦><¦tool▁calls▁end¦>',
    "gemma": '```tool_code\nget_weather(city="Zürich", days=2)\nadd(a=[1, -2.5], b=None)\n```',
    "gemma json": '```json\n[{"name": "get_weather", "parameters": {"city": "Zürich", "days": 2}}, '
    '{"name": "add", "parameters": {"a": [1, -2.5], "b": null}}]\n```',
    "python": "[get_weather(city='Zürich', days=2), add(a=[1, -2.5], b=None)]",
    "thoughtful": "<think>add(1) or get_weather{}?</think>"
    "[get_weather(city='Zürich', days=2), add(a=[1, -2.5], b=None)]",
}
TEXTS = {family: text.replace("¦", "\uff5c") for family, text in BARRED.items()}
"""DeepSeek writes its tokens with full-width bars."""


def calls(found: Read) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in found.calls]


@pytest.mark.parametrize("family", TEXTS)
def test_two_calls_in_the_words_of_a_family(family: str) -> None:
    found = read(TEXTS[family], NAMES)
    assert found.problem == ""
    assert calls(found) == TWO
    assert "get_weather" not in found.content.partition("</think>")[2] or family == "thoughtful"


def test_the_text_beside_a_call_is_kept() -> None:
    assert read(TEXTS["qwen"], NAMES).content == "Let me see."
    assert read('So:\n```json\n{"name": "add", "arguments": {}}\n```', NAMES).content == "So:"
    assert read(TEXTS["thoughtful"], NAMES).content == "<think>add(1) or get_weather{}?</think>"
    assert read('I call add{"a": 1}', NAMES).content == "I call"


@pytest.mark.parametrize(
    "text",
    [
        "The sum is 3.",
        "add is what I would call, but with which numbers?",
        "{braces} are no call",
        "[1] says so",
        '{"answer": 3}',
        "```python\nprint(3)\n```",
        "",
        "<think>",
    ],
)
def test_a_text_is_a_text(text: str) -> None:
    assert read(text, NAMES) == Read(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<tool_call>add 1 and 2</tool_call>", "a call is not JSON"),
        ('<tool_call>{"name": "sub", "arguments": {}}</tool_call>', "there is no function 'sub'"),
        ('<tool_call>{"arguments": {}}</tool_call>', "a call names no function"),
        ('{"name": "add", "arguments": 3}', "the arguments of a call are not an object"),
        ('{"name": "add", "arguments": {"a": 1}', "a call is not JSON"),
        ("[TOOL_CALLS]", "a call is not JSON"),
        ("<function=sub></function>", "there is no function 'sub'"),
        ("add(1, 2)", "arguments of a call have no names"),
        ("[add(a=1), 3]", "a call is no Python expression"),
        ("add(a=b)", "an argument of a call is no plain value"),
        ("add(a=1", "a call is no Python expression"),
        ("add(a=__import__('os').getcwd())", "an argument of a call is no plain value"),
        ("[" * 90 + "add(a=1)", "a call is no Python expression"),
    ],
)
def test_what_is_wrong_with_a_call_is_said(text: str, problem: str) -> None:
    assert read(text, NAMES) == Read(text, problem=problem)


@pytest.mark.parametrize("after", ["()", ".b"])
@pytest.mark.parametrize("count", [3, 500, 5000, 40_000])
def test_a_name_of_any_depth_is_no_function(after: str, count: int) -> None:
    text = f"add{after * count}(a=1)"
    found = read(text, NAMES) if after == "()" else read(f"[add(a=1), {text}]", NAMES)
    assert not found.calls
    assert found.problem


@given(st.text(alphabet='<>{}[]()",:;`\n a=1add|tool_call/functionjs\uff5c▁', max_size=80))
def test_nothing_that_a_model_writes_breaks_it(text: str) -> None:
    found = read(text, NAMES)
    assert not (found.calls and found.problem)
    for call in found.calls:
        assert call.name in NAMES
        json.loads(call.arguments)


@pytest.mark.parametrize(
    "part", ["<tool_call>", "add{", "<function=a>", "```json\n", "[", "{", "add("]
)
def test_a_runaway_answer_takes_no_time(part: str) -> None:
    since = time.process_time()
    read(part * 20_000, NAMES)
    assert time.process_time() - since < 2.0


def test_what_is_written_is_read() -> None:
    text = written([(name, json.dumps(arguments)) for name, arguments in TWO])
    assert calls(read(text, NAMES)) == TWO


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "add", "arguments": {"a": "\\ud83d!"}}</tool_call>',
        '{"name": "add", "arguments": "{\\"a\\": \\"\\\\ud83d!\\"}"}',
        "[add(a='\\ud83d!')]",
        'add {"a": "\\ud83d!"}',
        '<function=add><parameter=a>"\\ud83d!"</parameter></function>',
    ],
)
def test_half_a_character_becomes_a_question_mark(text: str) -> None:
    """An escape can name it, and no chat template's text, tokenizer or file can hold it."""
    (call,) = read(text, ["add"]).calls
    assert json.loads(call.arguments) == {"a": "?!"}
