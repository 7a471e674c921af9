"""The interfaces of a policy: sample turns for prompts, and score tokens after prompts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter

from tutelage.errors import PolicyError
from tutelage.objective.aligned import Coverage
from tutelage.objective.scores import Scores
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample
from tutelage.types import TopLogprobs

Dtype = Literal["float32", "bfloat16"]


MOST_ENDS: Final = 16
"""Tokens that may end a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One turn to sample.

    `prompt` is always complete. The state of an engine under `key`, the episode, is only a cache:
    the sampled ids depend only on `prompt`, `seed`, `temperature` and the weights.
    """

    key: str
    prompt: Ids
    seed: int
    max_new: int
    temperature: float = 1.0  # 0 takes the likeliest token
    ends: Ids = ()  # the tokens that end the turn, `MOST_ENDS` at most; those of the engine if empty
    family: str = ""  # of the task, for policies that differ by it
    # how many likely tokens are wanted with each that is written, from policies that tell them
    top_logprobs: int = 0

    def refuse_beyond(self, context: int) -> None:
        """Raise PolicyError for a turn that may grow longer than the context."""
        if len(self.prompt) + self.max_new > context:
            raise PolicyError(
                f"a prompt of {len(self.prompt)} tokens and {self.max_new} new ones exceed the "
                f"context of {context}; raise the context or shorten the episode"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A sampled turn. `tokens` include the end-of-turn token; `ended` is False if it was cut."""

    key: str
    tokens: Ids
    logps: tuple[float, ...]  # at the sampling temperature (at 1 where that was 0)
    ended: bool
    top_logprobs: TopLogprobs = ()  # as `Turn` has them


class Engine(Protocol):
    """Samples turns with continuous batching: submit prompts that are ready, poll for results.

    `submit` and `poll` instead of one `act(prompts)`: a turn can start as soon as its environment
    has answered, which a batch call cannot express. One loop polls several engines in turn (student
    and teacher in Guided-OPD) without threads, so that on a CPU the order of events, and with it
    every byte, is the same in every run.
    """

    def submit(self, request: Request) -> None: ...

    def poll(self) -> list[Completion]:
        """Do some work and return the turns that are finished, possibly none."""
        ...

    def release(self, key: str) -> None:
        """Release an episode: it has no further turn."""
        ...

    def refresh(self) -> None:
        """Drop all caches: the weights have changed."""
        ...


class Actor(Engine, Protocol):
    """An engine, and what is needed to build prompts for it."""

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
    """Samples and scores: what a view of an algorithm may name."""


class OpenedPolicy(Policy, Protocol):
    """A policy that a run opened, by the engine that its section names."""

    @property
    def dtype(self) -> Dtype:
        """Of activations: how closely scores of sampled tokens must agree with the sampler's."""
        ...


@runtime_checkable
class Trainable(OpenedPolicy, Protocol):
    """A policy that can be the student: it can be updated, saved and copied."""

    device: str  # of its parameters, such as "cpu"

    def parameters(self) -> Iterator[Parameter]:
        """Those that are trained, in an order that is always the same."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint into a folder that exists; its engine opens it again."""
        ...

    def copied(self) -> "Trainable":
        """A frozen copy with the current weights: the reference of a KL term."""
        ...

    def freeze(self) -> None:
        """Freeze all parameters."""
        ...


Sharding = Literal["no", "update", "always"]
"""When a student's weights are divided over ranks: "update" gathers them for everything else,
"always" gathers them never."""


@runtime_checkable
class Divided(Protocol):
    """The divided form of a policy's weights, of which each rank trains a part.

    whole   the weights that are divided, as they are outside of an update
    parts   this rank's rows of those that are trained, by the number of the weight
    always  whether no rank ever has the whole weights: then every rank makes each pass
    """

    whole: list[Parameter]
    parts: dict[int, Parameter]
    always: bool

    def collect(self) -> None:
        """Move the gradients of the divided weights to the parts."""
        ...

    def put_back(self) -> None:
        """Write the parts, which an optimiser has changed, to the divided weights."""
        ...

    def spread(self, part: Tensor, like: Tensor) -> Tensor:
        """A tensor of the shape of a part, as rows of one of all ranks; any other as it is."""
        ...

    def rows_of(self, part: Tensor, shape: Sequence[int]) -> slice:
        """This rank's rows of a tensor of all ranks that has this shape."""
        ...


@runtime_checkable
class Shards(Protocol):
    """A policy whose weights can be divided over ranks."""

    @property
    def sharded(self) -> Divided | None: ...

    def shard(self, *, offload: bool = False, always: bool = False, device: str = "") -> None:
        """Divide them from now on, on a device, which is by default the one where they are."""
        ...

    def stored(self) -> Mapping[str, Tensor]:
        """What each rank writes its part of into a checkpoint: empty where `save` writes all."""
        ...

    def updating(self) -> AbstractContextManager[None]:
        """Inside the context every rank makes the same passes in the same order."""
        ...

    def idle(self) -> Tensor:
        """A pass in which no token counts: hidden states, whose gradient is 0."""
        ...


@runtime_checkable
class AnswersLate(Protocol):
    """An engine on another machine, whose turns come at any time."""

    def wait(self) -> None:
        """Return when every turn that was submitted is answered, so that `poll` gives them all."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """An engine that knows better than its ids how many tokens were sampled."""

    def tokens_of(self, key: str) -> int:
        """Sampled tokens of all requests with this key; asked once, when its episode has ended."""
        ...


@runtime_checkable
class Prefetches(Protocol):
    """A scorer on another machine, which can compute scores before they are read."""

    def prefetch_scores(self, samples: Sequence[Sample]) -> None:
        """Start to score these sequences, which will be read soon."""
        ...


@runtime_checkable
class Aligns(Protocol):
    """A policy with another tokenizer than the student's, which reads and writes the student's
    tokens as text."""

    def prompt_length(self, prompt: Ids) -> int:
        """Tokens of a prompt as it reads them."""
        ...

    def coverage(self, samples: Sequence[Sample]) -> Coverage:
        """What its scores say of every token of every sample, in order, flat: [N]."""
        ...


@runtime_checkable
class DiffersByFamily(Protocol):
    """Several policies, each for the tasks of its families."""

    def chat_of(self, family: str) -> Chat:
        """The chat of the one that is for a family."""
        ...


@runtime_checkable
class SharesPrefix(Protocol):
    """A scorer that computes a common prefix of samples once."""

    def shared_prefix(self, samples: Sequence[Sample]) -> AbstractContextManager[None]:
        """Inside the context these samples are scored, under unchanged weights. The gradients of
        parameters are complete when it has ended."""
        ...
