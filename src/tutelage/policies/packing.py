"""Samples as packed sequences, and sequences as forward passes within a token budget.

Turns of an append-only episode extend each other, so all of them are scored in one sequence.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from tutelage.prompts.prompter import Sample

DEFAULT_PASS_TOKENS = 16_384
"""Tokens of one forward pass when scoring, unless a policy is given another number."""


@dataclass(slots=True)
class PackedSequence:
    """Token ids, and which of their positions are sampled tokens.

    positions  in `ids` of the sampled tokens
    flat       index of each of them on the flat axis [N] of all samples' tokens
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    flat: list[int] = field(default_factory=list)


def pack(samples: Sequence[Sample]) -> list[PackedSequence]:
    """Sequences that together hold every sample's tokens exactly once.

    A sample whose prompt begins with all of the last sequence continues it; any other starts a new
    sequence. Raises ValueError for an empty prompt.
    """
    sequences: list[PackedSequence] = []
    flat = 0
    for sample in samples:
        if not sample.prompt:
            raise ValueError("a sample needs a prompt: its first token is predicted from one")
        sequence = sequences[-1] if sequences else None
        if sequence is None or not extends(sample.prompt, sequence.ids):
            sequence = PackedSequence(ids=list(sample.prompt))
            sequences.append(sequence)
        else:
            sequence.ids.extend(sample.prompt[len(sequence.ids) :])
        start = len(sequence.ids)
        sequence.ids.extend(sample.tokens)
        sequence.positions.extend(range(start, start + len(sample.tokens)))
        sequence.flat.extend(range(flat, flat + len(sample.tokens)))
        flat += len(sample.tokens)
    return sequences


def extends(prompt: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether a prompt begins with all of `ids`."""
    return len(prompt) >= len(ids) and list(prompt[: len(ids)]) == list(ids)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix, by bisection: comparing slices is fast."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(a[low:middle]) == tuple(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def plan_passes(
    lengths: Sequence[int],
    budget: int,
    *,
    padded: bool = False,
    kinds: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Indices of the sequences of each pass: consecutive ones, as many as `budget` tokens hold.

    A sequence longer than the budget gets a pass of its own. With `padded`, a pass costs its size
    times its longest sequence, so sequences should come sorted by length. Sequences of different
    `kinds` are never in one pass.

    >>> plan_passes([9, 2, 3, 2, 30, 3], 12)
    [[0, 1], [2, 3], [4], [5]]
    >>> plan_passes([2, 2, 3, 3, 9, 30], 12, padded=True)
    [[0, 1, 2, 3], [4], [5]]
    >>> plan_passes([2, 2, 2], 12, kinds="aab")
    [[0, 1], [2]]
    """
    passes: list[list[int]] = []
    size = 0
    for i, length in enumerate(lengths):
        size = length * (len(passes[-1]) + 1) if padded and passes else size + length
        same = kinds is None or (bool(passes) and kinds[passes[-1][-1]] == kinds[i])
        if passes and same and size <= budget:
            passes[-1].append(i)
        else:
            passes.append([i])
            size = length
    return passes


def batches(
    sequences: Sequence[PackedSequence], budget: int, *, padded: bool = False
) -> list[list[PackedSequence]]:
    """Sequences of each pass within `budget` tokens: in their order, or sorted by length if they
    are `padded` to the longest of a pass. Equal input gives equal batches."""
    ordered = sorted(sequences, key=lambda each: len(each.ids)) if padded else sequences
    passes = plan_passes([len(each.ids) for each in ordered], budget, padded=padded)
    return [[ordered[i] for i in indices] for indices in passes]
