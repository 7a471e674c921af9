"""How a chat template writes functions, calls of them, and what they returned.

As in `chat_template`, the template is rendered with markers in the place of contents, which gives
the ids around them. A template that knows no functions, or moves them from turn to turn, gets them
in words of our own in the system message, and results as a message of the user.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from tutelage.envs.agents.tools import FunctionCall, names_of, read, written
from tutelage.errors import EndlessTemplateError, PolicyError

Ids = tuple[int, ...]
WORDS = (
    "You may call these functions:\n{tools}\n\nTo call one, write its name and its arguments as JSON "
    'between tags: <tool_call>{{"name": NAME, "arguments": {{...}}}}</tool_call>'
)
"""Functions in a system message, for a template that has no words for them."""
SYSTEM, USER, AGENT, AGAIN = (
    "\u2063sys\u2063",
    "\u2063usr\u2063",
    "\u2063agt\u2063",
    "\u2063nxt\u2063",
)
# in ASCII, since some templates write results as JSON, which escapes other characters
FIRST, SECOND, QUOTED = "result-of-call-1", "result-of-call-2", 'result "of" call'
END_OF_THOUGHT = "</think>"


class Talk(Protocol):
    """What of a `chat_template.Chat` is needed here."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def history(self) -> str: ...
    @property
    def end(self) -> int: ...
    @property
    def opens_thought(self) -> bool: ...
    def opened(self, prompt: str) -> bool: ...
    @property
    def control_texts(self) -> list[str]: ...
    def piece(self, name: str) -> str: ...
    def render(
        self, messages: Sequence[Mapping[str, Any]], generate: bool, **options: object
    ) -> str: ...
    def frame(self, text: str) -> Ids: ...
    def content(self, text: str) -> Ids: ...
    def open(self, system: str, user: str) -> Ids: ...
    def follow(self, user: str, *, ended: bool) -> Ids: ...
    def reply(self, text: str) -> Ids: ...
    def text(self, tokens: Ids) -> str: ...
    def with_tools(self, system: str, tools: str) -> str: ...


class _Opening(NamedTuple):
    """The texts around the contents of a first prompt."""

    before: str
    middle: str
    after: str


class _Results(NamedTuple):
    """The texts around what calls returned. `between` is None where a template takes one result;
    `quoted`: contents are written as JSON strings."""

    before: str
    between: str | None
    after: str
    quoted: bool


