"""A suite whose environments are played in a worker process, wherever they are played.

What plays a user's environment in the trainer, such as the checks before a run, would hang with it,
crash with it, and end when it calls `os._exit`. Through this suite each reset and step has the
deadline of a run's own episodes, and what goes wrong is a sentence.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tutelage.config.schema import EnvSection
from tutelage.envs.base import Env, Suite, suite_name
from tutelage.envs.guard import Broken, attempt, one_line
from tutelage.envs.pool import Failure, ProcessPool
from tutelage.envs.registry import suite_of
from tutelage.envs.worker import Start
from tutelage.errors import EnvError
from tutelage.types import Observation, Stop, Task

OPTIONAL = (
    "identity demonstrate plan answer describe thoughts plan_thoughts stray renders instructions "
    "summarise action_tags"
)
"""Methods of `envs.base` that a suite may have."""


class Supervisor:
    """A worker process for one environment at a time of the suite that a configuration names."""

    def __init__(self, section: EnvSection, *splits: str) -> None:
        """Starts no process yet. `splits` are those whose tasks the worker asks for first."""
        self.section, self.splits = section, splits
        self.pool: ProcessPool | None = None
        self.keys = itertools.count()

    def prove(self) -> None:
        """Import the suite and ask for its tasks in the worker, where that may hang or crash.

        Raises EnvError if the worker does not come back from it; an exception is not looked at, as
        the trainer meets it itself.
        """
        try:
            self._pool().begun()
        except EnvError as error:
            self.rest()
            raise EnvError(f"env.suite: {error}") from error

    def play(self, key: str, task: Task | None, action: str, what: str) -> Observation:
        """Reset to a task, or take an action. Raises EnvError with what went wrong."""
        pool = self._pool()
        if task is not None:
            pool.open(key, task)
        else:
            pool.act(key, action)
        ((_, answer),) = pool.poll(block=True)
        if not isinstance(answer, Failure):
            return answer
        raised = answer.stop is Stop.ERROR and ": " in answer.reason
        raise Broken(f"{what} raised {answer.reason}" if raised else f"{what}: {answer.reason}")

    def close(self, key: str) -> None:
        if self.pool is None or key not in self.pool.live:
            return
        if self.pool.incidents.unclosed:
            del self.pool.live[key]  # another one hung or raised before: nothing waits once more
        else:
            self.pool.close(key)

    def rest(self) -> None:
        """End the process. The next call starts another, which knows nothing of open episodes."""
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None

    def _pool(self) -> ProcessPool:
        if self.pool is None:
            seconds = self.section.deadline
            self.pool = ProcessPool(
                Start(load=partial(suite_of, self.section), splits=self.splits),
                workers=1,
                reset_seconds=seconds,
                step_seconds=seconds,
                reports=False,
            )
        return self.pool


class SupervisedSuite:
    """A suite as it is, but for its environments."""

    def __init__(self, suite: Suite, supervisor: Supervisor) -> None:
        self.suite, self.supervisor = suite, supervisor
        self.class_name = suite_name(suite)
        self.tasks = suite.tasks
        # protocols are looked for in the object itself, where `__getattr__` is not asked
        for name in OPTIONAL.split():
            if hasattr(suite, name):
                setattr(self, name, partial(_called, name, getattr(suite, name)))

    def __getattr__(self, name: str) -> Any:
        if name == "suite":
            raise AttributeError(name)  # of a copy that is being made
        return getattr(self.suite, name)

    def __reduce__(self) -> tuple[object, tuple[Suite]]:
        return _itself, (self.suite,)  # whoever is sent it is in another process already

    def make(self) -> Env:
        return SupervisedEnv(self.supervisor)


class SupervisedEnv:
    """An environment in the supervisor's worker."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor, self.key = supervisor, ""

    def reset(self, task: Task) -> Observation:
        self.key = self.key or f"trial {next(self.supervisor.keys)}"
        return self.supervisor.play(self.key, task, "", f"reset to {one_line(task.id, 80)}")

    def step(self, action: str) -> Observation:
        quoted = repr(action if len(action) < 40 else action[:37] + "...")
        return self.supervisor.play(self.key, None, action, f"step({quoted})")

    def close(self) -> None:
        if self.key:
            self.supervisor.close(self.key)
            self.key = ""


def _called(name: str, method: Callable[..., Any], *arguments: object) -> Any:
    """A method of the suite; what it raises, or its renderings do, is a sentence."""
    result = attempt(name, partial(method, *arguments))
    if name != "renders" or not isinstance(result, Mapping):
        return result
    return {key: partial(_called, f"render {key!r}", render) for key, render in result.items()}


def _itself(suite: Suite) -> Suite:
    return suite
