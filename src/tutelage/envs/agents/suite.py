"""The suite "agent": tasks, and an agent of the user's that keeps its own loop and is trained."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.config.trust import NAMED
from tutelage.envs.adapters.common import seeds
from tutelage.envs.agents.pool import AgentPool
from tutelage.envs.agents.runner import Solve
from tutelage.envs.base import Env
from tutelage.envs.guard import Broken, attempt
from tutelage.envs.named_code import named
from tutelage.envs.pool import Failure
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Observation, Stop, Task

Listed = Sequence[Task | Mapping[str, Any] | str]


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
        return [task_of(each, split, k) for k, each in enumerate(self._listed(split))]

    def _listed(self, split: str) -> Listed:
        listed = self.listed
        if isinstance(listed, str) and not NAMED.fullmatch(listed):
            return _lines(Path(listed), split)
        if isinstance(listed, str):
            module, _, name = listed.partition(":")
            listed = named(  # type: ignore[assignment]
                module,
                name,
                where="env.options.tasks",
                what="a function that lists tasks",
                declared=lambda found: False,
            )
        found: Listed = listed(split)  # type: ignore[operator]
        return found

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


def task_of(value: Task | Mapping[str, Any] | str, split: str, index: int) -> Task:
    """A task as it is listed: a `Task`, a text, or a table with `id`, `family`, `seed` and data."""
    if isinstance(value, Task):
        return value
    if isinstance(value, str):
        value = {"question": value}
    if not isinstance(value, Mapping):
        raise EnvError(
            f"task {index} of {split} is {type(value).__name__}; list texts, dicts or "
            "tutelage.types.Task"
        )
    data = {
        str(k): v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
        for k, v in value.items()
        if k not in ("id", "family", "seed", "split")
    }
    seed = value.get("seed", index)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise EnvError(f"task {index} of {split} has the seed {seed!r}; give a whole number")
    return Task(
        id=str(value.get("id", f"agent/{split}/{index:07d}")),
        family=str(value.get("family", "")),
        seed=seed,
        data=data,
    )


def _lines(path: Path, split: str) -> list[Mapping[str, Any]]:
    """The tasks of a split in a file of JSON lines; a line without a split is in train."""
    found: list[Mapping[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                value = attempt(f"line {number} of {path}", lambda text=line: json.loads(text))  # type: ignore[misc]
                if not isinstance(value, dict):
                    raise ConfigError(
                        f"env.options.tasks: line {number} of {path} is not a JSON object; write "
                        'each task as {"id": ..., ...}'
                    )
                if value.get("split", "train") == split:
                    found.append(value)
    except Broken as error:
        raise ConfigError(f"env.options.tasks: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"env.options.tasks: {path} cannot be read ({error})") from error
    return found