@dataclass(frozen=True)
class Toolbox:
    """The functions `tools` (JSON, as OpenAI's API lists them) in a chat."""

    chat: Talk
    tools: str

    @cached_property
    def names(self) -> list[str]:
        return names_of(self.tools)

    @cached_property
    def _plain(self) -> bool:
        """Whether no text of the functions holds the name of a control token, which in a frame
        would become that token."""
        return self._harmless(self.tools)

    def _harmless(self, text: str) -> bool:
        return not any(name in text for name in self.chat.control_texts)

    def _render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        return self.chat.render(messages, generate, tools=json.loads(self.tools))

    # -- the functions

    @cached_property
    def _opened(self) -> dict[bool, _Opening] | None:
        """The frame of a first prompt with functions, with and without a system message; None for a
        template that does not write them in a place of their own."""
        if self.chat.tokenizer is None or not self._plain:
            return None
        try:
            return {with_system: self._opening(with_system) for with_system in (True, False)}
        except EndlessTemplateError:
            raise
        except (PolicyError, ValueError):
            return None

    def _opening(self, with_system: bool) -> _Opening:
        """Raises PolicyError or ValueError where the template has none."""
        messages = [{"role": "system", "content": SYSTEM}] * with_system
        messages += [{"role": "user", "content": USER}]
        text = self._render(messages, generate=True)
        counts = [text.count(marker) for marker in (SYSTEM, USER)]
        if counts != [int(with_system), 1] or not all(name in text for name in self.names):
            raise ValueError("not every message is shown exactly once")
        before, found, rest = text.partition(SYSTEM) if with_system else ("", "", text)
        middle, _, after = rest.partition(USER)
        if after != self.chat.piece("generate"):
            raise ValueError("functions come after the message of the user")
        if self.chat.history == "exact":
            messages += [
                {"role": "assistant", "content": AGENT},
                {"role": "user", "content": AGAIN},
            ]
            later = self._render(messages, generate=True)
            if not later.startswith(f"{before}{found}{middle}{USER}"):
                raise ValueError("functions move from turn to turn")
        return _Opening(before, middle, after)

    def open(self, system: str, user: str) -> Ids:
        """The prompt of a first turn."""
        chat = self.chat
        if self._opened is None:
            return chat.open(self._system(system), user)
        frame = self._opened[bool(system)]
        first = (*chat.frame(frame.before), *chat.content(system)) if system else ()
        return (*first, *chat.frame(frame.middle), *chat.content(user), *chat.frame(frame.after))

    def _system(self, system: str) -> str:
        if self.chat.tokenizer is None:
            return f"{system}\n\n{WORDS.format(tools=self.tools)}".strip()
        return self.chat.with_tools(system, self.tools)

    # -- what calls returned

    @cached_property
    def _results(self) -> _Results | None:
        """The frame of results; None for a template that has no role for them."""
        if self._opened is None:
            return None
        try:
            return self._read_results()
        except EndlessTemplateError:
            raise
        except (PolicyError, ValueError):
            return None

    def _messages(self, count: int, results: Sequence[str]) -> list[dict[str, Any]]:
        """A conversation in which one answer makes `count` calls."""
        ids = [f"call{k:05d}" for k in range(count)]  # 9 characters, as some templates want
        calls = [
            {"id": ids[k], "type": "function", "function": {"name": self.names[0], "arguments": {}}}
            for k in range(count)
        ]
        return [
            {"role": "user", "content": USER},
            {"role": "assistant", "content": "", "tool_calls": calls},
            *(
                {"role": "tool", "name": self.names[0], "tool_call_id": ids[k], "content": text}
                for k, text in enumerate(results)
            ),
        ]

    def _read_results(self) -> _Results:
        closing = self.chat.piece("closing")
        asked = self._render(self._messages(1, []), generate=False)
        one = self._render(self._messages(1, [FIRST]), generate=True)
        _, ended, tail = asked.rpartition(closing)
        before, found, after = one.removeprefix(asked).partition(FIRST)
        if not (ended and found and one.startswith(asked) and one.count(FIRST) == 1):
            raise ValueError("a result does not follow the answer before it")
        if self.chat.opened(after) != self.chat.opens_thought:
            raise ValueError("only some prompts open a thought")
        quoted = self._render(self._messages(1, [QUOTED]), generate=True)
        as_json = QUOTED not in quoted
        if as_json and json.dumps(QUOTED)[1:-1] not in quoted:
            raise ValueError("results are written in a way of their own")
        return _Results(tail + before, self._between(after), after, as_json)

    def _between(self, after: str) -> str | None:
        try:
            two = self._render(self._messages(2, [FIRST, SECOND]), generate=True)
        except EndlessTemplateError:
            raise
        except PolicyError:
            return None
        between, found, rest = two.partition(FIRST)[2].partition(SECOND)
        return between if found and rest == after else None

    def follow(self, results: Sequence[str], *, ended: bool) -> Ids:
        """The ids between an answer with calls and the next one."""
        chat, frame = self.chat, self._results
        if frame is None:
            text = "\n".join(f"<tool_response>\n{each}\n</tool_response>" for each in results)
            return chat.follow(text, ended=ended)
        if frame.between is None:
            results = ["\n\n".join(results)]
        ids = [*(() if ended else (chat.end,)), *chat.frame(frame.before)]
        for k, text in enumerate(results):
            content = json.dumps(text, ensure_ascii=False)[1:-1] if frame.quoted else text
            ids += chat.frame(frame.between or "") if k else ()
            ids += chat.content(content)
        return (*ids, *chat.frame(frame.after))

    # -- calls that are demonstrated

    def reply(self, text: str) -> Ids:
        """Ids of a demonstrated answer, end-of-turn token included: its calls as the template
        writes them, if they can be read again from these ids, and else as they stand."""
        head, mark, body = text.rpartition(END_OF_THOUGHT)
        found = read(body, self.names)
        if not found.calls or self._opened is None:
            return self.chat.reply(text)
        try:
            own = self._written(found.calls)
        except EndlessTemplateError:
            raise
        except (PolicyError, ValueError):
            return self.chat.reply(text)
        before = "\n".join(part for part in (head + mark, found.content) if part)
        before = f"{before}\n" if before else ""
        calls = written([(c.name, c.arguments) for c in found.calls])
        allowed = self._harmless(json.dumps([c.arguments for c in found.calls], ensure_ascii=False))
        middle = self.chat.frame(own) if allowed else self.chat.content(own)
        ids = (*self.chat.reply(before)[:-1], *middle, self.chat.end) if before else (*middle,)
        ids = ids if before else (*ids, self.chat.end)
        again = read(self.chat.text(ids).rpartition(END_OF_THOUGHT)[2], self.names)
        if self.chat.end in ids[:-1] or not _alike(again.calls, found.calls):
            return self.chat.reply(before + calls)
        return ids

    def _written(self, calls: Sequence[FunctionCall]) -> str:
        """Calls as the template writes an answer's. Raises PolicyError or ValueError."""
        listed = [
            {
                "id": f"call{k:05d}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for k, call in enumerate(calls)
        ]
        user = {"role": "user", "content": USER}
        answer = {"role": "assistant", "content": "", "tool_calls": listed}
        start = self._render([user], generate=True)
        whole = self._render([user, answer], generate=False)
        text, ended, _ = whole.removeprefix(start).rpartition(self.chat.piece("closing"))
        if not (ended and whole.startswith(start)):
            raise ValueError("an answer does not follow its prompt")
        return text.strip("\n")


def _alike(one: Sequence[FunctionCall], other: Sequence[FunctionCall]) -> bool:
    def plain(calls: Sequence[FunctionCall]) -> list[tuple[str, Any]]:
        return [(call.name, json.loads(call.arguments)) for call in calls]

    return plain(one) == plain(other)
