"""Tasks, observations, turns and episodes as plain Python values, without tensors or models."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Real
from typing import Literal, NamedTuple

from tutelage.errors import ConfigError, kind

_NUMBER = (float, int, Real)
"""Kinds of numbers; `Real` alone takes longer to look for."""
_SEQUENCE = (tuple, list)

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request of an agent that keeps its own conversation: every message of it, the last ones to
    be answered."""

    messages: tuple[Message, ...]
    tools: str = ""  # JSON: the functions that the answer may call; empty for none


EXPERT = "expert"
"""The actor name of turns that the environment's expert takes."""
WRONG_TURN = "astray"
"""The actor name of deliberately wrong turns of the expert; no view imitates them."""


class Stop(StrEnum):
    """Why an episode ended."""

    DONE = "done"  # the environment ended the episode
    TURNS = "turns"  # the turn limit did
    TOKENS = "tokens"  # the context limit did
    ERROR = "error"  # the environment raised, or its process died
    TIMEOUT = "timeout"  # the environment missed a deadline

    @property
    def broken(self) -> bool:
        """Whether the episode says nothing about the policy, and so trains nothing."""
        return self in (Stop.ERROR, Stop.TIMEOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to be done. `id` is unique within a suite and never changes."""

    id: str
    family: str = ""  # tasks of one family are reported together
    seed: int = 0
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an environment shows after a reset or a step."""

    text: str
    reward: float = 0.0  # earned by the action that led here
    done: bool = False
    state: Hashable = None  # a key for "the same situation"; None if the environment cannot tell
    score: float | None = None  # progress in [0, 1], if the environment reports it
    won: bool | None = None  # whether the task is solved; None until the episode ends
    valid: bool = True  # whether the environment understood the action that led here
    actions: tuple[str, ...] = ()  # the admissible actions, if the environment lists them
    focus: tuple[str, ...] = ()  # words of the task itself that a renderer may mark
    results: tuple[str, ...] = ()  # what each call of the last answer returned; `text` has all
    call: Call | None = None  # what an agent of its own asks; the prompt is built from it alone
    paid: tuple[tuple[int, float], ...] = ()  # (turn, reward) that earlier turns earned besides
    counts: tuple[tuple[str, int], ...] = ()  # at the end: what an agent did, such as "refused"


TopLogprobs = tuple[tuple[tuple[int, float], ...], ...]
"""Of each token of a turn, (id, log-probability) of tokens that its writer could have written there,
and of the token itself; none where that is not known."""


class Taken(NamedTuple):
    """A turn that changed hands: from token `at` on, the view `by` wrote it."""

    at: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action: the observation before it, the sampled tokens, and its reward.

    `tokens` are the ids as sampled, end-of-turn token included, never re-encoded text. `prompt`
    holds the ids of the actor's prompt that are not already in the turns before: in an append-only
    transcript, prompt_0 + tokens_0 + prompt_1 + tokens_1 ... is the whole sequence;
    where `fresh` is set, `prompt` is complete in itself.

    Raises ConfigError for values of another kind, and for tokens and log-probabilities that are not
    as many as each other.
    """

    observation: Observation
    prompt: tuple[int, ...]
    text: str
    tokens: tuple[int, ...]
    logps: tuple[float, ...]  # log-probability of each token when it was sampled
    action: str = ""  # what the environment was given
    actor: str = "student"  # the view that began it
    taken: Taken | None = None  # the view that finished it, if another one did
    reward: float = 0.0  # from the environment, for this action
    penalty: float = (
        0.0  # subtracted from the reward: for an invalid action, or for the whole episode
    )
    valid: bool = True
    fresh: bool = False
    # updates that the student's weights had when they wrote it; None for those of the step itself
    version: int | None = None
    top_logprobs: TopLogprobs = ()  # of each token; empty if none were recorded

    def __post_init__(self) -> None:
        kind("observation", self.observation, Observation, "a tutelage.Observation")
        for name in ("prompt", "tokens", "logps", "top_logprobs"):
            kind(name, getattr(self, name), _SEQUENCE, "a tuple with a value for each token")
        for name in ("text", "action", "actor"):
            kind(name, getattr(self, name), str, "a text")
        for name in ("reward", "penalty"):
            kind(name, getattr(self, name), _NUMBER, "a number")
        for name in ("valid", "fresh"):
            kind(name, getattr(self, name), bool, "True or False")
        kind("version", self.version, (int, type(None)), "a whole number, or None")
        count = len(self.tokens)
        if count != len(self.logps):
            raise ConfigError(
                f"a turn has {count} tokens but {len(self.logps)} log-probabilities; give logps one "
                "for each token"
            )
        if self.top_logprobs and len(self.top_logprobs) != count:
            raise ConfigError(
                f"a turn has {count} tokens but top_logprobs of {len(self.top_logprobs)}; give those "
                "of each token, or none"
            )
        if self.taken is None:
            return
        kind("taken", self.taken, Taken, "tutelage.types.Taken(at, by), or None")
        if not 0 <= self.taken.at < count:
            raise ConfigError(
                f"a turn of {count} tokens cannot change hands at token {self.taken.at}; give one of "
                "its tokens, counted from 0"
            )

    def writers(self) -> tuple[str, ...]:
        """The writer of each of its tokens."""
        if self.taken is None:
            return (self.actor,) * len(self.tokens)
        rest = len(self.tokens) - self.taken.at
        return (self.actor,) * self.taken.at + (self.taken.by,) * rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """All turns of one attempt at one task. Raises ConfigError for values of another kind."""

    task: Task
    group: str  # episodes of one group share a task and are compared with each other
    turns: tuple[Turn, ...]
    stop: Stop = Stop.DONE
    won: bool = False
    score: float | None = None
    copy: int = 0  # which of the group's attempts this is
    error: str = ""  # what went wrong, if stop is ERROR or TIMEOUT
    # by name, the algorithm's penalties: a part of the last turn's `penalty`
    penalties: Mapping[str, float] = field(default_factory=dict)
    # of an agent of its own: rows of its conversation, requests that were refused, and so on
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind("task", self.task, Task, "a tutelage.Task")
        kind("group", self.group, str, "a text, which episodes of one task share")
        kind("turns", self.turns, _SEQUENCE, "a tuple of tutelage.Turn")
        for turn in self.turns:
            kind("one of the turns", turn, Turn, "a tutelage.Turn")
        kind("stop", self.stop, Stop, "a tutelage.types.Stop, such as Stop.DONE")
        kind("won", self.won, bool, "True or False")
        kind("score", self.score, (*_NUMBER, type(None)), "a number, or None")
        kind("copy", self.copy, int, "a whole number")
        kind("error", self.error, str, "a text")
        for name in ("penalties", "counts"):
            kind(name, getattr(self, name), Mapping, "a dict of numbers by name")

    @property
    def total_reward(self) -> float:
        """The return: rewards less penalties, undiscounted."""
        return sum(turn.reward - turn.penalty for turn in self.turns)
