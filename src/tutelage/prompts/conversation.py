"""Prompts of an agent that keeps its own conversation: rows of ids that only ever grow.

An agent sends all messages with every call. Where they begin with an earlier call's messages and
its answer, the prompt is that call's ids, the ids that were sampled for its answer, and the ids of
the new messages: nothing is encoded twice. Of several such calls the one with the most messages is
the parent. Where there is none (a first call, a shortened history, another agent's conversation) a
new row starts, in which earlier answers are prompt and nothing else. Two parents that hold the same
texts in different ids are equally good: neither is taken, a new row starts, and it is counted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.prompts.chat_template import Chat
from tutelage.types import Call, Message, Turn

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Head:
    """Where a row has grown to: its ids, the last answer among them."""

    ids: Ids
    ended: bool  # whether the answer had its end-of-turn token


@dataclass(slots=True, kw_only=True)
class Rows:
    """The prompts of one view of one episode. `hint` is added to the system message."""

    chat: Chat
    hint: str = ""
    fresh: bool = False  # whether the last prompt does not extend the call before it
    started: int = 0  # rows
    ambiguous: int = 0  # those that started because two parents were equally good
    heads: dict[bytes, list[_Head]] = field(default_factory=dict)  # by the messages they hold
    prompts: list[Ids] = field(default_factory=list)  # of every call
    answered: int = 0  # calls whose answers are known
    last: Ids = ()  # the ids up to the end of the last answer

    def prompt(self, turns: Sequence[Turn], now: Call) -> tuple[Ids, Ids]:
        """The complete prompt of a call, and the part of it that is new since the answer before.
        `turns` are all turns before it; call it in their order."""
        for k in range(self.answered, len(turns)):
            call = turns[k].observation.call
            assert call is not None
            if len(self.prompts) == k:
                self._ask(call)
            self._answer(call, turns[k])
        if len(self.prompts) == len(turns):
            self._ask(now)
        ids = self.prompts[-1]
        self.fresh = bool(turns) and ids[: len(self.last)] != self.last
        return ids, ids if self.fresh else ids[len(self.last) :]

    def _answer(self, call: Call, turn: Turn) -> None:
        """Note how a call was answered, so that later ones may go on from it."""
        self.last = (*self.prompts[self.answered], *turn.tokens)
        self.answered += 1
        key = _keys(call.tools, (*call.messages, Message("assistant", turn.text)))[-1]
        head = _Head(self.last, turn.tokens[-1:] == (self.chat.end,))
        known = self.heads.setdefault(key, [])
        if head not in known:
            known.append(head)

    def _ask(self, call: Call) -> None:
        keys = _keys(call.tools, call.messages)
        found = next((k for k in range(len(keys) - 1, -1, -1) if keys[k] in self.heads), None)
        parents = [] if found is None else self.heads[keys[found]]
        if found is not None and len(parents) == 1:
            ids = self._follow(parents[0], call.messages[found + 1 :])
        else:
            self.started += 1
            self.ambiguous += bool(parents)
            ids = whole(self.chat, call, self.hint)
        self.prompts.append(ids)

    def _follow(self, parent: _Head, messages: Sequence[Message]) -> Ids:
        first, *rest = _exchanges(messages)
        return (
            *parent.ids,
            *self.chat.follow(first[1], ended=parent.ended),
            *_later(self.chat, rest),
        )


def whole(chat: Chat, call: Call, hint: str = "") -> Ids:
    """The ids of a conversation that goes on from nothing, and of a hint in its system message."""
    count = next((k for k, m in enumerate(call.messages) if m.role != "system"), len(call.messages))
    parts = [*(m.content.strip() for m in call.messages[:count]), hint.strip()]
    system = "\n\n".join(part for part in parts if part)
    if call.tools:
        system = chat.with_tools(system, call.tools)
    first, *rest = _exchanges(call.messages[count:])
    opened = chat.open(system, first[1])
    return (*opened, *_later(chat, rest))


def _later(chat: Chat, exchanges: Sequence[tuple[str, str]]) -> Ids:
    return tuple(
        token
        for answer, user in exchanges
        for token in (*chat.reply(answer), *chat.follow(user, ended=True))
    )


def _exchanges(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Messages as pairs of (an answer, what the user said to it): the first has no answer. Whatever
    stands between two answers is one message of the user."""
    pairs: list[tuple[str, list[str]]] = [("", [])]
    for message in messages:
        if message.role == "assistant":
            pairs.append((message.content, []))
        else:
            pairs[-1][1].append(message.content)
    return [(answer, "\n\n".join(texts_before)) for answer, texts_before in pairs]


def _keys(tools: str, messages: Sequence[Message]) -> list[bytes]:
    """For each message, a key of it and all before it. Space around a text does not count, since
    agents strip it."""
    state = hashlib.sha256(tools.encode())
    keys = []
    for message in messages:
        state.update(repr((message.role, message.content.strip())).encode())
        keys.append(state.digest())
    return keys
