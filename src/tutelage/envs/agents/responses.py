"""The Responses form of OpenAI's API over chat completions: requests and answers are translated.

A request's `input` becomes messages, calls of functions in it become those of the answer that made
them, and everything else is a chat completion: what is recorded is the same.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tutelage.envs.agents.requests import MAX_MESSAGES, MAX_TOOLS, Part, malformed, validated


class _Item(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[Part] = ""


class _Tool(BaseModel):
    model_config = ConfigDict(extra="allow")
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")
    model: str
    input: str | Annotated[list[_Item], Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    tools: Annotated[list[_Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None
    stream: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None


def chat_body(body: object) -> dict[str, Any]:
    """The chat completion that a request asks for. Raises Refused."""
    read = validated(_Body, body)
    if read.previous_response_id or read.conversation:
        raise malformed(
            "previous_response_id and conversation: nothing is stored here; send the whole input"
        )
    messages = [{"role": "system", "content": read.instructions}] if read.instructions else []
    if isinstance(read.input, str):
        messages.append({"role": "user", "content": read.input})
    else:
        for item in read.input:
            _add(messages, item)
    return {
        "model": read.model,
        "messages": messages,
        "tools": [_function(tool) for tool in read.tools or ()] or None,
        "tool_choice": read.tool_choice,
        "stream": bool(read.stream),
    }


def _add(messages: list[dict[str, Any]], item: _Item) -> None:
    """One item of an input; calls join the message of the answer that they stand in."""
    if item.type == "message" and item.role:
        content = item.content
        parts = content if content is None or isinstance(content, str) else _parts(content)
        messages.append({"role": item.role, "content": parts})
    elif item.type == "function_call":
        call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif item.type == "function_call_output":
        output = item.output if isinstance(item.output, str) else _parts(item.output)
        messages.append({"role": "tool", "content": output})
    elif item.type != "reasoning":
        raise malformed(f"input: {item.type[:50]!r} is no message and no call of a function")


def _parts(parts: list[Part]) -> list[dict[str, Any]]:
    return [part.model_dump() for part in parts]


def _function(tool: _Tool) -> dict[str, Any]:
    if tool.type != "function" or not tool.name:
        raise malformed(f"tools: {tool.type[:50]!r} is not served here; give functions with names")
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {k: v for k, v in function.items() if v is not None}}


def response_of(
    message: dict[str, Any], reason: str, *, name: str, head: dict[str, Any], usage: dict[str, int]
) -> dict[str, Any]:
    """An answer in this form, from the message of a chat completion."""
    output: list[dict[str, Any]] = []
    if message.get("content") or not message.get("tool_calls"):
        text: dict[str, Any] = {
            "type": "output_text",
            "text": message.get("content") or "",
            "annotations": [],
        }
        output.append(
            {
                "id": f"msg_{name}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        )
    for call in message.get("tool_calls") or ():
        function = call["function"]
        output.append(
            {
                "id": f"fc_{call['id']}",
                "type": "function_call",
                "status": "completed",
                "call_id": call["id"],
                "name": function["name"],
                "arguments": function["arguments"],
            }
        )
    cut = reason == "length"
    return {
        **head,
        "id": f"resp_{name}",
        "object": "response",
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def events(response: dict[str, Any]) -> Iterator[str]:
    """The events of a streamed answer."""
    bodies = [{**body, "sequence_number": number} for number, body in enumerate(_events(response))]
    for body in bodies:
        yield f"event: {body['type']}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"


def _events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for index, item in enumerate(response["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        words = item["type"] == "message"
        empty: dict[str, Any] = {"content": []} if words else {"arguments": ""}
        started = {**item, **empty, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": started}
        if words:
            (part,) = item["content"]
            at = {**at, "content_index": 0}
            yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
            text = {"type": "response.output_text.delta", **at, "delta": part["text"]}
            yield {**text, "logprobs": []}
            yield {
                "type": "response.output_text.done",
                **at,
                "text": part["text"],
                "logprobs": [],
            }
            yield {"type": "response.content_part.done", **at, "part": part}
        else:
            arguments = item["arguments"]
            yield {"type": "response.function_call_arguments.delta", **at, "delta": arguments}
            yield {
                "type": "response.function_call_arguments.done",
                **at,
                "name": item["name"],
                "arguments": arguments,
            }
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    cut = response["status"] == "incomplete"
    yield {"type": f"response.{'incomplete' if cut else 'completed'}", "response": response}
