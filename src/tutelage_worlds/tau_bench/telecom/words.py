"""What the agent's words tell the customer to do on the phone, found by rules.

A message is read sentence by sentence, and a sentence part by part (parts end at commas, "and",
"then", "so that"); only its first 4,000 characters count. A part counts as an instruction where it
has a thing (a switch, the SIM card, a test, ...) and a verb that fits it:

- a state for a switch ("turn X off", "disable X", "make sure that X is on"): the switch is flipped
  only if it is not in that state; "toggle X" flips it. "it" and "off again" mean the last thing.
- something to do: restart, reseat the SIM card, reset the APN, disconnect the VPN, set a network
  mode, grant a permission, pay.
- a look at it: "check X", "what does X show?", "is X on?", "run a speed test".

Names of the phone's tools ("toggle_airplane_mode", or with blanks) count as well, with the argument
(a network mode; an app and permissions) taken from the sentence. Parts with "do not", "instead of"
and the like, and what the agent says of itself ("I have ...", "shall I ...", "let me ..."), are no
instructions.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tutelage_worlds.tau_bench.telecom.phone import MODES, PERMISSIONS, PHONE
from tutelage_worlds.tau_bench.tools import Call


class Wanted(NamedTuple):
    """A call on the phone. With `state` a switch is flipped only where it is not so already."""

    call: Call
    state: bool | None = None
    switch: str = ""


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


SWITCHES: Final = {
    "airplane_mode": ("toggle_airplane_mode", "check_network_status"),
    "data_saver_mode": ("toggle_data_saver_mode", "check_data_restriction_status"),
    "roaming_enabled": ("toggle_roaming", "check_network_status"),
    "wifi_calling_enabled": ("toggle_wifi_calling", "check_wifi_calling_status"),
    "wifi_enabled": ("toggle_wifi", "check_wifi_status"),
    "data_enabled": ("toggle_data", "check_network_status"),
    "vpn_connected": ("", "check_vpn_status"),
}
"""By the device's field: what flips it, and what shows it."""
_THINGS: Final = (
    # the longer names first: each name is taken out of the text before the next is looked for
    ("airplane_mode", _re(r"(?:air|aero)plane[- ]?mode|flight[- ]?mode")),
    ("data_saver_mode", _re(r"data[- ]?saver(?:[- ]mode)?|data[- ]restrictions?(?: status)?")),
    ("roaming_enabled", _re(r"\b(?:data[- ])?roaming\b")),
    ("wifi_calling_enabled", _re(r"wi-?fi[- ]calling")),
    ("wifi_enabled", _re(r"\bwi-?fi\b")),
    ("vpn_connected", _re(r"\bvpn\b")),
    ("apn", _re(r"\bapn\b(?: settings)?|access point name|\bmmsc\b")),
    ("bar", _re(r"status bar|signal bars|top of (?:the|your) screen")),
    ("mode", _re(r"network[- ](?:mode|type)(?: preference)?|mode preference|preferred network")),
    ("network", _re(r"network status|network connection|cellular (?:status|connection)")),
    ("speed", _re(r"speed[- ]?test|(?:internet|data|connection) speed")),
    ("data_enabled", _re(r"\b(?:mobile|cellular) data\b")),
    ("sim", _re(r"\bsim\b(?:[- ]card)?")),
    ("mms", _re(r"\bmms\b|(?:picture|multimedia) messages?")),
    ("apps", _re(r"installed apps?|apps? (?:are )?installed|which apps")),
    ("request", _re(r"payment requests?")),
    ("bill", _re(r"\bbill\b|\bpayment\b|\bpay\b")),
    ("phone", _re(r"\b(?:phone|device)\b(?! number)")),
)
_SENTENCE: Final = _re(r"(?<=[.!?])\s+|\n+|;")
_PART: Final = _re(
    r",\s*(?:and\s+)?(?:then\s+)?|\s+and\s+then\s+|\s+and\s+|\s+then\s+|\s+so\s+that\s+|:\s+"
)
_NOT: Final = _re(
    r"\b(?:do not|don't|never|no need|not need|without|instead of|rather than|avoid|cannot|can't)\b"
)
_OWN: Final = _re(r"\b(?:i|we|i'll|i've|i'm|i'd|we'll|we've)\b|\blet me\b(?! know)|\bme to\b")
_YOU_TO: Final = _re(r"\byou to\b|\bask you\b|\b(?:could|can|would) you\b")
_ON: Final = _re(
    r"\b(?:turn|switch|set|put|toggle|flip|make sure|ensure|get|bring)\b.*\b(?:on|enabled)\b"
    r"|\b(?:re-?)?(?:enable|activate)\b"
)
_OFF: Final = _re(
    r"\b(?:turn|switch|set|put|toggle|flip|make sure|ensure|get)\b.*\b(?:off|disabled)\b"
    r"|\b(?:disable|deactivate|leave|exit)\b"
)
_BARE_ON, _BARE_OFF = _re(r"^(?:back )?on\b"), _re(r"^(?:back )?off\b")
_FLIP: Final = _re(r"\b(?:toggle|flip)\b")
_LOOK: Final = _re(
    r"\b(?:check|look|see|show|shows|tell|verify|confirm|open|report|read|run|try|test|perform|do"
    r"|what|which|how|whether|is|are|does|can|has|send|review|inspect)\b"
)
_IF: Final = _re(r"^(?:if|when|once|after|because|since|as|in case|unless|should)\b")
_IT: Final = _re(r"\b(?:it|that|this|them|those)\b")
_REBOOT: Final = _re(r"\b(?:reboot|restart|power[- ]?cycle|re-start)\b")
_OFF_AND_ON: Final = _re(
    r"\b(?:turn|switch|power)\b(?: (?:your|the))? ?(?:off )?(?:your |the )?(?:phone|device)"
    r"(?: off)? and (?:then )?(?:back )?on\b"
)
_RESEAT: Final = _re(r"re-?seat|re-?insert|\bremove\b|take .*\bout\b|\beject\b|put .*\bback\b")
_RESET: Final = _re(r"\b(?:reset|restore)\b")
_DISCONNECT: Final = _re(r"\bdisconnect")
_CONNECT: Final = _re(r"\b(?:re-?)?connect\b")
_PAY: Final = _re(r"\b(?:pay|accept|approve|complete|make|settle)\b")
_SET: Final = _re(r"\b(?:set|change|switch|select|choose|use|put|go)\b")
_GRANT: Final = _re(r"\b(?:grant|allow|give|enable|add|turn on|switch on)\b")
_PERMISSION: Final = _re(r"\b(?:permissions?|access)\b|\bgrant\b|\ballow\b")
_MODES: Final = (
    (MODES[1], _re(r"\b(?:4g|lte)[- _]only\b|\bonly (?:4g|lte)\b")),
    (MODES[2], _re(r"\b3g[- _]only\b|\bonly 3g\b")),
    (MODES[3], _re(r"\b2g[- _]only\b|\bonly 2g\b")),
    (MODES[0], _re(r"4g_5g_preferred|\b5g\b")),
)
_TOOL: Final = _re(
    r"\b("
    + "|".join(
        name.replace("_", "[ _]") for name in sorted(PHONE, key=lambda name: (-len(name), name))
    )
    + r")\b(?:\(([^()]*)\))?"
)


