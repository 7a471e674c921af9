"""What the environment's expert says, turn by turn: to be imitated, or gone on from."""

from collections.abc import Sequence

from tutelage.envs.base import (
    Demonstrates,
    Plans,
    PlansAloud,
    ScriptKind,
    Strays,
    Suite,
    Thinks,
    suite_name,
)
from tutelage.errors import ConfigError
from tutelage.prompts import answer_format
from tutelage.types import Task

ASTRAY = "astray"
"""Who takes a wrong turn, which nobody imitates."""


def script(
    suite: Suite, task: Task, *, aloud: bool, kind: ScriptKind = "trace", strays: bool = False
) -> list[tuple[str, bool]]:
    """The expert's turns in full, with its thoughts where it speaks `aloud`, and whether each is
    to be imitated; or those of the environment's plan, which knows everything; or either with wrong
    turns in it.

    Raises ConfigError where the suite has no expert, or its expert no thoughts.
    """
    if strays:
        return _stray(suite, task, aloud=aloud, kind=kind)
    return [(text, True) for text in _straight(suite, task, aloud=aloud, planned=kind == "plan")]


def _stray(suite: Suite, task: Task, *, aloud: bool, kind: ScriptKind) -> list[tuple[str, bool]]:
    if not isinstance(suite, Strays):
        raise ConfigError(
            f"imitating how wrong turns are mended needs an environment that shows it; "
            f"{suite_name(suite)} has no `stray` method: add one, or set strays = false"
        )
    return [
        (answer_format.write(action, thought if aloud else ""), meant)
        for action, thought, meant in suite.stray(task, kind)
    ]


def _straight(suite: Suite, task: Task, *, aloud: bool, planned: bool) -> list[str]:
    if not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"imitating an expert needs an environment that has one; {suite_name(suite)} "
            'has no `demonstrate` method: add one, or set algorithm.source = "teacher"'
        )
    if planned and not isinstance(suite, Plans):
        raise ConfigError(
            f"following a plan needs an environment that has one; {suite_name(suite)} has no "
            "`plan` method: add one, or set algorithm.planned = 0"
        )
    actions = suite.plan(task) if planned and isinstance(suite, Plans) else suite.demonstrate(task)
    if not aloud:
        return [answer_format.write(action) for action in actions]
    if planned:
        return _aloud(actions, _plan_thoughts(suite, task))
    if not isinstance(suite, Thinks):
        raise ConfigError(
            f"imitating an expert's thoughts needs an environment that has them; "
            f"{suite_name(suite)} has no `thoughts` method: add one, or set "
            "algorithm.thoughts = false"
        )
    return _aloud(actions, suite.thoughts(task))


def _plan_thoughts(suite: Suite, task: Task) -> Sequence[str]:
    if not isinstance(suite, PlansAloud):
        raise ConfigError(
            f"imitating a plan's thoughts needs an environment that has them; "
            f"{suite_name(suite)} has no `plan_thoughts` method: add one, or set "
            "algorithm.thoughts = false"
        )
    return suite.plan_thoughts(task)


def _aloud(actions: Sequence[str], thoughts: Sequence[str]) -> list[str]:
    return [
        answer_format.write(action, thought)
        for action, thought in zip(actions, thoughts, strict=True)
    ]
