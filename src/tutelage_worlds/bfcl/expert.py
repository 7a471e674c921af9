"""Experts of bfcl: the right calls, one after another or all at once."""

from collections.abc import Callable, Sequence

from tutelage_worlds.bfcl import package, wording
from tutelage_worlds.bfcl.scenario import Call, Scenario

Write = Callable[[Sequence[Call]], str]


def demonstrate(scenario: Scenario, write: Write) -> list[str]:
    """An answer for each call, so that what one returns is read before the next is made; several
    calls in one answer where a turn would have too many answers."""
    return _played(scenario, write, package.most_answers())


def plan(scenario: Scenario, write: Write) -> list[str]:
    """All calls of a turn in one answer."""
    return _played(scenario, write, 1)


def _played(scenario: Scenario, write: Write, answers: int) -> list[str]:
    """The actions of a task, with at most `answers` that make calls in each turn."""
    actions = []
    for k, turn in enumerate(scenario.turns):
        each = max(1, -(-len(turn.calls) // answers))
        actions += [write(turn.calls[i : i + each]) for i in range(0, len(turn.calls), each)]
        actions.append(_words(scenario, k))
    return actions


def _words(scenario: Scenario, turn: int) -> str:
    if scenario.turns[turn].calls:
        return wording.DONE
    later = scenario.turns[turn + 1 : turn + 2]
    if later and later[0].added:
        return wording.MISSING_FUNCTION
    return wording.MISSING_PARAMETER
