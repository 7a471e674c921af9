"""Tasksets of verifiers (PrimeIntellect-ai/verifiers, v1 interface) with one text-only agent.

verifiers runs an episode itself and calls a model for each turn. Here `Env.run` is given an agent
that waits for the next action instead of calling a model, records the conversation in a verifiers
trace, and lets the task's stops, rewards and metrics judge it.
"""

import asyncio
import contextlib
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

from tutelage.envs.adapters.common import DEV, SPLITS, TEST, TRAIN, Won, imported, is_won
from tutelage.envs.requirements import Need, package
from tutelage.errors import EnvError, install
from tutelage.types import Observation, Task

INSTALL: Final = install("verifiers")
OVER: Final = "The end."


def _vf(module: str) -> Any:
    return imported(f"verifiers.v1.{module}", INSTALL)


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    yield package("verifiers", "verifiers")


@dataclass(frozen=True, kw_only=True)
class Verifiers:
    """A taskset of verifiers whose one agent needs neither tools nor a container.

    taskset   its id, which names an installed package or a module of yours
    settings  its configuration, as below [env.taskset]
    won       the reward from which an episode is won, or the name of the reward or metric that
              decides
    rules     text that the agent reads first, before the task's own system prompt
    test, dev, train   how many tasks these splits have, cut in this order from those that the
              taskset yields; a taskset that ends sooner has fewer to train on

    The reward comes at the end, when the task has judged the whole conversation.
    """

    taskset: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    won: Won = 1.0
    rules: str = "Each turn, give your answer in the form that is asked for."
    test: int = TEST
    dev: int = DEV
    train: int = TRAIN

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        cuts = list(itertools.accumulate((0, self.test, self.dev, self.train)))
        at = ("test", "dev", "train").index(split)
        there = range(len(self.loaded()[1]))[cuts[at] : cuts[at + 1]]
        return [
            Task(id=f"{self.taskset}/{split}/{k:07d}", family=self.taskset, seed=k) for k in there
        ]

    def make(self) -> "VerifiersEnv":
        return VerifiersEnv(self)

    def instructions(self) -> str:
        return self.rules

    def loaded(self) -> tuple[Any, Sequence[Any]]:
        """The environment of verifiers and its tasks. Raises EnvError if it cannot be played."""
        shape = json.dumps(dict(self.settings), sort_keys=True)
        return _loaded(self.taskset, shape, self.test + self.dev + self.train)


@cache
def _loaded(taskset: str, settings: str, count: int) -> tuple[Any, Sequence[Any]]:
    """Cached per process: tasksets may take long to load."""
    loaders = _vf("utils.loaders")
    try:
        config = loaders.resolve_env_config({"taskset": {"id": taskset, **json.loads(settings)}})
        env = loaders.load_environment(config)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EnvError(f"verifiers could not load the taskset {taskset!r}: {reason}") from error
    tasks = list(itertools.islice(env.taskset, count))
    if why := _unplayable(env, tasks):
        raise EnvError(f"the taskset {taskset!r} cannot be played here: {why}")
    return env, tasks


def _unplayable(env: Any, tasks: Sequence[Any]) -> str:
    """Why a taskset cannot be played as text in, text out; empty if it can."""
    roles = _vf("configs.agent").agent_config_fields(env.config)
    config = env.config.taskset
    kind = type(env.taskset).task_type()
    marked = _vf("utils.decorators").discover_decorated
    if len(roles) != 1:
        return f"it has the agents {', '.join(roles)}, and only one can be the student"
    if type(env.taskset).toolsets(config) or kind.toolsets(config.task):
        return "it has tool servers, which need a harness of verifiers"
    if kind.NEEDS_CONTAINER or any(task.data.image for task in tasks):
        return "its tasks need a container"
    if tasks and marked(tasks[0], "intercept"):
        return "its tasks intercept requests to a model, and there are none"
    judged = [*tasks[0].hooks("reward"), *tasks[0].hooks("metric")] if tasks else []
    if any("runtime" in inspect.signature(f).parameters for f in judged):
        return "its tasks are judged inside a container"
    return ""


