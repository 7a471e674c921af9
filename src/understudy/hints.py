"""Privileged information: what a teacher is shown about a task and the student is not."""

from understudy.envs.base import Demonstrates, Suite
from understudy.errors import ConfigError
from understudy.types import Task

KINDS = ("plan", "actions")


def hint(suite: Suite, task: Task, kind: str) -> str:
    """The text of a kind of hint for a task; empty where `kind` is.

    plan     the expert's actions with their arguments, in order
    actions  only their first words: what kinds of action, in which order
    """
    if not kind:
        return ""
    if kind not in KINDS:
        raise ConfigError(f"there is no hint {kind!r}; the kinds are {', '.join(KINDS)}")
    if not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"the hint {kind!r} needs an environment that knows its solutions; "
            f"{type(suite).__name__} has no `plan` method: add one, or choose an algorithm "
            "without privileged information"
        )
    steps = suite.plan(task)
    words = [step if kind == "plan" else step.split(" ", 1)[0] for step in steps]
    return "\n".join(f"{k}. {word}" for k, word in enumerate(words, 1))
