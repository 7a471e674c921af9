"""A suite whose environments and methods run in a worker process, wherever they are called.

What plays a user's environment in the trainer, such as the checks before a run, would hang with it,
crash with it, and end when it calls `os._exit`; so would a call of the suite's expert. Through this
suite each reset, step and call of a method has the deadline of a run's own episodes, and what goes
wrong is a sentence.
"""

import itertools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, overload

from tutelage.config.schema import EnvSection
from tutelage.envs.base import Env, Render, Suite, suite_name
from tutelage.envs.guard import Broken, attempt, one_line
from tutelage.envs.pool import Failure, ProcessPool
from tutelage.envs.registry import PYTHON, SHIPPED, suite_of
from tutelage.envs.wire import LONGEST_FRAME, pack_observation, pickled, unpack_task
from tutelage.envs.worker import COUNT, RENDER, SUMMARISE, TASK, Start
from tutelage.errors import EnvError
from tutelage.types import Episode, Observation, Stop, Task

OF_TASKS = "demonstrate plan answer describe thoughts plan_thoughts stray tools_of"
"""Methods of `envs.base` that a suite may have, about a task."""
OF_SUITE = "identity instructions action_tags tools"
"""Those that are about the suite; each is called once."""
HERE = "agents pinned"
"""Those that start processes of their own."""


class Supervisor:
    """A worker process for one environment at a time of the suite that a configuration names."""

    def __init__(self, section: EnvSection, *splits: str, calls: bool = False) -> None:
        """Starts no process yet. `splits` are those whose tasks the worker asks for first; for
        `calls` see `registry.suite_of`."""
        self.section, self.splits, self.calls = section, splits, calls
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

    def ask(self, method: str, task: Task | None = None, *arguments: object) -> Any:
        """Call a method of the suite. Raises EnvError with what went wrong."""
        answer = self._pool().ask(method, task, *arguments)
        if isinstance(answer, Failure):
            raised = answer.stop is Stop.ERROR and ": " in answer.reason
            raise Broken(f"{method}{' raised ' if raised else ': '}{answer.reason}")
        if answer.refused:
            raise EnvError(answer.value)
        return answer.value

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
                Start(load=partial(suite_of, self.section, calls=self.calls), splits=self.splits),
                workers=1,
                reset_seconds=seconds,
                step_seconds=seconds,
                reports=False,
            )
        return self.pool


@contextmanager
def supervised(section: EnvSection, *splits: str) -> Iterator[Suite]:
    """The suite that a configuration names; a user's in a worker process, which ends with the
    context, and is proven to come back from importing it and from asking for tasks of `splits`."""
    if section.workers == 0 or section.suite in SHIPPED or section.suite.startswith(PYTHON):
        yield suite_of(section)
        return
    supervisor = Supervisor(section, *splits)
    try:
        supervisor.prove()
        yield SupervisedSuite(suite_of(section), supervisor)
    finally:
        supervisor.rest()


class SupervisedSuite:
    """A suite as it is, but for its environments and methods."""

    def __init__(self, suite: Suite, supervisor: Supervisor) -> None:
        self.suite, self.supervisor = suite, supervisor
        self.class_name = suite_name(suite)
        self.listed: dict[str, SupervisedTasks] = {}
        # protocols are looked for in the object itself, where `__getattr__` is not asked
        own: dict[str, Callable[..., Any]] = {"renders": self._renders, "summarise": self._summary}
        own |= {name: partial(supervisor.ask, name) for name in OF_TASKS.split()}
        own |= {name: cache(partial(supervisor.ask, name)) for name in OF_SUITE.split()}
        own |= {name: getattr(suite, name, len) for name in HERE.split()}
        for name, method in own.items():
            if hasattr(suite, name):
                setattr(self, name, method)

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split, which the worker lists."""
        if split not in self.listed:
            self.listed[split] = SupervisedTasks(split, self.supervisor)
        return self.listed[split]

    def _renders(self) -> dict[str, Render]:
        names = self.supervisor.ask("renders")
        return {name: partial(self._rendered, name) for name in names}

    def _rendered(self, name: str, seen: Observation) -> str:
        try:
            text = self.supervisor.ask(RENDER, None, name, pack_observation(seen))
        except Broken as error:
            rest = str(error).removeprefix(RENDER)
            raise Broken(f"render {name!r}{rest}") from error
        return str(text)

    def _summary(self, episodes: Sequence[Episode]) -> Any:
        packed = pickled(list(episodes))
        if len(packed) < LONGEST_FRAME // 2:
            return self.supervisor.ask(SUMMARISE, None, packed)
        with tempfile.NamedTemporaryFile(prefix="episodes-") as file:  # too long for a message
            pickle.dump(list(episodes), file)
            file.flush()
            return self.supervisor.ask(SUMMARISE, None, {"file": file.name})

    def __getattr__(self, name: str) -> Any:
        if name == "suite":
            raise AttributeError(name)  # of a copy that is being made
        return getattr(self.suite, name)

    def __reduce__(self) -> tuple[object, tuple[Suite]]:
        return _itself, (self.suite,)  # whoever is sent it is in another process already

    def make(self) -> Env:
        return SupervisedEnv(self.supervisor)


class SupervisedTasks(Sequence[Task]):
    """The tasks of a split in the supervisor's worker, each asked for once."""

    def __init__(self, split: str, supervisor: Supervisor) -> None:
        self.split, self.supervisor = split, supervisor
        self.length = int(self._ask(COUNT))
        self.known: dict[int, Task] = {}

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, at: int) -> Task: ...
    @overload
    def __getitem__(self, at: slice) -> list[Task]: ...
    def __getitem__(self, at: int | slice) -> Task | list[Task]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self.length))]
        i = range(self.length)[at]  # IndexError where there is none
        if i not in self.known:
            packed = self._ask(TASK, i)
            self.known[i] = attempt(f"task {i} of {self.split!r}", partial(unpack_task, packed))
        return self.known[i]

    def _ask(self, method: str, *at: int) -> Any:
        try:
            return self.supervisor.ask(method, None, self.split, *at)
        except Broken as error:
            what = f"task {at[0]} of {self.split!r}" if at else f"tasks({self.split!r})"
            raise Broken(f"{what}{str(error).removeprefix(method)}") from error


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


def _itself(suite: Suite) -> Suite:
    return suite
