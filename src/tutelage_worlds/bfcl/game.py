"""APIs in which calls are made, and the benchmark's judgement of them after each turn of the user."""

import copy
import decimal
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import blake2b
from typing import Any, Final

from tutelage_worlds.bfcl import package
from tutelage_worlds.bfcl.scenario import Call, Scenario, Turn, result_text

BITS: Final = 100_000
"""Size of a power, above which the benchmark would not finish."""
DIGITS: Final = 10_000
"""Digits of precision, or places to round to, that a function of mathematics may be asked for."""
_SET: Final = re.compile(r"\{('[^{}:']*'(?:, '[^{}:']*')+)\}")


class Apis:
    """The APIs of one task, with what was done to them."""

    def __init__(self, scenario: Scenario) -> None:
        self.instances = {
            name: package.start(name, scenario.start.get(name, {}), long=scenario.long)
            for name in scenario.apis
        }
        self.owners = {
            function["name"]: name
            for name in scenario.apis
            for function in package.functions()[name]
        }

    def make(self, call: Call) -> str:
        """The text that a call returns; what it raises is a text too, as in the benchmark."""
        owner = self.owners.get(call.name)
        if owner is None:
            return f"Error during execution: name '{call.name}' is not defined"
        if problem := endless(call):
            return f"Error during execution: {problem}"
        given = {**package.fresh_defaults(call.name)}
        try:
            for key, value in call.arguments.items():
                given[key] = copy.deepcopy(value) if isinstance(value, list | dict) else value
            with own_precision() if owner in package.STATELESS else nullcontext():
                return in_order(result_text(getattr(self.instances[owner], call.name)(**given)))
        except Exception as error:  # whatever a simulated API does with strange arguments
            return f"Error during execution: {error}"

    def mark(self) -> str:
        """A short name for the state."""
        found = blake2b(digest_size=8)
        for name, instance in self.instances.items():
            found.update(
                repr((name, sorted(_visible(instance).items()))).encode("utf-8", "replace")
            )
        return found.hexdigest()


def _visible(instance: object) -> dict[str, str]:
    """The attributes that the checker compares, and the folder that a file system is in."""
    shown = {key: value for key, value in vars(instance).items() if not key.startswith("_")}
    if hasattr(instance, "_current_dir"):
        place, path = instance._current_dir, list[str]()
        while place is not None and len(path) < 100:
            path.append(place.name)
            place = place.parent
        shown["_current_dir"] = path
    try:
        return {key: repr(value) for key, value in shown.items()}
    except RecursionError:  # a folder that was copied into itself
        return {"": "endless"}


@contextmanager
def own_precision() -> Iterator[None]:
    """Two functions set the precision of all arithmetic; here, of their own only."""
    mp = package.module("mpmath").mp
    digits = mp.dps
    with decimal.localcontext():
        try:
            yield
        finally:
            mp.dps = digits


def endless(call: Call) -> str:
    """Why a call is not made: it would take forever, or all memory; "" for any other.

    >>> endless(Call(name="power", arguments={"base": 9, "exponent": 10**9}))
    'the result would be too large'
    """
    given = call.arguments
    if call.name == "power":
        base, exponent = given.get("base"), given.get("exponent")
        whole = isinstance(base, int) and isinstance(exponent, int)
        if whole and exponent > 0 and exponent * math.log2(abs(base) + 2) > BITS:  # type: ignore[operator,arg-type]
            return "the result would be too large"
    if _size(given.get("precision")) > DIGITS:
        return "the precision is too high"
    # Python rounds a whole number to -n places with the power 10**n
    if _size(given.get("decimal_places")) > DIGITS:
        return "there are too many decimal places"
    return ""


def _size(value: object) -> float:
    """The size of a number, which may be in quotes; 0 for anything else."""
    try:
        return abs(float(value)) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0.0
    except OverflowError:
        return math.inf


def in_order(text: str) -> str:
    """Sets of texts in a message, sorted: their order differs from process to process.

    >>> in_order("Must be one of {'first', 'economy'}")
    "Must be one of {'economy', 'first'}"
    """
    return _SET.sub(lambda m: f"{{{', '.join(sorted(m[1].split(', ')))}}}", text)


class Game:
    """A task while it is played.

    The verdict is that of the benchmark's `multi_turn_checker`: after each turn of the user in which
    calls were right, the APIs must be as the right calls leave them, and what the right calls of the
    turn return must be among what all calls so far returned.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.apis, self._gold = Apis(scenario), Apis(scenario)
        self.turn = 0  # of the user
        self.right = 0  # turns until the first that was judged wrong
        self.wrong = ""  # why, as the benchmark names it
        self.answers = 0  # with calls, in this turn
        self._called = False
        self._results: list[str] = []

    @property
    def over(self) -> bool:
        return self.turn >= len(self.scenario.turns)

    @property
    def now(self) -> Turn:
        return self.scenario.turns[self.turn]

    def offered(self) -> frozenset[str]:
        """The functions that the agent knows of."""
        added = {name for turn in self.scenario.turns[: self.turn + 1] for name in turn.added}
        held = self.scenario.held - added
        return frozenset(name for name in self.apis.owners if name not in held)

    def make(self, calls: Sequence[Call]) -> list[str]:
        """Make the calls of one answer."""
        found = [self.apis.make(call) for call in calls]
        self._results += found
        self._called = self._called or bool(calls)
        self.answers += 1
        return found

    def finish_turn(self) -> None:
        """The turn of the user is over: judge it, and go on to the next."""
        gold = [self._gold.make(call) for call in self.now.calls]
        if not self.wrong:
            self.wrong = self._judge(gold)
        if not self.wrong:
            self.right += 1
        self.turn += 1
        self.answers, self._called = 0, False

    def _judge(self, gold: list[str]) -> str:
        """What is wrong with the turn: a kind of error of the benchmark; "" for nothing."""
        if not self.now.calls:
            return ""
        if not self._called:
            return "empty_turn_model_response"
        try:
            same = package.state_checker(self.apis.instances, self._gold.instances)
        except RecursionError:
            return "instance_state_mismatch"
        for found in (same, package.response_checker(self._results, gold, self.turn)):
            if not found["valid"]:
                return str(found["error_type"]).removeprefix("multi_turn:")
        return ""


def judge(scenario: Scenario, answers: Sequence[Sequence[Sequence[Call]]]) -> str:
    """What is wrong with the answers of all turns; "" if they solve the task.

    answers  of each turn of the user, the answers with calls, each of which makes some
    """
    game = Game(scenario)
    for turn in answers:
        for calls in turn:
            game.make(calls)
        game.finish_turn()
    return game.wrong if game.over else "force_terminated"


def without_descriptions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with types alone."""
    return {
        key: without_descriptions(value) if isinstance(value, Mapping) else value
        for key, value in schema.items()
        if key != "description" or isinstance(value, Mapping)
    }