LONGEST: Final = 4_000
"""Characters of a message that the customer listens to: the rules take time that grows faster than
the text."""
_BLANKS: Final = re.compile(r"[^\S\n]+")


def heard(content: str) -> str:
    """The beginning of a message, with single blanks and without marks of emphasis and code."""
    return _BLANKS.sub(" ", content[: 4 * LONGEST]).replace("`", "").replace("*", "")[:LONGEST]


def wanted(content: str) -> list[Wanted]:
    """What to do on the phone, in the order in which a message says it, each once.

    >>> [(w.call.name, w.state) for w in wanted("Please turn airplane mode off. Then restart.")]
    [('toggle_airplane_mode', False), ('reboot_device', None)]
    """
    found: list[Wanted] = []
    last = ""
    for sentence in _SENTENCE.split(heard(content)):
        rest = sentence.strip()
        if not rest:
            continue
        named, rest = _by_tools(rest)
        found += named
        parts, last = _by_words(rest, last)
        found += parts
    return list({(w.call.name, str(w.call.kwargs), w.state): w for w in found}.values())


def _by_tools(sentence: str) -> tuple[list[Wanted], str]:
    """What a sentence names by a tool's name, and the rest of it."""
    found = []
    for match in _TOOL.finditer(sentence):
        before = _PART.split(sentence[: match.start()])[-1]
        if _NOT.search(before) or (_OWN.search(before) and not _YOU_TO.search(before)):
            continue
        name = match[1].lower().replace(" ", "_")
        found += _call(name, f"{match[2] or ''} {sentence}")
    return found, _TOOL.sub(" ", sentence) if found else sentence


def _call(name: str, text: str) -> list[Wanted]:
    """A tool by its name, with arguments from a text; none where they are not in it."""
    if name == "set_network_mode_preference":
        mode = _mode(text)
        return [_do(name, mode=mode)] if mode else []
    if name == "grant_app_permission":
        return [_do(name, app_name=_app(text), permission=p) for p in _permissions(text)]
    if name in ("check_app_status", "check_app_permissions"):
        return [_do(name, app_name=_app(text))]
    if name == "set_apn_settings":
        return []  # no one enters an object that is told in words
    for switch, (flip, _) in SWITCHES.items():
        if name == flip and (state := _state(text)) is not None:
            return [Wanted(Call(name=flip, kwargs={}), state, switch)]
    return [_do(name)]


def _do(name: str, **kwargs: str) -> Wanted:
    return Wanted(Call(name=name, kwargs=kwargs))


def _mode(text: str) -> str:
    return next((mode for mode, pattern in _MODES if pattern.search(text)), "")


def _app(text: str) -> str:
    return "browser" if re.search(r"\bbrowser\b", text, re.I) else "messaging"


def _permissions(text: str) -> list[str]:
    """Those that are named, in the order of the text."""
    places = {p: m.start() for p in PERMISSIONS if (m := re.search(rf"\b{p}\b", text, re.I))}
    return sorted(places, key=lambda name: places[name])


