"""Short prompts of many episodes in one CUDA graph, padded to sizes that come again.

Between turns each episode's prompt has a few new tokens, so the CPU needs longer to launch the kernels
of a pass than a GPU to run them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.policies.hf.attention import NewTokens
from tutelage.policies.hf.cuda_graphs import Recordings, Shape, rounded

MAX_RECORDED_TOKENS = 2048
"""New tokens of a prefill pass up to which it is recorded: a GPU is busy with more for longer than
a CPU needs to launch their kernels."""
MIN_SEEN = 3
"""Prefill passes of a shape from which on it is recorded: recording one takes as long as four."""


class PromptInputs(NamedTuple):
    """What a recorded prefill pass reads, padded to N new tokens of P slots; all int64."""

    ids: Tensor  # [N] of each new token, and so on
    positions: Tensor  # [N]
    token_slots: Tensor  # [N]
    slots: Tensor  # [P]
    used: Tensor  # [P] tokens that a slot holds with the new ones
    last: Tensor  # [P] index of its last new token
    ends: Tensor  # [P + 1] cumulated new tokens, 0 first

    @classmethod
    def over(cls, packed: Tensor, tokens: int, count: int) -> "PromptInputs":
        """Views of one tensor, so that one copy fills all."""
        return cls(*packed.split_with_sizes([*[tokens] * 3, *[count] * 3, count + 1]))

    @staticmethod
    def packed(
        parts: Sequence[NewTokens], ids: Sequence[int], tokens: int, count: int, spare: int
    ) -> Tensor:
        """On the CPU. What is padded belongs to no slot: it goes to position `spare` of slot 0."""
        pad, missing = [0] * (tokens - len(ids)), count - len(parts)
        ends = list(accumulate((p.new for p in parts), initial=0))
        columns = (
            (*ids, *pad),
            (*chain(*(range(p.cached, p.cached + p.new) for p in parts)), *(spare for _ in pad)),
            (*chain(*([p.slot] * p.new for p in parts)), *pad),
            (*(p.slot for p in parts), *[0] * missing),
            (*(p.cached + p.new for p in parts), *[1] * missing),
            (*(end - 1 for end in ends[1:]), *[0] * missing),
            (*ends, *ends[-1:] * missing),
        )
        return torch.tensor([*chain(*columns)])


class RecordedPrompts:
    """Prefill passes by shape: one is recorded when its shape has come often enough.

    recordings  of the engine; they are forgotten when the cache moves
    slots       of the engine, at most
    """

    def __init__(self, recordings: Recordings, slots: int, device: str) -> None:
        self.recordings, self.slots, self.device = recordings, slots, device
        self.seen: Counter[Shape] = Counter()
        self.inputs: dict[Shape, Tensor] = {}
        self.outputs = torch.empty(0, 0, device=device)  # logits of the last pass [slots, V]

    def logits(
        self,
        parts: Sequence[NewTokens],
        ids: Sequence[int],
        step: Callable[[PromptInputs], Tensor],
        *,
        spare: int,
        entries: int,
    ) -> Tensor | None:
        """Logits [B, V] after the last new token of each part; None where a graph is not worth it.

        ids      the parts' new tokens, one part after another
        step     the pass to be recorded: its inputs -> logits [P, V], P >= B
        spare    the position of a slot that padding is written to
        entries  V
        """
        if len(ids) > MAX_RECORDED_TOKENS:
            return None
        tokens, count = rounded(len(ids), MAX_RECORDED_TOKENS), 1 << (len(parts) - 1).bit_length()
        shape = ("prompts", tokens, count)
        self.seen[shape] += 1
        if self.seen[shape] < MIN_SEEN:
            return None
        packed = PromptInputs.packed(parts, ids, tokens, count, spare)
        if shape not in self.inputs:
            self.inputs[shape] = torch.zeros(len(packed), dtype=torch.long, device=self.device)
        self.inputs[shape].copy_(packed)
        inputs = PromptInputs.over(self.inputs[shape], tokens, count)
        if len(self.outputs) < count:
            rows = 1 << (self.slots - 1).bit_length()
            self.outputs = torch.zeros(rows, entries, device=self.device)

        def record() -> None:
            self.outputs[:count] = step(inputs)

        self.recordings.get(shape, record)()
        return self.outputs[: len(parts)]
