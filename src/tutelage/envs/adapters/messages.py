"""Conversations from a file, in OpenAI's chat messages, as tasks: what is said to the agent is
recorded, and what it answers is its own."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import ConfigError
from tutelage.types import Observation, Task

ROLES = ("system", "developer", "user", "tool", "function")
"""Of messages that the agent reads; "assistant" writes them."""


END = "The conversation has ended."
"""What is shown after the last answer."""


class Spoken(NamedTuple):
    """A turn: what the agent is shown, what was answered, and whether that is to be imitated."""

    seen: str
    reply: str | None  # None at the end of a conversation that waits for an answer
    imitated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The turns of one line, and the other keys of the line."""

    turns: tuple[Spoken, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Conversations of a file of chat messages: the agent answers, and is shown what was said next in
    the recording, whatever it answers.

    file  JSON lines, each with "messages": a list of {"role", "content"}
    test  so many conversations at the end of the file are the split "test"

    A task is won where every answer is the recorded one. The last answer is the reference answer,
    which the hint "answer" shows.
    """

    file: str
    test: int = 0

    def conversations(self) -> tuple[Conversation, ...]:
        return conversations(Path(self.file))

    def tasks(self, split: str) -> Sequence[Task]:
        count = len(self.conversations())
        if not 0 <= self.test < count:
            raise ConfigError(
                f"env.options.test = {self.test}, but {self.file} has {count} conversations; leave some "
                "to train on"
            )
        first = count - self.test
        there = {"train": range(first), "test": range(first, count)}
        if not self.test:
            del there["test"]
        if split not in there:
            raise ConfigError(f"there is no split {split!r}; there are {', '.join(there)}")
        return [self.task(k) for k in there[split]]

    def task(self, k: int) -> Task:
        """The task of a file's k-th conversation."""
        family = self.conversations()[k].about.get("family")
        return Task(
            id=f"{Path(self.file).stem}/{k:07d}",
            family=family if isinstance(family, str) else "",
            seed=k,
        )

    def identity(self) -> str:
        return hashlib.sha256(Path(self.file).read_bytes()).hexdigest()

    def make(self) -> "MessagesEnv":
        return MessagesEnv(self.conversations())

    def answer(self, task: Task) -> str:
        replies = [
            reply_turn.reply
            for reply_turn in self.conversations()[task.seed].turns
            if reply_turn.reply is not None
        ]
        return replies[-1] if replies else ""


class MessagesEnv:
    """One conversation."""

    def __init__(self, every: Sequence[Conversation]) -> None:
        self.every = every

    def reset(self, task: Task) -> Observation:
        self.turns, self.at, self.right = self.every[task.seed].turns, 0, True
        return Observation(text=self.turns[0].seen)

    def step(self, action: str) -> Observation:
        reply = self.turns[self.at].reply
        self.right = self.right and reply is not None and action.strip() == reply.strip()
        self.at += 1
        if self.at < len(self.turns):
            return Observation(text=self.turns[self.at].seen)
        return Observation(text=END, done=True, won=self.right, reward=float(self.right))

    def close(self) -> None: ...


def conversations(path: Path) -> tuple[Conversation, ...]:
    """The conversations of a file. Raises ConfigError for a file that is none."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); name a file of conversations"
        ) from error
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, size: int) -> tuple[Conversation, ...]:
    with path.open(encoding="utf-8") as file:
        try:
            lines = [(k, json.loads(text)) for k, text in enumerate(file, 1) if text.strip()]
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not JSON lines: {error}") from error
    if not lines:
        raise ConfigError(f"{path} holds no conversation")
    return tuple(conversation(line, where=f"{path}, line {k}") for k, line in lines)


def conversation(line: Any, *, where: str) -> Conversation:
    """The turns of a line's messages. What the agent reads between two of its answers becomes one
    observation; a system message stands before the first.

    Raises ConfigError for a line that is no conversation.
    """
    talk = line.get("messages") if isinstance(line, Mapping) else None
    if not isinstance(talk, list) or not all(isinstance(message, Mapping) for message in talk):
        raise ConfigError(f'{where} has no list of messages: {{"messages": [{{"role": ...}}]}}')
    turns: list[Spoken] = []
    seen: list[str] = []
    for message in talk:
        role, text = message.get("role"), _text(message, where)
        if role == "assistant":
            if not turns and not seen:
                raise ConfigError(
                    f"{where} begins with the assistant; a message of a user is missing"
                )
            if not seen:  # two answers in a row are one
                last = turns.pop()
                text, seen = f"{last.reply}\n{text}", [last.seen]
            turns.append(Spoken("\n\n".join(seen), text, message.get("weight", 1) != 0))
            seen = []
        elif role in ROLES:
            seen.append(text)
        else:
            raise ConfigError(f"{where} has a message of the role {role!r}; there are {ROLES}")
    if seen:
        turns.append(Spoken("\n\n".join(seen), None))
    if not turns:
        raise ConfigError(f"{where} has no messages")
    return Conversation(
        turns=tuple(turns), about={k: v for k, v in line.items() if k != "messages"}
    )


def _text(message: Mapping[str, Any], where: str) -> str:
    """The text of a message; calls of tools are written as models of Qwen's and Hermes' form write
    them."""
    content = message.get("content") or ""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        if any(part.get("type") not in ("text", "input_text", "output_text") for part in parts):
            raise ConfigError(f"{where} has pictures or sound, which are not read; leave it out")
        content = "".join(str(part.get("text", "")) for part in parts)
    if not isinstance(content, str):
        raise ConfigError(f"{where} has a content that is no text: {type(content).__name__}")
    calls = []
    for call in message.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError):  # else as the model wrote it
                arguments = json.loads(arguments)
        body = json.dumps(
            {"name": function.get("name"), "arguments": arguments}, ensure_ascii=False
        )
        calls.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join([*([content] if content else []), *calls])