class VerifiersEnv:
    """One episode at a time, on an event loop of its own that runs only inside reset and step."""

    def __init__(self, suite: Verifiers) -> None:
        self._suite = suite
        self._env, self._tasks = suite.loaded()
        self._loop = asyncio.new_event_loop()
        self._run: asyncio.Task[float] | None = None

    def reset(self, task: Task) -> Observation:
        self._abandon()
        self._run = self._loop.create_task(self._episode(self._tasks[task.seed]))
        return self._observe()

    def step(self, action: str) -> Observation:
        if self._run is None or self._run.done():
            raise EnvError("no episode is under way: call reset(task) before step(action)")
        self._answer.set_result(action)
        return self._observe()

    def close(self) -> None:
        self._abandon()
        self._loop.close()

    def _abandon(self) -> None:
        if self._run is not None and not self._run.done():
            self._run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._run)

    def _observe(self) -> Observation:
        """Run verifiers until it asks for an action or has finished."""
        assert self._run is not None
        self._asked: asyncio.Future[str] = self._loop.create_future()
        both: set[asyncio.Future[Any]] = {self._run, self._asked}
        first = asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        self._loop.run_until_complete(first)
        if self._asked.done():
            return Observation(text=self._asked.result())
        error = self._run.exception()
        if error is not None:
            raise EnvError(
                f"the taskset {self._suite.taskset!r} raised {type(error).__name__}: {error}"
            ) from error
        reward = self._run.result()
        won = is_won(self._suite.won, reward, self._metrics, "the trace")
        score = reward if 0 <= reward <= 1 else None
        return Observation(text=OVER, reward=reward, done=True, won=won, score=score)

    async def ask(self, text: str) -> str:
        """Show the agent a text and wait for its answer, which the next step gives."""
        self._answer: asyncio.Future[str] = self._loop.create_future()
        self._asked.set_result(text)
        return await self._answer

    async def _episode(self, task: Any) -> float:
        """What `Env.run_episode` does, with our agent as its only one. Returns the reward."""
        episodes = _vf("episode")
        fields = _vf("configs.agent").agent_config_fields
        (role, config), *_ = fields(self._env.config).items()
        episode = episodes.Episode(task=_traced(task))
        seats = SimpleNamespace(**{role: _Seat(self, role, config, episode.traces)})
        await self._env.setup(seats)
        await self._env.run(task, seats)
        await self._env.finalize(task, episode)
        if not episode.traces:
            raise EnvError("its run() asked no agent")
        trace = episode.traces[-1]
        rewards = {name: r.value for name, r in trace.rewards.items() if r is not None}
        self._metrics = {**trace.metrics, **rewards}
        return float(trace.reward)


def _traced(task: Any) -> Any:
    trace_task = _vf("trace").TraceTask
    return trace_task(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)


class _Seat:
    """The agent that `Env.run` is given; its actions come from `VerifiersEnv.step`."""

    def __init__(self, env: VerifiersEnv, role: str, config: Any, traces: list[Any]) -> None:
        self.trainable = True
        self._env, self._role, self._config, self._traces = env, role, config, traces

    async def run(self, task: Any, **_: object) -> Any:
        async with self.interaction(task) as talk:
            await talk.turn()
        return talk.trace

    @contextlib.asynccontextmanager
    async def interaction(self, task: Any, **_: object) -> AsyncIterator["_Talk"]:
        trace = _vf("trace")
        state = _vf("state").state_cls(type(task))()
        info = trace.AgentInfo(config=self._config, name=self._role)
        talk = _Talk(self._env, task, trace.Trace(task=_traced(task), state=state, agent=info))
        invoke = _vf("utils.decorators").invoke
        given = {"trace": talk.trace, "runtime": None}
        await invoke(task.setup, given)
        yield talk
        # an episode that is given up raises where it waits, and is not judged
        await invoke(task.finalize, given)
        await task.score(talk.trace, None)
        talk.trace.is_completed = talk.trace.ok = True
        self._traces.append(talk.trace)


class _Talk:
    """The conversation: `turn` says something to the agent and returns its answer."""

    def __init__(self, env: VerifiersEnv, task: Any, trace: Any) -> None:
        self.trace = trace
        self._env, self._task = env, task
        self._types = _vf("types")
        self._unread: list[Any] = []
        data = task.data
        if data.system_prompt:
            self._say([self._types.SystemMessage(content=data.system_prompt)])
        if data.prompt is not None:
            self._say(self._messages(data.prompt))

    async def turn(self, message: Any = None) -> Any:
        segment = _vf("agent").Segment
        if await self._stopped():
            return segment(messages=[], terminated=True)
        if message is not None:
            self._say(self._messages(message))
        prompt = "\n\n".join(_text(message) for message in self._unread)
        answer = self._types.AssistantMessage(content=await self._env.ask(prompt))
        self._unread = []
        self._add(answer, sampled=True)
        return segment(messages=[answer])

    async def _stopped(self) -> bool:
        session = _vf("session")
        kind = type(self.trace)
        for stop in self._task.hooks("stop"):
            if session.hook_boundary(stop, allow_trace=True) is not session.Trace:
                raise EnvError(f"its stop {stop.__name__} looks at requests, and there are none")
            if await session.call_hook(stop, {session.Trace: self.trace, kind: self.trace}):
                self.trace.stop(stop.__name__)
        return self.trace.stop_condition is not None

    def _messages(self, message: Any) -> list[Any]:
        if isinstance(message, str):
            return [self._types.UserMessage(content=message)]
        return list(message)

    def _say(self, messages: Sequence[Any]) -> None:
        for message in messages:
            self._add(message)
            self._unread.append(message)

    def _add(self, message: Any, *, sampled: bool = False) -> None:
        node = _vf("graph").MessageNode
        nodes = self.trace.nodes
        parent = len(nodes) - 1 if nodes else None
        nodes.append(node(parent=parent, message=message, sampled=sampled))


def _text(message: Any) -> str:
    return str(_vf("types").content_text(message.content))