def _state(text: str) -> bool | None:
    """Whether something is to be on or off, if either."""
    if re.search(r"\b(?:off|disabled?|deactivate)\b", text, re.I):
        return False
    return True if re.search(r"\b(?:on|enabled?|activate)\b", text, re.I) else None


def _by_words(sentence: str, last: str) -> tuple[list[Wanted], str]:
    """What a sentence says in words, and the last thing that it speaks of."""
    question = sentence.rstrip().endswith("?")
    if _PERMISSION.search(sentence) and _spoken(sentence):
        granted = _permissions(sentence) if _GRANT.search(sentence) else []
        if granted and not (question and re.search(r"\b(?:does|is|has)\b", sentence, re.I)):
            app = _app(sentence)
            return [_do("grant_app_permission", app_name=app, permission=p) for p in granted], last
        if re.search(r"\bapp\b|permission", sentence, re.I) and _LOOK.search(sentence):
            return [_do("check_app_permissions", app_name=_app(sentence))], last
    if _OFF_AND_ON.search(sentence) and _spoken(sentence):
        return [_do("reboot_device")], last
    found: list[Wanted] = []
    verb = ""
    for part in _PART.split(sentence):
        part = part.strip(" .!?\"'()")
        things = list(_things(part))
        if not part or not _spoken(part):
            last = things[-1] if things else last
            continue
        if _REBOOT.search(part):
            found.append(_do("reboot_device"))
            continue
        if (not things and last and (_IT.search(part) or _BARE_ON.match(part))) or (
            not things and last and _BARE_OFF.match(part)
        ):
            things = [last]
        # "turn off data saver and the VPN": a part of a name only goes on with the verb
        text = f"{verb} {part}" if verb and len(part.split()) <= 4 and _bare(part) else part
        for thing in things:
            found += _about(thing, text, question)
            last = thing
        if things:
            verb = next((v for v in ("turn off", "turn on") if _is_verb(v, text)), "")
    return found, last


def _is_verb(verb: str, text: str) -> bool:
    return bool((_OFF if verb == "turn off" else _ON).search(text))


def _bare(part: str) -> bool:
    """Whether a part has no verb of its own."""
    verbs = (_ON, _OFF, _FLIP, _LOOK, _RESEAT, _RESET, _CONNECT, _DISCONNECT, _PAY, _SET, _IF)
    return not any(pattern.search(part) for pattern in verbs)


def _spoken(part: str) -> bool:
    """Whether a part can be an instruction to the customer."""
    if _NOT.search(part):
        return False
    return not _OWN.search(part) or bool(_YOU_TO.search(part))


def _things(part: str) -> Iterator[str]:
    """What a part speaks of, in its order."""
    places = {}
    for name, pattern in _THINGS:
        if match := pattern.search(part):
            places[name] = match.start()
            part = pattern.sub(lambda m: "_" * len(m[0]), part)
    if len(places) > 1:
        places.pop("phone", None)
    return iter(sorted(places, key=lambda name: places[name]))


def _about(thing: str, part: str, question: bool) -> list[Wanted]:
    """What a part says about a thing."""
    looks = bool(question or _LOOK.search(part)) and not _IF.match(part)
    if thing in SWITCHES:
        return _switch(thing, part, looks)
    if thing == "mode" or (thing == "phone" and _mode(part)):
        if _mode(part) and _SET.search(part):
            return [_do("set_network_mode_preference", mode=_mode(part))]
        return [_do("check_network_mode_preference")] if looks and thing == "mode" else []
    if thing == "sim":
        if _RESEAT.search(part):
            return [_do("reseat_sim_card")]
        return [_do("check_sim_status")] if looks else []
    if thing == "apn":
        if _RESET.search(part):
            return [_do("reset_apn_settings")]
        return [_do("check_apn_settings")] if looks else []
    if thing == "request":
        if re.search(r"\b(?:check|see|look|open|view)\b", part, re.I):
            return [_do("check_payment_request")]
        return [_do("make_payment")] if _PAY.search(part) else []
    if thing == "bill":
        return [_do("make_payment")] if _PAY.search(part) and not question else []
    name = _LOOKS.get(thing)
    return [_do(name)] if name and looks else []


_LOOKS: Final = {
    "bar": "check_status_bar",
    "network": "check_network_status",
    "speed": "run_speed_test",
    "mms": "can_send_mms",
    "apps": "check_installed_apps",
}


def _switch(thing: str, part: str, looks: bool) -> list[Wanted]:
    flip, show = SWITCHES[thing]
    off = bool(_OFF.search(part) or _BARE_OFF.match(part))
    on = not off and bool(_ON.search(part) or _BARE_ON.match(part))
    if thing == "vpn_connected":
        if off or _DISCONNECT.search(part):
            return [_do("disconnect_vpn")]
        if on or (_CONNECT.search(part) and not looks):
            return [_do("connect_vpn")]
    elif on or off:
        return [Wanted(Call(name=flip, kwargs={}), on, thing)]
    elif _FLIP.search(part):
        return [_do(flip)]
    return [_do(show)] if looks else []
