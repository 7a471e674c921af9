"""The telecom customer, who acts on the phone: by rules, or played by a model.

By rules (`ScriptedCaller`), a message is answered in this order:

1. What it tells to do on the phone (see `words`) is done, and what the phone showed is reported.
2. Questions about who the customer is, where they are and what is wrong are answered from the
   task's own text.
3. Asked for consent, the customer agrees; but to no other plan, and to no other amount of data
   than the task names, where it forbids or names one.
4. "One moment, please" and the like are waited for.
5. Any other message counts as the end: the customer looks whether the trouble is over (signal in
   the status bar, excellent speed, or MMS, as the task says), and says STOP or what the phone shows.
"""

import re
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

from tutelage.types import Message
from tutelage_worlds.json_text import parse
from tutelage_worlds.tau_bench.customers import (
    GREETING,
    MORE,
    NOBODY,
    STOP,
    Reply,
    without_thoughts,
)
from tutelage_worlds.tau_bench.telecom.episode import TelecomScenario
from tutelage_worlds.tau_bench.telecom.phone import PHONE, Phone
from tutelage_worlds.tau_bench.telecom.words import Wanted, heard, wanted
from tutelage_worlds.tau_bench.tools import Call

Act = Callable[[Call], str]
"""Does a call on the phone; what the phone shows."""


class Caller(Protocol):
    """The customer of one episode at a time."""

    def open(self, scenario: TelecomScenario, phone: Phone, act: Act) -> str:
        """The first words of a conversation."""
        ...

    def answer(self, content: str) -> str:
        """The reply to the agent, after what it told to do; the last one contains STOP."""
        ...

    def key(self) -> Hashable:
        """Equal for conversations that continue alike."""
        ...


# -- by rules


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ASKS: Final = _re(r"\?|\bplease\b|\b(?:tell|give|provide|share|confirm|need|know|may)\b")
_WHO: Final = _re(
    r"\bname\b|phone number|\bnumber\b|\bidentity|\bidentify|who (?:are|am)\b|date of birth"
)
_WHERE: Final = _re(r"\babroad|\btravel|where are you|\blocation|\bcountry\b|\boutside\b")
_WRONG: Final = _re(r"what (?:is|seems|exactly|can)|describe|how (?:can|may) i help|more about the")
_PLAN: Final = _re(r"\b(?:change|changing|switch|upgrade|different|other|new|larger)\b.*\bplans?\b")
_REFUEL: Final = _re(
    r"\brefuel|\btop[- ]?up|\badd(?:ing)?\b.*\b(?:data|gb|gigabytes?)\b|\bdata\b.*\badd\b"
)
_AMOUNT: Final = _re(r"(\d+(?:\.\d+)?) ?(?:gb|gigabytes?)\b")
_HOW_MUCH: Final = _re(r"\bhow (?:much|many)\b|\bwhich amount\b|\bwhat amount\b")
_WAIT: Final = _re(
    r"\b(?:one moment|please wait|hold on|let me|i will|i'll|i am (?:going|checking|looking)|checking)\b"
)
_END: Final = _re(
    r"\b(?:else|further|resolved|solved|fixed|working|work now|goodbye|bye|glad|happy)\b"
)
_NO_PLAN: Final = _re(r"(?:do not|don't|not) want to change your (?:mobile )?(?:data )?plan")
_REFUELS: Final = _re(r"refuel (\d+(?:\.\d+)?) GB")
NOT_YET: Final = "It still does not work."
SOLVED: Final = "It works now. Thank you!"


