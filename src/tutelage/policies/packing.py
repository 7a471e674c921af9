"""One row per append-only episode: turns that extend each other are scored in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.prompts.prompter import Sample


@dataclass(slots=True)
class Row:
    """A sequence and which of its positions are sampled tokens.

    at   positions in `ids` of the sampled tokens, in the order of `out`
    out  where each of them stands on the flat axis of all samples' tokens
    """

    ids: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    out: list[int] = field(default_factory=list)


def pack(samples: Sequence[Sample]) -> list[Row]:
    """Rows that together hold every sample's tokens once. A sample whose prompt begins with all of
    the last row continues it; any other starts a row of its own (a branch is cut)."""
    rows: list[Row] = []
    flat = 0
    for sample in samples:
        if not sample.prompt:
            raise ValueError("a sample needs a prompt: its first token is predicted from one")
        row = rows[-1] if rows else None
        if row is None or not extends(sample.prompt, row.ids):
            row = Row(ids=list(sample.prompt))
            rows.append(row)
        else:
            row.ids.extend(sample.prompt[len(row.ids) :])
        start = len(row.ids)
        row.ids.extend(sample.tokens)
        row.at.extend(range(start, start + len(sample.tokens)))
        row.out.extend(range(flat, flat + len(sample.tokens)))
        flat += len(sample.tokens)
    return rows


def extends(prompt: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether a prompt begins with all of `ids`."""
    return len(prompt) >= len(ids) and list(prompt[: len(ids)]) == list(ids)


def head_of(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common head."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(a[low:middle]) == tuple(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def batches(rows: Sequence[Row], budget: int, *, padded: bool = False) -> list[list[Row]]:
    """Rows for one pass each, within `budget` tokens (a row longer than that is alone): in their
    order, or, where all are to be `padded` to the longest of a pass, those of like length together.
    Equal input gives equal batches."""
    made: list[list[Row]] = []
    size = 0
    for row in sorted(rows, key=lambda row: len(row.ids)) if padded else rows:
        length = len(row.ids)
        size = length * (len(made[-1]) + 1) if padded and made else size + length
        if made and size <= budget:
            made[-1].append(row)
        else:
            made.append([row])
            size = length
    return made
