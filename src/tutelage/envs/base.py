"""The interface of environments: text in, text out, one episode at a time.

`Env` and `Suite` are required. The other protocols are optional methods of a suite; each is tested
by `isinstance` where it is used, so a suite is any class that has these methods.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from tutelage.types import Episode, Observation, Task


class Env(Protocol):
    """Implement this. Limits on turns and tokens belong to the rollout, not to the environment."""

    def reset(self, task: Task) -> Observation: ...
    def step(self, action: str) -> Observation: ...
    def close(self) -> None: ...


class Suite(Protocol):
    """A collection of tasks and the environment they are played in. It must survive pickling,
    because worker processes are sent a copy."""

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split, always the same ones in the same order."""
        ...

    def make(self) -> Env: ...


def suite_name(suite: object) -> str:
    """The name of a suite's class as its author wrote it, for messages."""
    return str(getattr(suite, "class_name", type(suite).__name__))


OPTIONAL = (
    "demonstrate",
    "plan",
    "thoughts",
    "plan_thoughts",
    "stray",
    "answer",
    "describe",
    "renders",
    "instructions",
    "action_tags",
    "identity",
    "summarise",
    "tools",
    "tools_of",
)
"""Optional methods of a suite, which the protocols below describe."""


def pass_on(suite: object, wrapper: object, *, without: Collection[str] = ()) -> None:
    """Give a wrapper the optional methods that the suite in it has. They are set on the object
    itself: whoever looks for a protocol does not ask `__getattr__`."""
    for name in OPTIONAL:
        if name not in without and hasattr(suite, name):
            setattr(wrapper, name, getattr(suite, name))


@runtime_checkable
class Identifies(Protocol):
    """A suite whose tasks depend on something that no first observation shows."""

    def identity(self) -> str:
        """Its identity, such as the name and size of a corpus; empty if there is none."""
        ...


@runtime_checkable
class Demonstrates(Protocol):
    """A suite with an expert whose actions can be imitated."""

    def demonstrate(self, task: Task) -> Sequence[str]:
        """Actions that solve the task using only what the agent has observed, for imitation."""
        ...


@runtime_checkable
class Plans(Protocol):
    """A suite that knows solutions: privileged information."""

    def plan(self, task: Task) -> Sequence[str]:
        """The shortest known solution; it may use hidden state, so it is privileged information."""
        ...


@runtime_checkable
class Answers(Protocol):
    """A suite that knows reference answers: privileged information."""

    def answer(self, task: Task) -> str:
        """The reference answer of a task; empty where none is known."""
        ...


@runtime_checkable
class Describes(Protocol):
    """A suite that can say what a task asks for before it is played."""

    def describe(self, task: Task) -> str:
        """The task as the agent reads it, without anything that it observes later."""
        ...


@runtime_checkable
class Thinks(Protocol):
    """A suite whose expert gives its reasons."""

    def thoughts(self, task: Task) -> Sequence[str]:
        """A thought for each action of `demonstrate(task)`, in order."""
        ...


@runtime_checkable
class PlansAloud(Protocol):
    """A suite whose plan gives its reasons, in the words of `Thinks.thoughts`."""

    def plan_thoughts(self, task: Task) -> Sequence[str]:
        """A thought for each action of `plan(task)`, in order."""
        ...


ScriptKind = Literal["plan", "trace"]
"""What an expert follows: the plan, which may use hidden state, or its own demonstration."""


@runtime_checkable
class Strays(Protocol):
    """A suite that can show how an expert recovers from wrong turns."""

    def stray(self, task: Task, kind: ScriptKind) -> Sequence[tuple[str, str, bool]]:
        """(action, thought, whether it is to be imitated): `plan` or `demonstrate` with wrong turns
        in between, which are not imitated, and the actions that correct them, which are."""
        ...


Render = Callable[[Observation], str]
"""How an observation is written for the agent. The environment's rules never depend on it."""


@runtime_checkable
class Renders(Protocol):
    """A suite with renderings of an observation of its own, besides `text` and `actions`."""

    def renders(self) -> Mapping[str, Render]: ...


@runtime_checkable
class Instructs(Protocol):
    """A suite that explains its environment to the agent, in the system message."""

    def instructions(self) -> str: ...


@runtime_checkable
class Summarises(Protocol):
    """A suite with numbers of its own for an evaluation, besides success and score."""

    def summarise(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Metrics by name over the episodes of a panel, one episode per task."""
        ...


@runtime_checkable
class Tagged(Protocol):
    """A suite whose actions are blocks with tags of their own, as `<search>Lima</search>`."""

    def action_tags(self) -> Sequence[str]:
        """The names of the tags, without brackets; a block of one is an action, tags included."""
        ...


@runtime_checkable
class Calls(Protocol):
    """A suite whose environments have functions, which a model calls in its own format. Its
    environments have a method `call(name, arguments)`; `envs.tool_suite` reads the answers."""

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The functions: {"name", "description", "parameters"}, the last as a JSON schema."""
        ...


@runtime_checkable
class CallsByTask(Protocol):
    """A suite whose tasks have functions of their own, some of those that `tools` lists."""

    def tools_of(self, task: Task) -> Sequence[Mapping[str, Any]]:
        """The functions that the prompt of a task lists."""
        ...


@runtime_checkable
class MayCall(Protocol):
    """A suite of actions in text that can be played by calls of functions instead."""

    def with_tools(self) -> "Suite":
        """The same tasks, as a suite that `Calls`."""
        ...


@runtime_checkable
class Converses(Protocol):
    """A suite whose environments are agents that keep their own conversation (`envs.agents`)."""

    def agents(self, *, workers: int, seconds: float) -> object:
        """The `envs.pool.Pool` that runs them.

        workers  processes that run them; 0 for threads of this one
        seconds  that an agent may take between two calls
        """
        ...

    def pinned(self, task: Task) -> str:
        """What is the same about a task on every machine."""
        ...
