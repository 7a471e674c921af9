"""Experts of the telecom domain: the task's own steps, or a conversation worth imitating.

Both are for the customer by rules and are found by playing: what they return wins.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tutelage.errors import EnvError
from tutelage.types import Observation, Task
from tutelage_worlds.tau_bench.calls import write
from tutelage_worlds.tau_bench.env import TOOL_SAYS
from tutelage_worlds.tau_bench.expert import ELSE, MOST, Move
from tutelage_worlds.tau_bench.scenario import Scenario, World
from tutelage_worlds.tau_bench.telecom.env import TelecomEnv, own
from tutelage_worlds.tau_bench.telecom.episode import AGENT, TelecomScenario, TelecomWorld
from tutelage_worlds.tau_bench.telecom.user import ScriptedCaller
from tutelage_worlds.tau_bench.tools import RESPOND, TRANSFER, Call

NUMBER: Final = re.compile(r"\b\d{3}-\d{3}-\d{4}\b")
IDENTIFY: Final = "May I have your name and your phone number?"


@dataclass(slots=True)
class Talk:
    """A conversation under way."""

    world: TelecomWorld
    scenario: TelecomScenario
    env: TelecomEnv
    last: Observation
    transfer: bool
    moves: list[Move] = field(default_factory=list)

    @classmethod
    def begin(cls, world: World, scenario: Scenario, *, transfer: bool) -> "Talk":
        ours = own(world, scenario)
        env = TelecomEnv(lambda task: ours, ScriptedCaller(), transfer=transfer)
        first = env.reset(Task(id=scenario.id))
        return cls(world=ours[0], scenario=ours[1], env=env, last=first, transfer=transfer)

    def call(self, thought: str, name: str, **kwargs: Any) -> str:
        """Call a tool, or reply with `respond`; what comes back."""
        if self.last.done:
            return ""
        if len(self.moves) == MOST:
            raise EnvError(
                f"the task {self.scenario.id} is not over after {MOST} turns of its expert"
            )
        action = write(name, **kwargs)
        self.last = self.env.step(action)
        self.moves.append(Move(thought, action))
        return self.last.text

    def say(self, thought: str, content: str) -> str:
        return self.call(thought, RESPOND, content=content)

    def look(self, thought: str, name: str, **kwargs: Any) -> Any:
        """A record that a tool shows, or nothing for an error."""
        try:
            return json.loads(self.call(thought, name, **kwargs).removeprefix(TOOL_SAYS))
        except ValueError:
            return None

    def won(self) -> list[Move]:
        if not self.last.won:
            lacks = not self.transfer and any(
                step.call.name == TRANSFER for step in self.scenario.steps
            )
            raise EnvError(
                f"the task {self.scenario.id} cannot be won "
                + (
                    "without the tool that hands a customer over; set env.options.transfer = true"
                    if lacks
                    else "by its own actions; leave it out or fix its file"
                )
            )
        return self.moves


def _by_name(call: Call) -> str:
    """A step of the customer by its tool's name."""
    arguments = ", ".join(f"{key}={json.dumps(value)}" for key, value in call.kwargs.items())
    return f"Please use {call.name}({arguments})."


def _in_words(call: Call) -> str:
    """A step of the customer as the agent asks for it."""
    return _WORDS[call.name].format(**call.kwargs) if call.name in _WORDS else _by_name(call)


_WORDS: Final = {
    "toggle_airplane_mode": "Please turn airplane mode off.",
    "reseat_sim_card": "Please take the SIM card out and put it back in.",
    "toggle_data": "Please turn mobile data on.",
    "toggle_roaming": "Please turn data roaming on.",
    "toggle_data_saver_mode": "Please turn Data Saver off.",
    "toggle_wifi_calling": "Please turn Wi-Fi calling off.",
    "disconnect_vpn": "Please disconnect the VPN.",
    "set_network_mode_preference": "Please set the network mode to {mode}.",
    "reset_apn_settings": "Please reset the APN settings.",
    "reboot_device": "Please restart your phone.",
    "grant_app_permission": "Please grant the {app_name} app the {permission} permission.",
    "make_payment": "Please accept the payment request and pay the bill.",
}
_ASK: Final = {
    "toggle_airplane_mode": ("Is the phone in flight mode?", "What does your status bar show?"),
    "reseat_sim_card": ("The SIM card may be missing.", "Please check the SIM card."),
    "toggle_data": ("Mobile data may be off.", "Please check the network status."),
    "toggle_roaming": ("Abroad the phone must roam.", "Please check the network status."),
    "toggle_data_saver_mode": ("Data Saver makes data slow.", "Is Data Saver on?"),
    "toggle_wifi_calling": ("Wi-Fi calling is in the way of MMS.", "Is Wi-Fi calling on?"),
    "disconnect_vpn": ("A VPN may be slow.", "Please check the VPN."),
    "set_network_mode_preference": ("An old network is slow.", "Which network mode is set?"),
    "reset_apn_settings": ("The APN may be wrong.", "Please check the APN settings."),
    "grant_app_permission": (
        "The app may lack permissions.",
        "Which permissions does the {app_name} app have?",
    ),
    "make_payment": ("The customer must see the request.", "Please check your payment requests."),
}
"""Before a step of the customer: why, and what the agent asks."""


