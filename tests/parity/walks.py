"""Where the actions of a comparison come from: experts, dice, and people who type nonsense.

A source is asked for one command at a time and sees what a player sees: the commands admissible
now. Everything is seeded; the same seed, scene and answers give the same walk.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

Source = Iterator[str | None]
"""Sent the admissible commands, answers with the next command; None or exhaustion ends the walk."""

Choice = Callable[[Sequence[str]], str]

NAMES = ("expert", "random", "detours", "garbage", "tour", "errands")

_VERBS = (
    "go to",
    "open",
    "close",
    "take",
    "move",
    "put",
    "examine",
    "use",
    "heat",
    "clean",
    "cool",
    "slice",
)
_IDLE = ("look", "inventory", "help")
_STATIONS = ("fridge", "microwave", "sinkbasin", "lamp", "desk", "countertop")
_HABITS = (  # verbs, and how likely one of them is used where it can be
    (("heat ", "cool ", "clean ", "slice "), 0.5),
    (("use ",), 0.3),
    (("take ",), 0.6),
    (("examine ",), 0.3),
    (("open ",), 0.6),
    (("move ", "put "), 0.3),
    (("look",), 0.15),
    (("close ",), 0.1),
)
_UNKNOWN = (
    "kick",
    "eat",
    "turn on",
    "pick up",
    "drop",
    "throw",
    "toggle",
    "search",
    "wait",
    "undo",
    "quit",
    "restart",
)
_ODD = (
    "",
    " ",
    "\t\n",
    ".",
    "0",
    "None",
    "null",
    "go",
    "help me",
    "look around",
    "look at",
    "inventory 1",
    "Nothing happens.",
    "look; inventory",
    "look\ninventory",
    "look,inventory",
    "{o.name}",
    "#look.feedback#",
    "[{r.name}]",
    "(:goal (and))",
    "'; DROP TABLE receptacles; --",
    "\x00",
    "look\x00",
    "\ud800",
    "\N{ZERO WIDTH SPACE}look",
    "\N{NO-BREAK SPACE}look\N{NO-BREAK SPACE}",
    "\N{IDEOGRAPHIC SPACE}look",
    "\x1clook\x1f",
    "ｌｏｏｋ",
    "посмотреть",
    "看看周围",
    "انظر",
    "\N{FACE WITH TEARS OF JOY}",
    "e\N{COMBINING ACUTE ACCENT}" * 20,
    "look " * 2000,
    "go to " + "cabinet " * 5000,
)


def source(name: str, scene_actions: Sequence[str], seed: int, steps: int) -> Source:
    """The source called `name`; `scene_actions` is what an expert does in this scene, `steps` the
    longest walk.
    """
    rng = random.Random(f"{name}/{seed}")
    make = {
        "expert": lambda: _expert(scene_actions, rng, steps),
        "random": lambda: _always(lambda admissible: _deep(rng, admissible), steps),
        "detours": lambda: _detours(scene_actions, rng, steps),
        "garbage": lambda: _garbage(rng, steps),
        "tour": lambda: _tour(rng, steps),
        "errands": lambda: _errands(rng, steps),
    }
    walk = make[name]()
    next(walk)
    return walk


def _deep(rng: random.Random, admissible: Sequence[str]) -> str:
    """A random command, every verb equally likely: among 30 ways to walk away, the one "open" is
    found. Now and then a look around, which shows state that no other command does.
    """
    by_verb: dict[str, list[str]] = {}
    for command in admissible:
        by_verb.setdefault(command.split(" ", 1)[0], []).append(command)
    verbs = [verb for verb in sorted(by_verb) if verb not in _IDLE]
    dice = rng.random()
    if dice < 0.12 or not verbs:
        return rng.choice(("look", "look", "inventory"))
    if dice < 0.18:
        return rng.choice(sorted(admissible))
    return rng.choice(by_verb[rng.choice(verbs)])


def _always(choose: Choice, steps: int) -> Source:
    admissible = yield None
    for _ in range(steps):
        admissible = yield choose(admissible)


def _expert(actions: Sequence[str], rng: random.Random, steps: int) -> Source:
    """The expert to its end, then a few moves in the won game, which TextWorld goes on playing."""
    admissible = yield None
    for action in actions[:steps]:
        admissible = yield action
    for _ in range(min(6, steps - len(actions[:steps]))):
        admissible = yield _deep(rng, admissible)


def _detours(actions: Sequence[str], rng: random.Random, steps: int) -> Source:
    """The expert's actions in order, with random ones in between; those that no longer fit are
    tried all the same.
    """
    admissible = yield None
    ahead = list(actions)
    for _ in range(steps):
        if ahead and rng.random() < 0.6:
            admissible = yield ahead.pop(0)
        else:
            admissible = yield _deep(rng, admissible)


def _tour(rng: random.Random, steps: int) -> Source:
    """What was tried least so far, walking away only when nothing is left to try here."""
    admissible = yield None
    tried: Counter[str] = Counter()
    for _ in range(steps):
        ranks = {c: (tried[c], c.startswith("go to "), rng.random()) for c in sorted(admissible)}
        command = min(ranks, key=ranks.__getitem__)
        tried[command] += 1
        admissible = yield command


def _errands(rng: random.Random, steps: int) -> Source:
    """Carry things to where something can be done to them, do it, look at the outcome, put them
    down, often beside others of their kind."""
    admissible = yield None
    for _ in range(steps):
        admissible = yield _errand(rng, admissible)


def _errand(rng: random.Random, admissible: Sequence[str]) -> str:
    for verbs, chance in _HABITS:
        able = sorted(command for command in admissible if command.startswith(verbs))
        if able and rng.random() < chance:
            return rng.choice(able)
    ways = sorted(command for command in admissible if command.startswith("go to "))
    weights = [4 if any(name in way for name in _STATIONS) else 1 for way in ways]
    return rng.choices(ways, weights)[0] if ways else "look"


def _garbage(rng: random.Random, steps: int) -> Source:
    admissible = yield None
    known: dict[
        str, None
    ] = {}  # every command that was admissible somewhere, in the order first seen
    for _ in range(steps):
        known.update(dict.fromkeys(admissible))
        if rng.random() < 0.4:
            admissible = yield _deep(rng, admissible)
        else:
            admissible = yield _nonsense(rng, admissible, list(known))


def _nonsense(rng: random.Random, admissible: Sequence[str], known: Sequence[str]) -> str:
    command = _deep(rng, admissible)
    elsewhere = rng.choice(known)
    names = sorted({name for each in known for name in re.findall(r"[a-z]+ \d+", each)}) or [
        "apple 1"
    ]
    one, other = rng.choice(names), rng.choice(names)
    verb = rng.choice(_VERBS)
    kinds: list[Callable[[], str]] = [
        lambda: elsewhere,
        lambda: rng.choice(_ODD),
        lambda: rng.choice(("help", "look", "inventory")),
        lambda: f"{rng.choice(_UNKNOWN)} {one}",
        lambda: f"{verb} {one}",
        lambda: verb,
        lambda: verb + " ",
        lambda: f"examine {one}",
        lambda: f"open {one}",
        lambda: f"close {one}",
        lambda: f"use {one}",
        lambda: f"go to {one}",
        lambda: f"take {one} from {other}",
        lambda: (
            f"{rng.choice(('move', 'put'))} {one} {rng.choice(('to', 'in/on', 'in', 'on'))} {other}"
        ),
        lambda: f"{rng.choice(('heat', 'cool', 'clean', 'slice'))} {one} with {other}",
        lambda: _renumber(rng, rng.choice((command, elsewhere))),
        lambda: rng.choice(
            (command.upper(), command.title(), command.capitalize(), command.swapcase())
        ),
        lambda: command.replace(" ", rng.choice(("  ", "\t", "\N{NO-BREAK SPACE}", "_", "")), 1),
        lambda: rng.choice((" ", "\t", "\n", "  \r\n", "\N{EM SPACE}")) + command,
        lambda: command + rng.choice((" ", "\n\n", "\t ", "\x0b", "\N{EM SPACE}")),
        lambda: command + rng.choice((".", "!", ";", " now", " 1", '"', "1")),
        lambda: rng.choice(('"', "> ", "action: ", "please ", "- ")) + command,
        lambda: command.rsplit(" ", 1)[0],
        lambda: command[: rng.randrange(len(command) + 1)],
        lambda: (
            command.replace("take ", "take the ")
            .replace("go to ", "go to the ")
            .replace("open ", "open the ")
        ),
        lambda: "".join(rng.sample(command, len(command))),
        lambda: command + " " + command,
        lambda: "".join(chr(rng.randrange(32, 0x2FFF)) for _ in range(rng.randrange(1, 40))),
        lambda: command + " " * rng.choice((1, 10_000)) + rng.choice(("", "x")),
    ]
    return rng.choice(kinds)()


def _renumber(rng: random.Random, command: str) -> str:
    wrong = rng.choice(("0", "-1", "01", "1.0", "99", "one", "１", "", str(rng.randrange(1, 12))))
    spots = [match.span() for match in re.finditer(r"\d+", command)]
    if not spots:
        return command + " " + wrong
    start, end = rng.choice(spots)
    return command[:start] + wrong + command[end:]
