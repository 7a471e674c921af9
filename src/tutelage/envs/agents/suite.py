"""The suite "agent": tasks, and an agent of the user's that keeps its own loop and is trained."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tutelage.envs.adapters.common import seeds
from tutelage.envs.agents.pool import AgentPool
from tutelage.envs.agents.runner import Solve
from tutelage.envs.base import Env
from tutelage.envs.listed_tasks import listed_tasks
from tutelage.envs.pool import Failure
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Observation, Stop, Task


class Agents:
    """An agent of your own that keeps its loop and talks to an endpoint that the trainer serves.

    run    the agent: a function as "module:name", called as solve(base_url, api_key, task) and
           returning its reward (it may be async), or a command, as a text or a list of words
    tasks  its tasks: a function as "module:name", called with the name of a split, or a file of
           JSON lines; if empty, the splits train, dev and test hold seeds
    host   the address on which agents are served; this machine alone if not set
    quiet  seconds to wait for further calls that an agent makes beside one that came: they are
           recorded in an order that does not depend on time if they come within it
    """

    def __init__(
        self,
        run: str | list[str] | Callable[..., Any],
        tasks: str | Callable[..., Any] = "",
        host: str = "127.0.0.1",
        quiet: float = 0.01,
    ) -> None:
        if not run:
            raise ConfigError(
                'env.options.run is empty; name your agent, as in options.run = "mine:solve"'
            )
        self.run: str | list[str] | Solve = run
        if not 0 <= quiet <= 10:
            raise ConfigError(f"env.options.quiet = {quiet:g}: give 0 to 10 seconds")
        self.listed, self.host, self.quiet = tasks, host, quiet
        self._shared: AgentPool | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shared": None}

    def tasks(self, split: str) -> Sequence[Task]:
        if not self.listed:
            return seeds("agent", split)
        return listed_tasks(self.listed, split, prefix="agent")

    def agents(self, *, workers: int, seconds: float) -> AgentPool:
        return AgentPool(
            self.run, workers=workers, seconds=seconds, host=self.host, quiet=self.quiet
        )

    def pinned(self, task: Task) -> str:
        return json.dumps(asdict(task), sort_keys=True, default=str)

    def make(self) -> Env:
        """One agent at a time, in a thread of this process: to look at what it asks."""
        if self._shared is None:
            self._shared = AgentPool(self.run, host=self.host, quiet=self.quiet)
        return AgentEnv(self._shared)

    def answer(self, task: Task) -> str:
        """The reference answer: what the task's data hold under "answer"."""
        return task.data.get("answer", "")

    def plan(self, task: Task) -> Sequence[str]:
        """The solution: the lines of what the task's data hold under "plan"."""
        return task.data.get("plan", "").splitlines()

    def describe(self, task: Task) -> str:
        """What the task's data hold under "question", else all of it that is no solution."""
        shown = {k: v for k, v in task.data.items() if k not in ("answer", "plan")}
        return task.data.get("question", "\n".join(shown.values()))


class AgentEnv:
    """An agent as an environment: what it asks is observed, and an action is the answer."""

    def __init__(self, pool: AgentPool) -> None:
        self.pool, self.key = pool, ""

    def reset(self, task: Task) -> Observation:
        self.close()
        self.key = f"{task.id} {id(self)}"
        self.pool.open(self.key, task)
        return self._seen()

    def step(self, action: str) -> Observation:
        self.pool.act(self.key, action)
        return self._seen()

    def _seen(self) -> Observation:
        ((_, answer),) = self.pool.poll(block=True)
        if isinstance(answer, Failure):
            raise (TimeoutError if answer.stop is Stop.TIMEOUT else EnvError)(answer.reason)
        return answer

    def close(self) -> None:
        if self.key:
            self.pool.close(self.key)
            self.key = ""
