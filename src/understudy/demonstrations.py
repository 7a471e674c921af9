"""What the environment's expert says, turn by turn: to be imitated, or gone on from."""

from understudy import protocol
from understudy.envs.base import Demonstrates, Suite, Thinks
from understudy.errors import ConfigError
from understudy.types import Task


def script(suite: Suite, task: Task, *, aloud: bool) -> list[str]:
    """The expert's turns in full, with its thoughts where it speaks `aloud`.

    Raises ConfigError where the suite has no expert, or its expert no thoughts.
    """
    if not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"imitating an expert needs an environment that has one; {type(suite).__name__} "
            'has no `demonstrate` method: add one, or set algorithm.source = "teacher"'
        )
    actions = suite.demonstrate(task)
    if not aloud:
        return [protocol.write(action) for action in actions]
    if not isinstance(suite, Thinks):
        raise ConfigError(
            f"imitating an expert's thoughts needs an environment that has them; "
            f"{type(suite).__name__} has no `thoughts` method: add one, or set "
            "algorithm.thoughts = false"
        )
    return [
        protocol.write(action, thought)
        for action, thought in zip(actions, suite.thoughts(task), strict=True)
    ]
