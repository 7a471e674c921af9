"""Read the rules and the grammar of a game file, as far as household games need them.

The engine fixes what happens and which sentence is said when; a file's grammar (TextWorld's `twl2`
format) fixes the sentence. What the engine does not know in a domain or a grammar is refused, never
guessed at.
"""

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from string import Formatter
from typing import Final

from tutelage_worlds.household.wording import DEFAULT, Wording
from tutelage_worlds.json_text import parse

_BLOCK = re.compile(r'grammar\s*::\s*"""(.*?)"""\s*;', re.DOTALL)
_ACTION = re.compile(
    r'action\s+(\w+)\s*\{\s*template\s*::\s*"([^"]*)"\s*;\s*feedback\s*::\s*"#([^"#]*)#"\s*;',
    re.DOTALL,
)
_NAME = re.compile(r"\{\s*(\w+)(?:\.name)?\s*\}")
_QUERY = re.compile(r"\[\{r\.name \| receptacleatlocation\(r:receptacle, lend:location\)\}\]")
_LIST = re.compile(r"\[\{o\.indefinite \+ ' ' \+ o\.name \| [^\]{}]*\}\]")
_PART = re.compile(r"#([\w.-]+)#")
_TASK = re.compile(r"Your task is to: (.*)\.", re.DOTALL)
_SIGNS: Final = ';|"<>[]{}#\0'
_LETTERS: Final = {"o": "o", "r": "r", "co": "o", "ko": "k", "lend": "l"}
_PARTS: Final = {"look.feedback": "look", "task": "task", "examineReceptacle.feedback": "seen"}

_COMMANDS: Final = {
    "GotoLocation": "go",
    "OpenObject": "open",
    "CloseObject": "close",
    "PickupObject": "take",
    "PutObject": "put",
    "HeatObject": "heat",
    "CleanObject": "clean",
    "CoolObject": "cool",
    "SliceObject": "slice",
    "ToggleObject": "use",
    "examineReceptacle": "examine_receptacle",
    "examineObject": "examine_object",
    "inventory": "inventory",
    "look": "look",
    "help": "help",
}
_ANSWERS: Final = {  # action or rule: (condition, field) in order
    "GotoLocation": (("", "arrived"),),
    "OpenObject": (("", "opened"),),
    "CloseObject": (("", "closed"),),
    "PickupObject": (("", "taken"),),
    "PutObject": (("", "placed"),),
    "HeatObject": (("", "heated"),),
    "CleanObject": (("", "cleaned"),),
    "CoolObject": (("", "cooled"),),
    "SliceObject": (("", "sliced"),),
    "help": (("", "helped"),),
    "inventory": (("holdsany(a:agent)", "carrying"), ("", "empty_handed")),
    "examineReceptacle": (
        ("openable(r:receptacle) & opened(r:receptacle)", "is_open"),
        ("openable(r:receptacle)", "is_closed"),
        ("", "surface"),
    ),
    "intro": (("", "intro"),),
}
_SHARED: Final = (
    "look-variations",
    "list_objects_on_the_floor",
    "list_appliances",
    "overview(o)",
    "overview(r)",
    "list_empty",
    "list_separator",
    "list_last_separator",
)
_RULES: Final = {  # digests of ALFWorld's rules, without comments, names in lower case
    "look": "52ab9e9a7b74942a",
    "inventory": "f8b3dfb4167d536a",
    "examinereceptacle": "541c8badd0991a5d",
    "examineobject": "edfc0b6ea7b25d0c",
    "gotolocation": "2d451793f2f9245f",
    "openobject": "fafd077430d00361",
    "closeobject": "c987ed48bc1711c9",
    "pickupobject": "5b717142944862d2",
    "putobject": "7d407abd5dbb0f15",
    "cleanobject": "cca625a96bbe0e26",
    "heatobject": "4cb3850fcf1864cd",
    "coolobject": "f512bc3e27491e49",
    "toggleobject": "627ed7652a41a93b",
    "sliceobject": "46961ec2c669e824",
    "help": "f8b3dfb4167d536a",
}
_FIXED: Final = {  # digests of the sentences that the engine knows in one wording only
    "examineObject.feedback": "c6982aa3a74e0140",
    "toggleObject.feedback": "e2cc15b59f7d23a5",
    "look.feedback": "b2df1bea4207e4c3",
    "look-variations": "1bb988a959149f37",
    "list_objects_on_the_floor": "008a5f08d14a9a1c",
    "list_appliances": "463408cebc9f5fe1",
    "overview(o)": "94359add82b2a65c",
    "overview(r)": "3ce34ccbfc39732e",
    "list_empty": "0205e11ae1771027",
    "list_separator": "100bb5d5372007cd",
    "list_last_separator": "72b997124e577297",
}
_SINKS: Final = {"sink": "Sink", "sinkbasin": "SinkBasin"}


class GrammarError(ValueError):
    """Rules or wording that the engine does not have."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The wording of a file and its task sentence."""

    wording: Wording
    task: str


