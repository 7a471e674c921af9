"""A class of your own that has `reset` and `step`, and no more.

    class Guess:
        def reset(self, task):
            self.secret = random.Random(task.seed).randrange(10)
            return "Guess a digit."

        def step(self, action):
            right = action == str(self.secret)
            return "right" if right else "wrong", float(right), right

`reset` is given a `Task` and returns what the agent reads first; `step` is given the agent's text
and returns (text, reward, done). An episode is won if it ends with a reward above 0. Either may
return an `Observation` instead, which can say more. What else a suite may have - `tasks`,
`demonstrate`, `instructions` and so on - is taken from the class where it is there; without
`tasks`, the splits train, dev and test hold seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from tutelage.envs import observations
from tutelage.envs.adapters.common import seeds
from tutelage.envs.base import Env
from tutelage.errors import EnvError
from tutelage.types import Observation, Task

EXTRAS: Final = (
    "demonstrate", "plan", "thoughts", "plan_thoughts", "stray", "answer", "describe",
    "renders", "instructions", "action_tags", "identity",
    "summarise",
)  # fmt: skip
"""What a suite may know besides, as `envs.base` has it."""

GYMNASIUM: Final = (
    ", as Gymnasium's environments do, and a class of your own returns text alone from reset and "
    "(text, reward, done) from step; change it, or keep it and let a function return "
    "Gymnasium(id=YOUR_CLASS) of tutelage.envs.adapters.gymnasium (docs/environments/your_own.md)"
)


def is_own(kind: object) -> bool:
    """Whether a class plays episodes, and leaves the rest of a suite to us."""
    plays = all(callable(getattr(kind, name, None)) for name in ("reset", "step"))
    return plays and not (hasattr(kind, "tasks") and hasattr(kind, "make"))


class Own:
    """A suite of such a class; `new` makes an object of it, one for each episode at a time."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new, self._first = new, new()
        for name in EXTRAS:
            if hasattr(self._first, name):
                setattr(self, name, getattr(self._first, name))

    def __reduce__(self) -> tuple[object, ...]:
        return Own, (self._new,)

    def tasks(self, split: str) -> Sequence[Task]:
        if hasattr(self._first, "tasks"):
            found: Sequence[Task] = self._first.tasks(split)
            return found
        return seeds(type(self._first).__name__.lower(), split)

    def make(self) -> Env:
        return OwnEnv(self._new())


class OwnEnv:
    """An object of the user's class, whose plain answers become observations."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def reset(self, task: Task) -> Observation:
        made = self._inner.reset(task)
        if isinstance(made, str):
            return Observation(text=made)
        if isinstance(made, Observation):
            return made
        if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], dict):
            raise EnvError(f"reset returned (observation, info){GYMNASIUM}")
        raise EnvError(
            f"reset returned {type(made).__name__}; it must return the text that the agent reads "
            "first, or an Observation (tutelage.envs.adapters has others' environments)"
        )

    def step(self, action: str) -> Observation:
        made = self._inner.step(action)
        if isinstance(made, Observation):
            return made
        if isinstance(made, tuple) and len(made) == 5:
            raise EnvError(f"step returned 5 values{GYMNASIUM}")
        if not isinstance(made, tuple) or len(made) != 3:
            what = f"{len(made)} values" if isinstance(made, tuple) else type(made).__name__
            raise EnvError(
                f"step returned {what}; it must return (text, reward, done), or an Observation"
            )
        what = "step returned (text, reward, done) whose"
        try:
            text = observations.text(made[0], f"{what} text")
            reward = observations.number(made[1], f"{what} reward")
            done = observations.flag(made[2], f"{what} done")
        except (TypeError, ValueError) as error:
            raise EnvError(str(error)) from error
        return Observation(text=text, reward=reward, done=done, won=reward > 0 if done else None)

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._inner.close()
