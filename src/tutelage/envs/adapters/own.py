"""A user's class with only `reset` and `step`, as a suite.

    class Guess:
        def reset(self, task):
            self.secret = random.Random(task.seed).randrange(10)
            return "Guess a digit."

        def step(self, action):
            right = action == str(self.secret)
            return "right" if right else "wrong", float(right), right

`reset` is given a `Task` and returns what the agent reads first; `step` is given the agent's text
and returns (text, reward, done). An episode is won if it ends with a reward above 0. Either may
return an `Observation` instead, which has more fields. Other methods of a suite - `tasks`,
`demonstrate`, `instructions` and so on - are taken from the class if it has them; without `tasks`,
the splits train, dev and test hold seeds. `async` methods of an episode are waited for.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

from tutelage.envs import observations
from tutelage.envs.adapters.common import event_loop, seeds
from tutelage.envs.base import Env, pass_on
from tutelage.errors import EnvError
from tutelage.types import Observation, Task

GYMNASIUM: Final = (
    ", as Gymnasium's environments do, and a class of your own returns text alone from reset and "
    '(text, reward, done) from step; change it, or keep it and set env.suite = "gymnasium" and '
    "env.options.id to this class (docs/environments/your_own.md)"
)
PLAYED: Final = ("reset", "step", "call", "calls", "close")
"""Methods of one episode."""


def is_own(kind: object) -> bool:
    """Whether a class plays episodes and is not a suite, so that `Own` must wrap it."""
    has = {name for name in ("reset", "step", "call") if callable(getattr(kind, name, None))}
    plays = "reset" in has and len(has) > 1
    return plays and not (hasattr(kind, "tasks") and hasattr(kind, "make"))


class Own:
    """The suite of such a class; `new` constructs one object of it for each environment."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new, self._first = new, new()
        self.class_name = type(self._first).__name__  # for messages: users do not know `Own`
        _check_reset(self._first)
        pass_on(self._first, self)

    def __reduce__(self) -> tuple[object, ...]:
        return Own, (self._new,)

    def tasks(self, split: str) -> Sequence[Task]:
        if hasattr(self._first, "tasks"):
            found: Sequence[Task] = self._first.tasks(split)
            return found
        return seeds(self.class_name.lower(), split)

    def make(self) -> Env:
        inner = self._new()
        if any(inspect.iscoroutinefunction(getattr(inner, name, None)) for name in PLAYED):
            inner = Waiting(inner)
        # `envs.tool_suite` reads what `call` and `step` of such a class return
        return inner if hasattr(self._first, "tools") else OwnEnv(inner)


def _check_reset(env: Any) -> None:
    """Refuse a `reset` that does not take a task. Raises EnvError with the fix."""
    kind = type(env).__name__
    try:
        takes = inspect.signature(env.reset)
        takes.bind(None)
    except TypeError:
        named = [each for each in takes.parameters if each in ("seed", "options")]
        if named:
            raise EnvError(
                f"{kind}.reset takes {' and '.join(named)} instead of a task{GYMNASIUM}"
            ) from None
        raise EnvError(
            f"{kind}.reset cannot be called with a task alone, as reset(task): write def "
            "reset(self, task), where task.seed is a number to begin from and task.data holds "
            "what tasks(split) put there"
        ) from None
    except ValueError:
        return  # a method of C code does not tell what it takes
    if any(base.__module__.partition(".")[0] in ("gymnasium", "gym") for base in type(env).__mro__):
        raise EnvError(f"{kind} is a subclass of Gymnasium's Env{GYMNASIUM}")


class Waiting:
    """An object whose `async` methods return when what they await is there."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":
            raise AttributeError(name)  # of a copy that is not filled yet
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *given, **named: event_loop().wait_for(found(*given, **named))


class OwnEnv:
    """An object of the user's class; what it returns becomes an observation."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def reset(self, task: Task) -> Observation:
        value = self._inner.reset(task)
        if isinstance(value, str):
            return Observation(text=value)
        if isinstance(value, Observation):
            return value
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
            raise EnvError(f"reset returned (observation, info){GYMNASIUM}")
        raise EnvError(
            f"reset returned {type(value).__name__}; it must return the text that the agent reads "
            "first, or an Observation (tutelage.envs.adapters has others' environments)"
        )

    def step(self, action: str) -> Observation:
        value = self._inner.step(action)
        if isinstance(value, Observation):
            return value
        if isinstance(value, tuple) and len(value) == 5:
            raise EnvError(f"step returned 5 values{GYMNASIUM}")
        if not isinstance(value, tuple) or len(value) != 3:
            what = f"{len(value)} values" if isinstance(value, tuple) else type(value).__name__
            raise EnvError(
                f"step returned {what}; it must return (text, reward, done), or an Observation"
            )
        what = "step returned (text, reward, done) whose"
        try:
            text = observations.text(value[0], f"{what} text")
            reward = observations.number(value[1], f"{what} reward")
            done = observations.flag(value[2], f"{what} done")
        except (TypeError, ValueError) as error:
            raise EnvError(str(error)) from error
        return Observation(text=text, reward=reward, done=done, won=reward > 0 if done else None)

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._inner.close()