def plan(world: World, scenario: Scenario, *, transfer: bool = True) -> list[str]:
    """The shortest way: the task's own steps, those of the customer by the tools' names."""
    talk = Talk.begin(world, scenario, transfer=transfer)
    for step in talk.scenario.steps:
        if step.side == AGENT:
            talk.call("", step.call.name, **step.call.kwargs)
        else:
            talk.say("", _by_name(step.call))
    return [move.action for move in _finished(talk).won()]


def demonstrate(world: World, scenario: Scenario, *, transfer: bool = True) -> list[Move]:
    """A conversation by the rules: identify the customer, look up the line, let the customer look
    before anything is changed on the phone, and let them try it at the end. Which of the possible
    causes it is, the task's own steps tell.

    The customer's steps are asked for in words, which say on or off where a tool only toggles; if
    a task means it the other way, by the tools' names.
    """
    talk = _converse(Talk.begin(world, scenario, transfer=transfer), _in_words)
    if not talk.last.won:
        talk = _converse(Talk.begin(world, scenario, transfer=transfer), _by_name)
    return talk.won()


def _converse(talk: Talk, ask: Callable[[Call], str]) -> Talk:
    answer = talk.say("I do not know yet who this is.", IDENTIFY)
    _look_up(talk, answer)
    asked = ""
    for step in talk.scenario.steps:
        name, kwargs = step.call.name, dict(step.call.kwargs)
        if step.side == AGENT:
            _company(talk, name, kwargs)
            continue
        thought, question = _ASK.get(name, ("", ""))
        question = question.format(**kwargs)
        if question and question != asked:
            talk.say(thought, question)
            asked = question
        talk.say("The customer must do that on the phone.", ask(step.call))
    return _finished(talk)


def _look_up(talk: Talk, answer: str) -> None:
    number = NUMBER.search(answer)
    if number is None:
        return
    customer = talk.look("Look the customer up.", "get_customer_by_phone", phone_number=number[0])
    for id in customer["line_ids"] if customer else ():
        line = talk.look("Which line is it?", "get_details_by_id", id=id)
        if line and line["phone_number"] == number[0]:
            break


def _company(talk: Talk, name: str, kwargs: dict[str, Any]) -> None:
    """A step of the agent, with what should come before it."""
    owner = {k: v for k, v in kwargs.items() if k == "customer_id"}
    if name == "refuel_data":
        talk.call("Is the data used up?", "get_data_usage", **owner, line_id=kwargs["line_id"])
        amount = kwargs["gb_amount"]
        talk.say(
            "Data costs money, so I must ask.",
            f"Your data is used up. Shall I refuel {amount} GB, which your next bill is charged for?",
        )
    elif name == "enable_roaming":
        talk.say("Roaming matters only abroad.", "Are you abroad?")
    elif name == "send_payment_request":
        talk.call("Which bill is overdue?", "get_bills_for_customer", **owner)
        talk.say(
            "The customer must agree to pay.",
            f"The bill {kwargs['bill_id']} is overdue. May I send you a payment request for it?",
        )
    elif name == "resume_line":
        talk.call("Is the bill paid now?", "get_bills_for_customer", **owner)
    elif name == TRANSFER:
        talk.say("What is wrong with the phone?", "What does your status bar show?")
        talk.say("The SIM card may be locked.", "Please check the SIM card.")
        kwargs = {"summary": "The customer has no service, and no tool can bring it back."}
        talk.call("No tool helps here. A person must take over.", name, **kwargs)
        return
    talk.call("That is in our hands.", name, **kwargs)


def _finished(talk: Talk) -> Talk:
    """The end: the customer looks whether all is well, and says so or not."""
    talk.say("The customer may have more to ask.", ELSE)
    return talk
