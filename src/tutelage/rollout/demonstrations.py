"""The turns of an environment's expert as text: to be imitated, or continued by the student."""

from collections.abc import Callable, Sequence

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

Write = Callable[[str, str], str]


def script(
    suite: Suite,
    task: Task,
    *,
    with_thoughts: bool,
    follows: ScriptKind = "trace",
    with_errors: bool = False,
    write: Write = answer_format.write,
) -> list[tuple[str, bool]]:
    """The expert's turns as answers in full, and whether each is to be imitated.

    write          an answer from an action and a thought
    with_thoughts  the expert writes its thoughts before each action
    follows        "trace": what the expert does; "plan": the environment's plan, which uses what
                   only the hint tells
    with_errors    now and then a wrong turn, not to be imitated, and the turns that correct it

    Raises ConfigError where the suite cannot show what is asked for.
    """
    if with_errors:
        return _with_errors(suite, task, write, with_thoughts=with_thoughts, follows=follows)
    planned = follows == "plan"
    answers = _without_errors(suite, task, write, with_thoughts=with_thoughts, planned=planned)
    return [(text, True) for text in answers]


def _with_errors(
    suite: Suite, task: Task, write: Write, *, with_thoughts: bool, follows: ScriptKind
) -> list[tuple[str, bool]]:
    if not isinstance(suite, Strays):
        raise ConfigError(
            f"imitating how wrong turns are corrected needs an environment that shows it; "
            f"{suite_name(suite)} has no `stray` method: add one, or set "
            "algorithm.with_errors = false"
        )
    return [
        (write(action, thought if with_thoughts else ""), imitated)
        for action, thought, imitated in suite.stray(task, follows)
    ]


def _without_errors(
    suite: Suite, task: Task, write: Write, *, with_thoughts: bool, planned: bool
) -> list[str]:
    if not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"imitating an expert needs an environment that has one; {suite_name(suite)} "
            'has no `demonstrate` method: add one, or set algorithm.source = "teacher"'
        )
    if planned and not isinstance(suite, Plans):
        raise ConfigError(
            f"following a plan needs an environment that has one; {suite_name(suite)} has no "
            "`plan` method: add one, or set algorithm.hinted = 0"
        )
    actions = suite.plan(task) if planned and isinstance(suite, Plans) else suite.demonstrate(task)
    if not with_thoughts:
        return [write(action, "") for action in actions]
    if planned:
        return _answers(actions, _plan_thoughts(suite, task), write)
    if not isinstance(suite, Thinks):
        raise ConfigError(
            f"imitating an expert's thoughts needs an environment that has them; "
            f"{suite_name(suite)} has no `thoughts` method: add one, or set "
            "algorithm.thoughts = false"
        )
    return _answers(actions, suite.thoughts(task), write)


def _plan_thoughts(suite: Suite, task: Task) -> Sequence[str]:
    if not isinstance(suite, PlansAloud):
        raise ConfigError(
            f"imitating a plan's thoughts needs an environment that has them; "
            f"{suite_name(suite)} has no `plan_thoughts` method: add one, or set "
            "algorithm.thoughts = false"
        )
    return suite.plan_thoughts(task)


def _answers(actions: Sequence[str], thoughts: Sequence[str], write: Write) -> list[str]:
    return [write(action, thought) for action, thought in zip(actions, thoughts, strict=True)]
