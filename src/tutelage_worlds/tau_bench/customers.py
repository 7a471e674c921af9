"""The customer of a conversation: scripted, or a model.

scripted   from the task's own facts, by rules: the same words every time, no model
endpoint   a model behind an OpenAI-compatible server
policy     a model in this process (`tutelage.policies.chat_replies`)
any other  "package.module:function" of your own, which returns a `Reply`
"""

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol, cast

from tutelage.envs.named_code import named
from tutelage.errors import ConfigError, did_you_mean
from tutelage.types import Message
from tutelage_worlds.tau_bench.scenario import Scenario, mentions

STOP: Final = "###STOP###"
"""What a customer says who has nothing left to say; it ends the episode."""

Reply = Callable[[Sequence[Message]], str]
"""A model that continues a conversation: its own words have the role assistant."""

CUSTOMERS: Final = {
    "endpoint": "tutelage_worlds.tau_bench.endpoint:endpoint",
    "policy": "tutelage.policies.chat_replies:local",
}
"""Customers that are models, and the functions that make their `Reply` from `user_options`."""


class Customer(Protocol):
    """One customer of one episode at a time."""

    def open(self, scenario: Scenario) -> str:
        """The first words of a conversation."""
        ...

    def answer(self, content: str) -> str:
        """The reply to the agent; the last one contains STOP."""
        ...

    def key(self) -> Hashable:
        """Equal for conversations that continue alike."""
        ...


# -- by rules

_WHO: Final = re.compile(
    r"e-?mail|\bzip|\bname\b|\bidentity|\bverify|\bauthenticate|who (?:am|are)|user id", re.I
)
_ELSE: Final = re.compile(r"\b(?:else|further|another request)\b", re.I)
_ASKED: Final = re.compile(r"\b(?:which|what|where|why|how)\b", re.I)
_WAIT: Final = re.compile(
    r"\b(?:let me|one moment|please wait|hold on|i will|i'll|checking)\b", re.I
)
_TOPICS: Final = (
    (re.compile(r"pay|refund|card|paypal", re.I), ("payment_method_id", "payment_id")),
    (re.compile(r"reason|why", re.I), ("reason",)),
    (re.compile(r"address|where", re.I), ("address1", "address2", "city", "state", "zip")),
    (re.compile(r"order|reservation", re.I), ("order_id", "reservation_id")),
)
MORE, NO_EMAIL, NOBODY = "All right.", "I do not remember my e-mail address.", "I do not remember."


class Scripted:
    """Answers by rules from a task's facts: `Scenario.identity`, its requests one after another,
    and what the arguments of its actions say.

    It tells who it is when it is asked; agrees to every proposal; answers which, what, where and
    why from the facts; says its next request, or STOP, where the agent reports, tells the last of
    the required outputs, or asks what else there is. It never looks at the database: what the agent
    did is judged afterwards.
    """

    def __init__(self) -> None:
        self._scenario = Scenario(id="", user_id="", instruction="", actions=())
        self._asked = 0
        self._known = False
        self._outputs: frozenset[str] = frozenset()

    def open(self, scenario: Scenario) -> str:
        self._scenario, self._asked, self._known = scenario, 0, False
        self._outputs = frozenset()
        return f"Hello! {self._next()}" if scenario.requests else "Hello! Can you help me?"

    def key(self) -> Hashable:
        return (self._asked, self._known, self._outputs)

    def answer(self, content: str) -> str:
        question = "?" in content
        if _WHO.search(content) and not self._known:
            return self._who(content)
        outputs = {output for output in self._scenario.outputs if mentions(output, content)}
        if outputs - self._outputs:
            self._outputs |= outputs
            return self._next() if self._outputs == set(self._scenario.outputs) else MORE
        if _ELSE.search(content):
            return self._next()
        if question and _ASKED.search(content):
            return self._fact(content)
        if question:
            return "Yes."
        return MORE if _WAIT.search(content) else self._next()

    def _next(self) -> str:
        if self._asked == len(self._scenario.requests):
            return STOP
        self._asked += 1
        return self._scenario.requests[self._asked - 1]

    def _who(self, content: str) -> str:
        self._known = True
        identity = self._scenario.identity or NOBODY
        only_email = re.search(r"e-?mail", content, re.I) and not re.search(
            r"\bzip|\bname\b|user id", content, re.I
        )
        return f"{NO_EMAIL} {identity}" if only_email and "@" not in identity else identity

    def _fact(self, content: str) -> str:
        if _WHO.search(content):
            return self._who(content)
        for topic, names in _TOPICS:
            if topic.search(content):
                found = self._arguments(names)
                if found:
                    return ", ".join(found) + "."
        return self._scenario.requests[self._asked - 1] if self._asked else MORE

    def _arguments(self, names: tuple[str, ...]) -> list[str]:
        """Values of the task's own actions, each once."""
        values = [
            str(call.kwargs[name])
            for call in self._scenario.actions
            for name in names
            if call.kwargs.get(name)
        ]
        return list(dict.fromkeys(values))


# -- by a model

GREETING: Final = "Hello! How can I help you?"
BRIEF: Final = """\
You play a customer who talks with an agent of a company. This is you and what you want:

{instruction}

How to play:
- Say one short message at a time, in your own words, as this customer would.
- Tell only what is needed now, not everything at once.
- Know nothing but the above. Asked for something else, say that you do not know it.
- When you have what you want, or cannot have it, say {stop} and nothing more."""
_THOUGHT: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


def without_thoughts(words: str) -> str:
    """A model's reply as it is said."""
    return _THOUGHT.sub("", words).strip()


class Simulated:
    """A customer played by a model, which gets the task and does not see the tools."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._messages: list[Message] = []

    def open(self, scenario: Scenario) -> str:
        brief = BRIEF.format(instruction=scenario.instruction.strip(), stop=STOP)
        self._messages = [Message("system", brief)]
        return self.answer(GREETING)

    def answer(self, content: str) -> str:
        self._messages.append(Message("user", content))
        words = without_thoughts(self._reply(tuple(self._messages))) or MORE
        self._messages.append(Message("assistant", words))
        return words

    def key(self) -> Hashable:
        return tuple(message.content for message in self._messages[2:])


def check(user: str) -> None:
    """Refuse a customer that cannot be. Raises ValueError."""
    if user != "scripted" and user not in CUSTOMERS and ":" not in user:
        raise ValueError(
            f"there is no customer {user!r}{did_you_mean(user, ['scripted', *CUSTOMERS])}; there "
            f'are scripted, {", ".join(CUSTOMERS)}, and your own as "package.module:function"'
        )


def customer(user: str, options: Mapping[str, Any]) -> Customer:
    """A customer by name. A model is loaded once per process and shared by its episodes."""
    return Scripted() if user == "scripted" else Simulated(reply(user, options))


def reply(user: str, options: Mapping[str, Any]) -> Reply:
    """The model that plays a customer, by name."""
    return _reply(CUSTOMERS.get(user, user), json.dumps(options, sort_keys=True))


def _offered(path: str) -> Callable[[object], bool]:
    return lambda _: path in CUSTOMERS.values()


@cache
def _reply(path: str, options: str) -> Reply:
    module, _, name = path.partition(":")
    make = cast(
        Callable[..., Reply],
        named(module, name, where="env.options.user", what="a customer", declared=_offered(path)),
    )
    try:
        reply: Reply = make(**json.loads(options))
    except TypeError as error:
        raise ConfigError(f"env.options.user_options does not fit {path}: {error}") from error
    return reply
