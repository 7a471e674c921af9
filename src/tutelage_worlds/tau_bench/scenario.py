"""A task of tau-bench: the customer's instruction, and the database if it is fulfilled."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tutelage_worlds.tau_bench.database import Database, Key, Store
from tutelage_worlds.tau_bench.tools import RESPOND, TRANSFER, Call, Tools, perform

_SENTENCE: Final = re.compile(r"(?<=[.!?]) +")
_PERSONA: Final = re.compile(r"You(?:'re| are) (?:very )?[a-z-]+(?:, [a-z-]+)*\.")
_REQUEST: Final = re.compile(
    r"(?<=[.;]) +(?=For #W|Return #W|Cancel order|Modify all|You (?:also )?want )"
)
_SWAPS: Final = {
    "you": "I",
    "you're": "I'm",
    "you've": "I've",
    "you'd": "I'd",
    "you'll": "I'll",
    "your": "my",
    "yours": "mine",
    "yourself": "myself",
    "you are": "I am",
    "you were": "I was",
}
_SWAP: Final = re.compile(
    r"\b(" + "|".join(sorted(_SWAPS, key=len, reverse=True)) + r")\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`identity` and `requests` are the instruction in the customer's mouth: who they are, and what
    they want, in order. `outputs` must be given to the customer."""

    id: str
    user_id: str
    instruction: str
    actions: tuple[Call, ...]
    outputs: tuple[str, ...] = ()
    identity: str = ""
    requests: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """What it changes: one tool's name, "several", or "tell" if nothing."""
        writes = {call.name for call in self.actions if _WRITES.match(call.name)}
        return next(iter(writes)) if len(writes) == 1 else "several" if writes else "tell"


_WRITES: Final = re.compile(r"book_|cancel_|exchange_|modify_|return_|send_|update_")


def first_person(text: str) -> str:
    """An instruction to a customer as that customer's words. Mechanical: grammar may suffer.

    >>> first_person("You want your money back.")
    'I want my money back.'
    """

    def swap(match: re.Match[str]) -> str:
        swapped = _SWAPS[match[0].lower()]
        return swapped[0].upper() + swapped[1:] if match[0][0].isupper() else swapped

    return _SWAP.sub(swap, text)


def facts(instruction: str) -> tuple[str, tuple[str, ...]]:
    """Who the customer is and what they ask for, from an instruction.

    The first sentence says who they are; a sentence of mere adjectives is left out; the rest is one
    request, or several where new ones begin as in tau-bench's synthetic tasks.

    >>> facts("Your name is Ann Lee. You are shy, calm. Return #W1: Lamp; Cancel order #W2. ")
    ('My name is Ann Lee.', ('Return #W1: Lamp;', 'Cancel order #W2.'))
    """
    identity, *rest = _SENTENCE.split(instruction.strip())
    wishes = " ".join(part for part in rest if not _PERSONA.fullmatch(part)).strip()
    requests = tuple(part.strip() for part in _REQUEST.split(wishes) if part.strip())
    return first_person(identity), tuple(map(first_person, requests))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A domain with its data: what all episodes share."""

    domain: str
    store: Store
    tools: Tools
    policy: str = ""  # empty where only our own words tell the rules
    splits: Mapping[str, Sequence[Scenario]] = field(default_factory=dict)
    goals: dict[str, dict[Key, str]] = field(default_factory=dict, repr=False)

    def goal(self, scenario: Scenario) -> dict[Key, str]:
        """The records that the task's own actions change, as they are then; computed once."""
        if scenario.id not in self.goals:
            data = Database(self.store)
            for call in scenario.actions:
                if call.name not in (RESPOND, TRANSFER):
                    perform(self.tools, data, call)
            self.goals[scenario.id] = data.changes()
        return self.goals[scenario.id]


def mentions(output: str, content: str) -> bool:
    """Whether a reply tells an output. tau-bench ignores case, and commas in the reply alone.

    >>> mentions("1204.5", "That is $1,204.50.")
    True
    """
    return output.lower() in content.lower().replace(",", "")
