"""What a language model must be able to do here: continue token ids, and score them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tutelage.objective.scores import Scores
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One turn to be sampled. What a policy remembers of `key`'s earlier turns is only a cache:
    `prompt` is complete, and the sampled ids depend on nothing else but `seed` and the weights."""

    key: str
    prompt: Ids
    seed: int
    max_new: int
    temperature: float = 1.0  # 0 takes the likeliest token


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """`tokens` keep their end-of-turn token; `ended` is False where max_new cut them off."""

    key: str
    tokens: Ids
    logps: tuple[float, ...]  # at the sampling temperature (at 1 where that was 0)
    ended: bool


class Engine(Protocol):
    """Samples turns. Submit what is ready, poll for what is finished: continuous batching."""

    def submit(self, request: Request) -> None: ...

    def poll(self) -> list[Completion]:
        """Do some work and return what it finished, perhaps nothing."""
        ...

    def release(self, key: str) -> None:
        """Forget an episode: its next turn will not come."""
        ...

    def refresh(self) -> None:
        """Forget everything remembered: the weights have changed."""
        ...


class Actor(Engine, Protocol):
    """An engine, and what prompts for it are made with."""

    @property
    def chat(self) -> Chat: ...

    @property
    def context_length(self) -> int: ...


class Scorer(Protocol):
    @property
    def chat(self) -> Chat: ...

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Scores of every token of every sample, in order, flat: [N]."""
        ...


class Policy(Actor, Scorer, Protocol):
    """Both: what a view of an algorithm may name."""


@runtime_checkable
class Foresees(Protocol):
    """A scorer that can begin before it is asked: one that another machine works for."""

    def expect(self, samples: Sequence[Sample]) -> None:
        """These will be scored soon, in such rows."""
        ...


@runtime_checkable
class Shares(Protocol):
    """A scorer that computes once what samples have in common."""

    def sharing(self, samples: Sequence[Sample]) -> AbstractContextManager[None]:
        """These are scored within, under the weights of now. Gradients of parameters are whole when
        the context has ended."""
        ...
