"""The other side of the comparison: one game file, played by TextWorld.

TextWorld's PDDL engine (pip: textworld, fast-downward-textworld) does the work; this module loads a
file into it, names the objects as ALFWorld does, and offers one move at a time. Two ways to run it:
as it comes, or inside `cached()`, which remembers TextWorld's pure functions and changes nothing
else; tests/parity/test_reference.py compares the two.
"""

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple, TypeVar
from unittest import mock

T = TypeVar("T")

PACKAGES = ("textworld", "fast-downward-textworld", "tatsu", "alfworld")
_SIGNS = (("_bar_", "|"), ("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ","))


class Shown(NamedTuple):
    """What a player is shown: the text, the admissible commands in order, whether the goal holds,
    and what the move earned and ended (0 and False after a reset: there was no move).
    """

    text: str
    admissible: tuple[str, ...]
    won: bool
    reward: int
    done: bool


def missing() -> str:
    """Why TextWorld cannot be compared with here, or "" if it can."""
    for module in ("textworld", "fast_downward"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'textworld[pddl]==1.7.0'"
    try:
        distribution("alfworld")
    except PackageNotFoundError:
        return (
            "alfworld, which has the rules, is not installed: pip install --no-deps alfworld==0.4.2"
        )
    if sys.version_info >= (3, 13):
        return "TextWorld 1.7.0 fails on Python 3.13 (PEP 667): run this with Python 3.11 or 3.12"
    return ""


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the comparison rests on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    return found | {name: distribution(name).version for name in PACKAGES}


@lru_cache(maxsize=1)
def find_domain() -> tuple[str, str]:
    """The rules (alfred.pddl) and the wording (alfred.twl2) in the installed alfworld package.

    They are located through the package's metadata: importing alfworld would create a cache folder
    in the user's home.
    """
    alfworld = distribution("alfworld")
    found = [
        Path(str(alfworld.locate_file(f"alfworld/data/{name}")))
        for name in ("alfred.pddl", "alfred.twl2")
    ]
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: reinstall alfworld {alfworld.version}")
    domain, grammar = (path.read_text(encoding="utf-8") for path in found)
    return domain, grammar


def shown_names(ids: Iterable[str]) -> dict[str, str]:
    """The name that a player sees for each mangled id, by ALFWorld's rule.

    What stands before the first "_bar_" is the kind ("basin" is added if the id has it anywhere).
    Of n ids of one kind the first in alphabetical order is number n and the last is number 1. Other
    ids keep their text and a blank.
    """
    kinds = {}
    for id in sorted(set(ids)):
        kind, bar, _ = id.partition("_bar_")
        kinds[id] = (kind + "basin" if "basin" in id else kind) if bar else ""
    left = Counter(kinds.values())
    names = {}
    for id, kind in kinds.items():
        text = kind or id
        for word, sign in _SIGNS:
            text = text.replace(word, sign)
        names[id] = f"{text} {left[kind] if kind else ''}"
        left[kind] -= 1
    return names


class ReferenceGame:
    """A game in TextWorld. Not thread-safe; several may live in one process."""

    def __init__(self, path: str | Path) -> None:
        from textworld import EnvInfos
        from textworld.envs.pddl.pddl import PddlEnv

        self._env = PddlEnv(EnvInfos(feedback=True, admissible_commands=True, won=True))
        self._env.load(str(path))
        entities = self._env._entity_infos
        for id, name in shown_names(entities).items():
            entities[id].name = name

    def reset(self) -> Shown:
        state = self._env.reset()
        return Shown(
            state.feedback, tuple(state["admissible_commands"]), bool(state["won"]), 0, False
        )

    def step(self, command: str) -> Shown:
        state, reward, done = self._env.step(command)
        won = bool(state["won"])
        return Shown(
            state.feedback, tuple(state["admissible_commands"]), won, int(reward), bool(done)
        )

    def close(self) -> None:
        """Free the planner's memory; the game cannot be played afterwards.

        The library itself stays in the process, some 2 MB for each game: unloading several of them,
        as `fast_downward.close_lib` does, makes Python crash when it exits.
        """
        self._env.downward_lib.cleanup()


@contextmanager
def cached() -> Iterator[None]:
    """Make TextWorld several times faster without a change to what it says.

    Three of its functions depend on their arguments alone and are called with the same ones again
    and again: the parser of text templates, the parser of conditions, and the translation of a
    problem for the planner. Their answers are remembered; those that callers alter are handed out
    as copies.
    """
    import fast_downward
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    with (
        mock.patch.object(
            textgen, "_parse_and_convert", _remember(textgen._parse_and_convert, 4096, deepcopy)
        ),
        mock.patch.object(
            Rule,
            "parse_conjunctive_query",
            _remember(Rule.parse_conjunctive_query, 4096, lambda rule: rule),
        ),
        mock.patch.object(
            fast_downward, "pddl2sas", _remember(fast_downward.pddl2sas, 2, lambda pair: pair)
        ),
    ):
        yield


def _remember(
    function: Callable[..., T], size: int, hand_out: Callable[[T], T]
) -> Callable[..., T]:
    known = lru_cache(maxsize=size)(function)
    return lambda *args, **kwargs: hand_out(known(*args, **kwargs))