class ScriptedCaller:
    """Answers by rules; see the head of the module. It draws nothing at random."""

    def open(self, scenario: TelecomScenario, phone: Phone, act: Act) -> str:
        self._scenario, self._phone, self._act = scenario, phone, act
        self._known = False
        return f"Hello! {' '.join(scenario.requests)}"

    def key(self) -> Hashable:
        return self._known

    def answer(self, content: str) -> str:
        content = heard(content)
        replies = [self._do(each) for each in wanted(content)]
        acted = bool(replies)
        replies += self._facts(content)
        if acted:
            # an agent may ask in the same message whether all is well
            done = bool(_END.search(content)) and self._well()
            return " ".join([*replies, *([SOLVED, STOP] if done else [])])
        if replies:
            return " ".join(replies)
        question = "?" in content
        if question and not _END.search(content):
            return self._consent(content)
        if not question and _WAIT.search(content):
            return MORE
        return self._end()

    def _do(self, each: Wanted) -> str:
        """Do it; a switch that is as it should be stays so."""
        if each.state is not None and self._phone.device[each.switch] == each.state:
            return f"That is {'on' if each.state else 'off'} already."
        return self._act(each.call)

    def _facts(self, content: str) -> list[str]:
        if not _ASKS.search(content):
            return []
        identity = self._scenario.identity or NOBODY
        if _WHO.search(content):
            self._known = True
            return [identity]
        if "?" in content and _WHERE.search(content):
            parts = re.split(r"(?<=\.) +", identity)
            return [next((part for part in parts if "currently" in part), NOBODY)]
        if "?" in content and _WRONG.search(content):
            return list(self._scenario.requests)
        return []

    def _consent(self, content: str) -> str:
        instruction = self._scenario.instruction
        limit = _REFUELS.search(instruction)
        if limit and _REFUEL.search(content):
            if _HOW_MUCH.search(content):
                return f"{limit[1]} GB."
            amounts = [float(amount) for amount in _AMOUNT.findall(content)]
            if amounts and float(limit[1]) not in amounts:
                return f"No, I want {limit[1]} GB."
            return f"Yes, {limit[1]} GB, please."
        if _PLAN.search(content) and _NO_PLAN.search(instruction):
            return "No, I do not want to change my plan."
        return "Yes."

    def _goal(self) -> tuple[str, Callable[[Phone], bool]]:
        """What the customer looks at to know whether the trouble is over."""
        story = f"{self._scenario.instruction} {' '.join(self._scenario.requests)}".lower()
        if "excellent" in story:
            return "run_speed_test", lambda phone: phone.speed()[1] == "excellent"
        if "send mms" in story or "mms message" in " ".join(self._scenario.requests).lower():
            return "can_send_mms", Phone.sends_mms
        return "check_status_bar", Phone.has_signal

    def _well(self) -> bool:
        return self._goal()[1](self._phone)

    def _end(self) -> str:
        shown = self._act(Call(name=self._goal()[0], kwargs={}))
        return f"{shown} {SOLVED} {STOP}" if self._well() else f"{shown} {NOT_YET}"


# -- by a model

MOST: Final = 10
"""Actions on the phone after which a model must have said something to the agent."""
BRIEF: Final = """\
You play a customer who calls a telephone company about their phone. This is you and what you want:

{instruction}

You have the phone at hand. To do something on it or to look at it, write one JSON object and nothing
else, such as {{"name": "check_status_bar", "arguments": {{}}}}; the phone answers, and you go on. It can:

{tools}

How to play:
- Do what the agent tells you to do on the phone, and tell the agent what the phone showed.
- Say of the phone only what it showed you.
- Say one short message at a time, in your own words, as this customer would.
- Tell only what is needed now. Know nothing but the above.
- When you have what you want, or cannot have it, say {stop} and nothing more."""


class SimulatedCaller:
    """A customer played by a model, which calls the phone's tools by JSON in its own replies."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._messages: list[Message] = []

    def open(self, scenario: TelecomScenario, phone: Phone, act: Act) -> str:
        tools = "\n".join(PHONE[name].line() for name in sorted(PHONE))
        brief = BRIEF.format(instruction=scenario.instruction.strip(), tools=tools, stop=STOP)
        self._act = act
        self._messages = [Message("system", brief)]
        return self.answer(GREETING)

    def answer(self, content: str) -> str:
        self._messages.append(Message("user", content))
        for _ in range(MOST):
            words = self._words()
            call = _call(words)
            if call is None:
                return words
            self._messages.append(Message("user", f"The phone: {self._act(call)}"))
        return MORE

    def _words(self) -> str:
        words = without_thoughts(self._reply(tuple(self._messages))) or MORE
        self._messages.append(Message("assistant", words))
        return words

    def key(self) -> Hashable:
        return tuple(message.content for message in self._messages[2:])


def _call(words: str) -> Call | None:
    """A call on the phone, if a reply is one, perhaps in a fence of code."""
    text = re.sub(r"\A```(?:json)?\s*|\s*```\Z", "", words.strip())
    try:
        value: Any = parse(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return Call(name=value["name"], kwargs=arguments) if isinstance(arguments, dict) else None
