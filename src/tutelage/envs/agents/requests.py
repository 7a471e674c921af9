"""The body of a chat completion request as a `Call`; everything else is refused with a status."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.envs.agents.tools import written
from tutelage.types import Call, Message, Role

M = TypeVar("M", bound=BaseModel)
MODEL = "student"
"""The name under which the model is served."""
MAX_MESSAGES = 10_000
MAX_TOOLS = 1_000
MAX_DEPTH = 64
"""Of a tool's schema, which the model's chat template walks through."""


class Refused(Exception):
    """A request that is answered with a status other than 200. `count` is the name under which it
    is counted."""

    def __init__(self, status: int, kind: str, message: str, *, count: str = "refused") -> None:
        super().__init__(message)
        self.status, self.kind, self.count = status, kind, count

    def body(self) -> dict[str, Any]:
        return {
            "error": {"message": str(self), "type": self.kind, "param": None, "code": self.kind}
        }


def malformed(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message, count="malformed")


def validated(model: type[M], body: object) -> M:
    """A body that was JSON, as a model. Raises Refused, naming the first field that does not fit."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        raise malformed(f"{where or 'the body'}: {first['msg']}") from None
    except RecursionError:
        raise malformed("the body is nested too deeply") from None


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: str
    text: str = ""
    refusal: str = ""


class _Function(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    arguments: str = "{}"


class _ToolCall(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: str = ""
    function: _Function


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[_ToolCall] | None = None


class _Named(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Annotated[str, Field(min_length=1, max_length=256)]


class _Tool(BaseModel):
    model_config = ConfigDict(extra="allow")
    type: Literal["function"] = "function"
    function: _Named


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class _Body(BaseModel):
    """Sampling parameters are ignored: they are the trainer's."""

    model_config = ConfigDict(extra="ignore")
    model: str
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[_Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: what is asked, and in what form the answer is wanted."""

    call: Call
    stream: bool
    usage: bool  # whether a stream ends with the counts of tokens


def asked(body: object, reply_to: Callable[[str], str | None]) -> Asked:
    """Read a body that was JSON.

    reply_to  id of a call of a function -> the text of the answer that made it, if it was made here

    Raises Refused.
    """
    read = validated(_Body, body)
    if read.model != MODEL:
        raise Refused(
            404,
            "model_not_found",
            f"the model {read.model[:100]!r} does not exist; the one that is served is {MODEL!r}",
            count="other_model",
        )
    if read.n not in (None, 1):
        raise malformed(
            "n: one answer a request; make several requests, beside each other if need be"
        )
    tools = read.tools if read.tools and read.tool_choice != "none" else []
    call = Call(messages=tuple(_message(m, reply_to) for m in read.messages), tools=_listed(tools))
    usage = bool(read.stream_options and read.stream_options.include_usage)
    return Asked(call, bool(read.stream), usage)


def _listed(tools: list[_Tool]) -> str:
    """The tools' schemas as JSON, empty for none."""
    if not tools:
        return ""
    try:
        functions = [{"type": "function", "function": t.function.model_dump()} for t in tools]
        if not _shallow(functions, MAX_DEPTH):
            raise malformed(f"tools: one is nested more than {MAX_DEPTH} deep")
        text = json.dumps(functions, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise malformed("tools: one holds half of a surrogate pair") from None
    except (ValueError, RecursionError):  # NaN, which Python reads and JSON does not have
        raise malformed("tools: one is no JSON, or is nested too deeply") from None
    return text


def _shallow(value: object, left: int) -> bool:
    """Whether lists and objects are nested at most so deep."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not parts or (left > 0 and all(_shallow(part, left - 1) for part in parts))


def _message(message: _Message, reply_to: Callable[[str], str | None]) -> Message:
    text = _text(message.content)
    roles: dict[str, Role] = {"developer": "system", "function": "tool"}
    role: Role = roles.get(message.role, message.role)  # type: ignore[arg-type]
    if role == "tool":
        text = f"<tool_response>\n{text}\n</tool_response>"
    elif role == "assistant" and message.tool_calls:
        first = reply_to(message.tool_calls[0].id)
        calls = [(c.function.name, c.function.arguments) for c in message.tool_calls]
        text = first if first is not None else f"{text}\n{written(calls)}".strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise malformed("messages: one holds half of a surrogate pair") from None
    return Message(role, text)


def _text(content: str | list[Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in ("text", "input_text", "output_text", "refusal"):
            raise malformed(
                f"messages: {part.type[:50]!r} is not text, and the model reads only text"
            )
    return "\n".join(part.text or part.refusal for part in content)
