"""Calls of functions as models write them in text, and as the OpenAI API has them.

Each family of models has its own way to write a call. Which one a model takes is not set: an answer
is read by what stands in it. Special tokens, such as Mistral's [TOOL_CALLS], are not part of a text,
so every form is read with and without them.

    Qwen, Hermes      <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>
    Qwen3-Coder, GLM  <tool_call><function=add><parameter=a>1</parameter></function></tool_call>
    Llama 3           <|python_tag|>{"name": "add", "parameters": {"a": 1}}; {...}
    Mistral           [TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}], [TOOL_CALLS]add[ARGS]{"a": 1}
    DeepSeek          function, a separator, add, and {"a": 1} in a block of ```json; or without both
    Gemma             ```tool_code\\nadd(a=1)\\n```
    Llama 4, others   [add(a=1), add(a=2)]
"""

import ast
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
"""A call as models of the Qwen and Hermes families write it; the end may be left out."""
MOST = 64
"""Calls of one answer that are read."""
LONGEST = 100_000
"""Characters of an answer in which calls of other forms are looked for."""
MARKS = re.compile(
    r"<\|python_tag\|>|\[/?TOOL_CALLS\]|\[ARGS\]|\[CALL_ID\]\w*"
    r"|<\uff5ctool▁(?:calls▁begin|calls▁end|call▁begin|call▁end|sep)\uff5c>"
)
"""Tokens around calls; with a space in their place, an answer is read as if they were special."""
FENCE = re.compile(r"```(?:json|tool_code|tool_call|python|py)?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
FUNCTION = re.compile(r"<function=([^>\s]{1,256})>(.*?)(?:</function>|\Z)", re.DOTALL)
PARAMETER = re.compile(
    r"<parameter=([^>\s]{1,256})>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL
)
NO_JSON = "a call is not JSON"


@dataclass(frozen=True, slots=True)
class FunctionCall:
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Read:
    """An answer: its text without calls, its calls, and what is wrong with those that are not."""

    content: str
    calls: tuple[FunctionCall, ...] = ()
    problem: str = ""


def read(text: str, names: Collection[str]) -> Read:
    """Read an answer that may call the named functions, in any of the forms above. An answer in
    which a call was begun and cannot be read has a problem; one without a call is a text.

    >>> read('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', ["add"]).calls
    (FunctionCall(name='add', arguments='{"a": 1}'),)
    >>> read("[add(a=1), add(a=[2, 3])]", ["add"]).calls[1]
    FunctionCall(name='add', arguments='{"a": [2, 3]}')
    >>> read("<tool_call>add(1)</tool_call>", ["add"]).problem
    'arguments of a call have no names'
    """
    if not names:
        return Read(text)
    blocks = BLOCK.findall(text)[:MOST]
    if blocks:
        return _all(text, BLOCK.sub("", text), blocks, names)
    if len(text) > LONGEST:
        return Read(text)
    functions = [match.group(0) for match in FUNCTION.finditer(text)][:MOST]
    if functions:
        return _all(text, FUNCTION.sub("", text), functions, names)
    marked = MARKS.search(text) is not None
    plain = MARKS.sub(" ", text)
    thought, _, bare = plain.rpartition("</think>")
    if found := _named(bare, names):
        before, calls = found
        return Read(_joined(thought, before), tuple(calls[:MOST]))
    fences = [match.group(1) for match in FENCE.finditer(bare)][:MOST]
    bodies = [body for body in fences if _begins(body, names)] or [bare]
    if not _begins(bodies[0], names):
        return Read(text, problem=NO_JSON) if marked else Read(text)
    found_calls: list[FunctionCall] = []
    for body in bodies:
        calls_of = _calls(body, names)
        if isinstance(calls_of, str):
            # a text may begin with a bracket, or be an example of JSON
            clear = marked or _starts_call(body, names) or '"name"' in body
            return Read(text, problem=calls_of) if clear and _only(bare, bodies) else Read(text)
        found_calls += calls_of
    content = FENCE.sub("", bare) if bodies[0] is not bare else ""
    return Read(_joined(thought, content), tuple(found_calls[:MOST]))


def _only(text: str, bodies: list[str]) -> bool:
    """Whether an answer is calls and nothing else."""
    return bodies[0] is text or not FENCE.sub("", text).strip()


def _joined(thought: str, content: str) -> str:
    return f"{thought}</think>{content}".strip() if thought else content.strip()


def _all(text: str, rest: str, blocks: list[str], names: Collection[str]) -> Read:
    calls: list[FunctionCall] = []
    for block in blocks:
        found = _calls(block, names)
        if isinstance(found, str):
            return Read(text, problem=found)
        calls += found
    return Read(rest.strip(), tuple(calls))


def _begins(body: str, names: Collection[str]) -> bool:
    """Whether a text could be calls."""
    return body.lstrip().startswith(("{", "[")) or _starts_call(body, names)


def _starts_call(body: str, names: Collection[str]) -> bool:
    head = body.lstrip().lstrip("[").lstrip()
    return any(head.startswith(f"{name}(") for name in names)


def _named(text: str, names: Collection[str]) -> tuple[str, list[FunctionCall]] | None:
    """Calls as a name and then an object of arguments (Mistral, DeepSeek), and the text before."""
    name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    opening = re.compile(rf"(?:^|[\s\}}`])(?:function\s*)?({name})\s*(?:```json\s*)?(?=\{{)")
    calls: list[FunctionCall] = []
    first, at = 0, 0
    while len(calls) < MOST and (match := opening.search(text, max(0, at - 1))):
        try:
            value, end = json.JSONDecoder().raw_decode(text, match.end())
        except (ValueError, RecursionError):
            return None
        calls.append(FunctionCall(match.group(1), _arguments(value)))
        first, at = first or match.start() + 1, end
    return (text[: first - 1], calls) if calls else None


def _calls(text: str, names: Collection[str]) -> tuple[FunctionCall, ...] | str:
    """The calls of one text, or why there are none."""
    if functions := list(FUNCTION.finditer(text))[:MOST]:
        values: Any = [
            {"name": f.group(1), "arguments": dict(_parameters(f.group(2)))} for f in functions
        ]
    elif _starts_call(text, names):
        values = _expressions(text)
    else:
        values = _values(text)
    if isinstance(values, str):
        return values
    calls = []
    for each in values:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            return "a call names no function"
        if each["name"] not in names:
            return f"there is no function {each['name'][:100]!r}"
        arguments = each.get("arguments", each.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _object(arguments)
        if not isinstance(arguments, dict):
            return "the arguments of a call are not an object"
        calls.append(FunctionCall(each["name"], _arguments(arguments)))
    return tuple(calls) or "a call names no function"


def _arguments(value: object) -> str:
    """Arguments as JSON, without halves of characters, which an escape can name and no text holds."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _values(text: str) -> list[Any] | str:
    """JSON objects: one, a list of them, or several one after another."""
    decoder, values, at = json.JSONDecoder(), list[Any](), 0
    text = text.strip()
    while at < len(text) and len(values) < MOST:
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return NO_JSON
        values += value if isinstance(value, list) else [value]
        while at < len(text) and text[at] in "; \t\r\n":
            at += 1
    return values if text else NO_JSON


def _parameters(body: str) -> Iterator[tuple[str, Any]]:
    """Arguments as blocks: what is JSON as that, else as text."""
    for match in PARAMETER.finditer(body):
        value = match.group(2).strip("\n")
        try:
            yield match.group(1), json.loads(value)
        except (ValueError, RecursionError):
            yield match.group(1), value


def _expressions(text: str) -> list[dict[str, Any]] | str:
    """Calls as Python expressions with literal arguments. Nothing is evaluated."""
    try:
        tree = ast.parse(text.strip(), mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "a call is no Python expression"
    calls: list[dict[str, Any]] = []
    for statement in tree.body:
        if not isinstance(statement, ast.Expr):
            return "a call is no Python expression"
        value = statement.value
        for each in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
            if not isinstance(each, ast.Call):
                return "a call is no Python expression"
            if each.args or any(keyword.arg is None for keyword in each.keywords):
                return "arguments of a call have no names"
            try:
                arguments = {str(k.arg): ast.literal_eval(k.value) for k in each.keywords}
                json.dumps(arguments, allow_nan=False)
            except (ValueError, TypeError, RecursionError, MemoryError):
                return "an argument of a call is no plain value"
            try:
                name = ast.unparse(each.func)
            except RecursionError:  # f(a=1)()()() and so on
                return "a call is no Python expression"
            calls.append({"name": name, "arguments": arguments})
    return calls


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def written(calls: Collection[tuple[str, str]]) -> str:
    """Calls (name, arguments as JSON) as text, for a conversation that another model began."""
    texts = []
    for name, arguments in calls:
        value = _object(arguments)
        body = json.dumps({"name": name, "arguments": arguments if value is None else value})
        texts.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(texts)


def names_of(tools: str) -> list[str]:
    """The functions that a call's tools name."""
    listed: list[Mapping[str, Any]] = json.loads(tools) if tools else []
    return [str(each["function"]["name"]) for each in listed]
