"""The plain path: a model's own forward pass and its own cache, for what the fast path cannot do.

Sliding windows, attention sinks, soft caps, latent or linear attention and recurrent state all live
in the model's own code and in the cache that it makes. Nothing is packed, shared or copied between
slots: a turn is sampled one token after another by itself, with the episode's cache kept from turn
to turn, and sequences are scored side by side, padded at their ends, or each by itself where padding
changes numbers. How much of that a model bears is found by trying it when it is loaded.

Where a token's probabilities depend on the tokens after it too, none of that is right: each token is
recomputed, in sampling and in scoring, by a pass of its own over exactly the tokens before it.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.errors import PolicyError
from tutelage.maths.distributions import capped, raw_logits
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.readout import Readout, caught
from tutelage.policies.hf.sampling import SlotSampler
from tutelage.policies.packing import extends

PIECE = 1024
"""New tokens of a prompt fed at once, where the cache may be fed several: eager attention forms all
of their scores."""
STATES = ("cache", "past_key_values", "cache_params", "state", "past_buckets_states", "mems")
"""Names under which models return and take what they remember."""
Feeding = Literal["several", "one", "none"]
"""How a cache that holds tokens is fed further ones: several in a pass, one in a pass, or not at all,
so that every token needs a pass over all before it."""
Given = Literal["tokens", "mask", "positions"]
"""What a pass is given: tokens alone, a mask of all tokens too, or that and the tokens' positions,
which some models count wrongly by their cache (Bamba: by a layer that has no keys)."""
TRIED: tuple[tuple[Feeding, Given], ...] = (
    ("several", "tokens"),
    ("several", "mask"),
    ("one", "tokens"),
    ("one", "mask"),
    ("several", "positions"),
    ("one", "positions"),
    ("none", "tokens"),
)
"""Ways to sample, the most usual first."""


class PlainPath:
    """A model's own passes.

    context  in which a pass over so many tokens runs: autocast, and which library multiplies
    switch   length up to which rotations have other factors than beyond it (0: none): a token's
             distribution is that of a pass over exactly the tokens before it
    padded   whether sequences may be padded to the longest of a pass
    recomputed
             whether every token is scored by a pass of its own over exactly the tokens before it
    """

    def __init__(
        self,
        model: Any,
        readout: Readout,
        context: Callable[[int], AbstractContextManager[Any]],
        *,
        size: int,
        switch: int,
        device: str,
    ) -> None:
        self.model, self.readout, self.context = model, readout, context
        self.size, self.switch, self.device = size, switch, device
        self.padded, self.recomputed = True, False
        self.feeding: Feeding = "several"
        self.given: Given = "tokens"
        names = inspect.signature(model.forward).parameters
        self.known = {name for name in STATES if name in names}

    @property
    def cost(self) -> str:
        """What is slower than in other plain passes; empty if nothing is."""
        if self.recomputed:
            return (
                "each token's probabilities depend on the tokens after it, so every token is "
                "sampled, and scored, by a pass of its own over all before it"
            )
        if self.feeding == "none":
            return (
                "it has no cache that is right, so every token is sampled by a pass over all before"
            )
        return ""

    def over(
        self,
        model: Any,
        readout: Readout,
        context: Callable[[int], AbstractContextManager[Any]],
    ) -> "PlainPath":
        """The same way of computing, for a copy of the model."""
        path = copy.copy(self)
        path.model, path.readout, path.context = model, readout, context
        return path

    def _run(self, ids: Tensor, **more: Any) -> tuple[Tensor, Any]:
        """Rows [B, T, H] that the head is multiplied with, or logits, and the model's output."""
        inputs = {**generating(self.model, ids), **more} if self.recomputed else more
        inputs.setdefault("input_ids", ids)
        with self.context(ids.numel()):
            if self.readout.output is None:
                result = self.model(**inputs)
                return result.logits[..., : self.size], result
            with caught(self.readout.output) as states:
                result = self.model(**inputs)
        return self.readout.rows(states[0]), result

    def next_rows(self, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        """Rows [N, H] that predict the tokens at some places of a sequence, each by a pass over
        exactly the tokens before it."""
        rows = []
        for place in places:
            before = torch.tensor([list(ids[:place])], device=self.device)
            rows.append(self._run(before, use_cache=False)[0][0, -1])
        return torch.stack(rows)

    def rows(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Rows [B, T, H] of sequences padded to the longest."""
        width = max(len(ids) for ids in sequences)
        padded = [[*ids, *[ids[-1]] * (width - len(ids))] for ids in sequences]
        whole = self._run(torch.tensor(padded, device=self.device), use_cache=False)[0]
        if not 0 < self.switch < width:
            return whole
        assert len(sequences) == 1, "sequences on both sides of the switch share no pass"
        first = self._run(
            torch.tensor([padded[0][: self.switch]], device=self.device), use_cache=False
        )
        return torch.cat([first[0], whole[:, self.switch :]], 1)

    def groups(self, lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
        """Indices of the sequences of each pass of at most `budget` padded tokens."""
        group: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            alone = not self.padded or 0 < self.switch < lengths[i]
            if group and (alone or lengths[i] * (len(group) + 1) > budget):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    @torch.no_grad()
    def feed(self, held: "Held", ids: Sequence[int]) -> None:
        """Let `held` hold all of `ids`, which begin with what it holds, and know the logits after
        the last of them."""
        crossing = self.switch > 0 and len(held.ids) <= self.switch < len(ids)
        if self.feeding == "none" or crossing:
            held.ids, held.state = (), None
        at = len(held.ids)
        while at < len(ids):
            end = min(len(ids), self._end(at, crossing, len(ids)))
            new = torch.tensor([ids[at:end]], device=self.device)
            more: dict[str, Any] = {"use_cache": self.feeding != "none"}
            if held.state is not None:
                more[held.name] = held.state
            if self.given != "tokens":
                more["attention_mask"] = torch.ones(1, end, dtype=torch.long, device=self.device)
            if self.given == "positions":
                more["position_ids"] = torch.arange(at, end, device=self.device)[None]
            rows, result = self._run(new, **more)
            if self.feeding != "none":
                held.name, held.state = self._state(result)
            held.rows, at = rows[0, -1:], end
        held.ids = tuple(ids)

    def _end(self, at: int, crossing: bool, whole: int) -> int:
        """How far the next pass goes."""
        if at and self.feeding == "one":
            return at + 1
        return at + PIECE if self.feeding == "several" and not crossing else whole

    def _state(self, result: Any) -> tuple[str, Any]:
        for name in STATES:
            if name in self.known and getattr(result, name, None) is not None:
                return name, getattr(result, name)
        raise PolicyError(f"{type(self.model).__name__} returns no cache")

    def logits(self, rows: Tensor, head: Tensor) -> Tensor:
        """Rows [B, H] -> logits [B, V]."""
        if head.dtype == torch.bfloat16:
            rows = rows.bfloat16()
        return capped(raw_logits(rows, head.to(rows.dtype)), self.readout.cap)


def generating(model: Any, ids: Tensor) -> dict[str, Any]:
    """The inputs with which transformers' own `generate` asks for the token after ids [1, T], where
    the model's class says more than the tokens: XLNet's target is an input."""
    prepare = getattr(type(model), "prepare_inputs_for_generation", None)
    if prepare is None or "GenerationMixin" in prepare.__qualname__:
        return {}
    inputs = prepare(model, ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return {key: value for key, value in inputs.items() if value is not None}


@dataclass(slots=True)
class Held:
    """What an episode's cache holds: tokens, the model's own state after them, and the row [1, H]
    that predicts the next token."""

    ids: tuple[int, ...] = ()
    state: Any = None
    name: str = ""
    rows: Tensor | None = None
    used: int = 0

    def copied(self) -> "Held":
        return Held(self.ids, copy.deepcopy(self.state), self.name, self.rows)


def size_of(state: Any, seen: set[int] | None = None) -> int:
    """Bytes of all tensors inside a cache of any kind."""
    seen = set() if seen is None else seen
    if id(state) in seen:
        return 0
    seen.add(id(state))
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(size_of(x, seen) for x in state.values())
    if isinstance(state, list | tuple):
        return sum(size_of(x, seen) for x in state)
    return size_of(vars(state), seen) if hasattr(state, "__dict__") else 0


class PlainEngine:
    """Samples turns one at a time, so that no number depends on what else is sampled.

    head    returns the current LM head
    slots   episodes whose caches are kept, within `budget` bytes; the longest idle goes first, and
            is computed again if its episode comes back
    """

    def __init__(
        self,
        path: PlainPath,
        head: Callable[[], Tensor],
        *,
        ends: Sequence[int],
        context: int,
        slots: int,
        budget: int,
    ) -> None:
        self.path, self.head, self.context = path, head, context
        self.slots, self.budget = slots, budget
        self.sampler = SlotSampler(1, ends, path.device)
        self.waiting: list[Request] = []
        self.episodes: dict[str, Held] = {}
        self.clock = 0

    def submit(self, request: Request) -> None:
        request.refuse_beyond(self.context)
        self.waiting.append(request)

    def release(self, key: str) -> None:
        self.episodes.pop(key, None)

    def refresh(self) -> None:
        self.waiting, self.episodes = [], {}

    def poll(self) -> list[Completion]:
        """Sample the whole turn of the request that has waited longest."""
        return [self._play(self.waiting.pop(0))] if self.waiting else []

    @torch.no_grad()
    def _play(self, request: Request) -> Completion:
        held = self._held(request)
        sampler, one = self.sampler, slice(0, 1)
        sampler.begin([0], [request])
        head = self.head()
        while True:
            assert held.rows is not None
            if bool(sampler.sample(one, self.path.logits(held.rows, head))):
                break
            self.path.feed(held, (*held.ids, int(sampler.last[0])))
        self._evict(request.key)
        return sampler.completions([0], [request])[0]

    def _held(self, request: Request) -> Held:
        """The episode's cache, holding the prompt. Others that wait with the same prompt, as the
        episodes of a group do, get copies of it."""
        held = self.episodes.pop(request.key, None)
        if held is None or not extends(request.prompt, held.ids):
            held = Held()
        if len(held.ids) < len(request.prompt):
            self.path.feed(held, request.prompt)
        self.clock += 1
        held.used = self.clock
        self.episodes[request.key] = held
        for other in self.waiting:
            room = len(self.episodes) < self.slots and self._bytes() < self.budget
            if other.prompt == request.prompt and other.key not in self.episodes and room:
                self.episodes[other.key] = held.copied()
        return held

    def _bytes(self) -> int:
        return sum(size_of(held.state) for held in self.episodes.values())

    def _evict(self, own: str) -> None:
        while len(self.episodes) > self.slots or self._bytes() > self.budget:
            idle = [key for key in self.episodes if key != own]
            if not idle:
                break
            del self.episodes[min(idle, key=lambda key: self.episodes[key].used)]