Rules = dict[str, list[tuple[str, str]]]


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def load_domain(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The kinds of receptacle to clean things in, and the names of the actions.

    Raises GrammarError.
    """
    bare = re.sub(r";[^\n]*", "", text)
    if bare.count("(") != bare.count(")"):
        raise GrammarError("the brackets of its domain do not match, so it is cut off or damaged")
    actions: set[str] = set()
    sinks: frozenset[str] = frozenset()
    for body in re.split(r"\(\s*:action\b", bare)[1:]:
        tokens = re.findall(r"[()]|[^\s()]+", body.lower())
        name, rule = tokens[0], " ".join(tokens[1 : _end(tokens)])
        if name == "cleanobject":
            kinds = tuple(re.findall(r"receptacletype \?r (\w+)type", rule))
            sinks = frozenset(_SINKS.get(kind, kind) for kind in kinds)
            rule = re.sub(r"(\( receptacletype \?r \w+type \) ?)+", "", rule)
        if digest(rule) != _RULES.get(name):
            raise GrammarError(f"its domain has another rule for {tokens[0]} than ALFWorld's")
        actions.add(name)
    missing = _RULES.keys() - actions - {"help"}
    if missing:
        raise GrammarError(f"its domain has no rule for {', '.join(sorted(missing))}")
    return sinks, frozenset(actions)


def _end(tokens: list[str]) -> int:
    """Where the rule ends that these tokens begin with: the bracket that closes it."""
    depth = 1
    for i, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0:
            return i
    return len(tokens)


def load_grammar(text: str, actions: frozenset[str]) -> Grammar:
    """The wording of a grammar, for the actions that the domain has. Raises GrammarError."""
    rules = _rules(text)
    templates = {name: (template, answer) for name, template, answer in _ACTION.findall(text)}
    found: dict[str, str] = {"help": ""}
    for action, field in _COMMANDS.items():
        if action not in templates:
            if action.lower() in actions:
                raise GrammarError(f"its grammar has no words for {action}")
            continue
        if action.lower() not in actions:
            continue
        template, answer = templates[action]
        found[field] = _convert(_QUERY.sub("{r}", template), field)
        if action in _ANSWERS:
            found |= _answers(rules, answer, _ANSWERS[action])
        else:
            _check(rules, answer)
    for name in ("examineReceptacle.feedback", "intro"):
        found |= _answers(rules, name, _ANSWERS[name.removesuffix(".feedback")])
    for name in _SHARED:
        _check(rules, name)
    sentence = _only(rules, "task").lstrip()
    if signs := strange_signs(sentence):
        raise GrammarError(f"its task sentence has {signs!r}, which TextWorld cannot show")
    task = _TASK.fullmatch(sentence)
    if task is None:
        found["task"] = "{task}"
    return Grammar(replace(DEFAULT, **found), task[1] if task else sentence)


def _rules(text: str) -> Rules:
    rules: Rules = {}
    for block in _BLOCK.findall(text):
        lines = (line for line in block.split("\n") if not line.lstrip().startswith("#"))
        try:
            data = parse("\n".join(lines))
            for name, options in data.items():
                rules[name] = [_rule(option) for option in options]
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise GrammarError(
                f"a block of its grammar is not what TextWorld reads ({error})"
            ) from error
    return rules


def _rule(option: dict[str, str]) -> tuple[str, str]:
    condition, says = option.get("condition", ""), option["rhs"]
    if not isinstance(condition, str) or not isinstance(says, str):
        raise TypeError("a rule is made of texts")
    return condition, says


def _only(rules: Rules, name: str) -> str:
    options = rules.get(name, [])
    if len(options) != 1 or options[0][0]:
        raise GrammarError(f"its grammar should have one rule {name!r} without a condition")
    return options[0][1]


def _answers(rules: Rules, name: str, wanted: tuple[tuple[str, str], ...]) -> dict[str, str]:
    options = rules.get(name, [])
    if tuple(condition for condition, _ in options) != tuple(condition for condition, _ in wanted):
        raise GrammarError(f"its grammar has another rule {name!r} than ALFWorld's")
    return {
        field: _convert(says, field) for (_, field), (_, says) in zip(wanted, options, strict=True)
    }


def _check(rules: Rules, name: str) -> None:
    if digest(repr(rules.get(name, []))) != _FIXED.get(name):
        raise GrammarError(f"its grammar has another rule {name!r} than ALFWorld's")


def _convert(text: str, field: str) -> str:
    """A sentence of the grammar as the format string of a field of `Wording`."""
    known = {names for _, names, _, _ in Formatter().parse(getattr(DEFAULT, field)) if names}
    known |= {"l"} if field == "arrived" else set()
    marked = _LIST.sub("\0list\0", text.lstrip())  # TextWorld's parser skips blanks at the start
    marked = _NAME.sub(lambda match: f"\0{_LETTERS.get(match[1], '')}\0", marked)
    marked = _PART.sub(lambda match: f"\0{_PARTS.get(match[1], '')}\0", marked)
    plain, used = re.sub("\0[a-z]*\0", "", marked), set(re.findall("\0([a-z]*)\0", marked))
    if strange_signs(plain) or not used <= known:
        raise GrammarError(f"its grammar says for {field!r} what the engine cannot: {text!r}")
    return re.sub("\0([a-z]*)\0", r"{\1}", marked)


def strange_signs(sentence: str) -> str:
    """The signs of a sentence that TextWorld's grammar gives a meaning of their own."""
    return "".join(sign for sign in _SIGNS if sign in sentence)
