"""What an environment is: text in, text out, one episode at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from tutelage.types import Episode, Observation, Task


class Env(Protocol):
    """Implement this. Limits on turns and tokens belong to the rollout, not to the environment."""

    def reset(self, task: Task) -> Observation: ...
    def step(self, action: str) -> Observation: ...
    def close(self) -> None: ...


class Suite(Protocol):
    """A family of tasks and the environment they are played in. Must survive pickling."""

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split, always the same ones in the same order."""
        ...

    def make(self) -> Env: ...


@runtime_checkable
class Identifies(Protocol):
    """A suite whose tasks depend on something that no first observation shows."""

    def identity(self) -> str:
        """What that is, such as the name and size of a corpus; empty where there is nothing."""
        ...


@runtime_checkable
class Demonstrates(Protocol):
    """A suite that knows how its tasks are done."""

    def demonstrate(self, task: Task) -> Sequence[str]:
        """Actions that solve the task using only what the agent can have seen: to imitate."""
        ...

    def plan(self, task: Task) -> Sequence[str]:
        """The shortest known way, using everything about the task: privileged information."""
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
        """The task alone, in the words in which the agent is told it: nothing of what it sees."""
        ...


@runtime_checkable
class Thinks(Protocol):
    """A suite whose demonstrator can say what it is after."""

    def thoughts(self, task: Task) -> Sequence[str]:
        """A thought for each action of `demonstrate(task)`, in order."""
        ...


@runtime_checkable
class PlansAloud(Protocol):
    """A suite whose plan says what it is after, in the words of `Thinks.thoughts`."""

    def plan_thoughts(self, task: Task) -> Sequence[str]:
        """A thought for each action of `plan(task)`, in order."""
        ...


Told = Literal["plan", "trace"]
"""What somebody was told: what solves the task, or what an expert did who knew no more."""


@runtime_checkable
class Strays(Protocol):
    """A suite that can show how what somebody was told goes on after wrong turns."""

    def stray(self, task: Task, told: Told) -> Sequence[tuple[str, str, bool]]:
        """(action, thought, whether it is to be imitated): `plan` or `demonstrate` with wrong turns
        in it, which whoever follows them in somebody else's steps must know how to mend."""
        ...


Render = Callable[[Observation], str]
"""How an observation is put into words. The rules of an environment never depend on it."""


@runtime_checkable
class Renders(Protocol):
    """A suite with its own ways to word an observation, besides `text` and `actions`."""

    def renders(self) -> Mapping[str, Render]: ...


@runtime_checkable
class Instructs(Protocol):
    """A suite that tells the agent, in a system message, how its world works."""

    def instructions(self) -> str: ...


@runtime_checkable
class Summarises(Protocol):
    """A suite with numbers of its own for an evaluation, besides success and score."""

    def summarise(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """By name, what is said of the episodes of a panel, one for each task."""
        ...


@runtime_checkable
class Tagged(Protocol):
    """A suite whose actions are blocks with tags of their own, as `<search>Lima</search>`."""

    def action_tags(self) -> Sequence[str]:
        """The names of the tags, without brackets: a block of one is an action as it stands."""
        ...
