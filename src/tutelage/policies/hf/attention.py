"""Attention for the shapes that occur here: whole sequences, side by side or one after another on
a single axis; one new token of each of many rows over a cache, and new tokens of some of them.

transformers' own sdpa path copies keys and values once per query head before it attends with a
mask, which at one new token per row costs more than everything else in a small model.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from tutelage.cpu import onednn, products
from tutelage.errors import PolicyError
from tutelage.policies.hf import shared_prefix
from tutelage.policies.hf.shared_prefix import Prefix

NAME = "tutelage"
MATRIX_ELEMENTS = 1 << 24
"""Scores [B, heads, T, S] up to this many (64 MB in float32) may be formed in one product."""
FEW = 16
"""New tokens of a row for which that is faster than torch's kernel, which takes blocks of them."""
MANY = 1 << 20
"""Entries of keys from which on they are read as rows."""
FAR = 1 << 19
"""Entries of values from which on oneDNN reads them faster, if they lie in one piece."""
WASTE = 1.3
"""Times as many values as are wanted that may be read to have them in one piece."""
ROUGH = 1 << 21
"""Multiplications of a key head's scores from which on blocks are."""
SHORT = 256
"""Tokens of a row up to which the kernel's small products are faster without oneDNN."""
BLOCK, SCORES = 128, 3 << 18
"""New tokens of a row that are scored against its keys in one product, at most, and the scores of
a key head in it (3 MB): beyond that memory is mapped anew for each."""


class Span(NamedTuple):
    """The new tokens of a row: `new` of them after the `held` that its cache holds."""

    row: int
    held: int
    new: int


class Flat:
    """A pass over one axis of tokens [1, N]: no row is padded to the length of another."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self.masks: dict[Span, Tensor] = {}  # made in the first layer
        self.layers = 0  # that have attended

    def mask(self, span: Span, device: torch.device) -> Tensor:
        """True where new token t may look, [1, 1, T, S]: at what came before, and at itself."""
        if span not in self.masks:
            key = torch.arange(span.held + span.new, device=device)
            made = key <= torch.arange(span.held, span.held + span.new, device=device)[:, None]
            self.masks[span] = made[None, None]
        return self.masks[span]


class Packed:
    """A pass over whole sequences one after another on one axis of tokens [1, N]: nothing is
    padded, and none sees another. After a `prefix` they are what follows it; `into` one, the only
    sequence is it."""

    def __init__(
        self, lengths: Sequence[int], device: str, *, prefix: Prefix | None = None,
        into: Prefix | None = None,
    ) -> None:  # fmt: skip
        self.prefix, self.into = prefix, into
        self.lengths, self.longest = tuple(lengths), max(lengths)
        self.ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        self.layers = 0  # that have attended


def check_handed_on(way: Flat | Packed, layers: int) -> None:
    """Raise PolicyError unless every layer of a model attended in the way it was told."""
    if way.layers != layers:
        raise PolicyError(
            "this model's layers do not hand on what attention is told of rows on one axis; choose "
            "a model such as Qwen3 or Llama"
        )


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    flat: Flat | None = None,
    packed: Packed | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, K, S, D] with K dividing H -> [B, T, H, D].

    `attention_mask` is True where attention may look, [B, 1, T, S]; without one it is causal. With
    `flat`, query is [1, H, N, D], and key and value are those of all rows of the cache; with
    `packed` all three are of one axis of N tokens.
    """
    if packed is not None:
        packed.layers += 1
        if packed.into is not None:
            packed.into.take(module.layer_idx, key, value)
        prefix = packed.prefix
        before = None if prefix is None else prefix.leaves[module.layer_idx]
        return _sequences(query, key, value, scaling, packed, before), None
    if flat is not None:
        flat.layers += 1
        return _spans(query, key, value, scaling, flat), None
    if attention_mask is None:
        made = F.scaled_dot_product_attention(
            query, key, value, scale=scaling, is_causal=query.shape[2] > 1, enable_gqa=True
        )
    else:
        made = _masked(query, key, value, attention_mask, scaling)
    return made.transpose(1, 2).contiguous(), None


def _masked(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    elements = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    if query.shape[2] <= FEW and elements <= MATRIX_ELEMENTS:
        return _grouped(query, key, value, mask, scaling)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """The query heads that share a key head as rows of one product: nothing is copied. oneDNN
    takes three times as long for products of so few rows with keys, so they never go there."""
    b, h, t, d = query.shape
    k = key.shape[1]
    q = (query * scaling).reshape(b, k, h // k * t, d)
    whole = _whole(value)
    with products("blas"):
        scores = _scores(q, key).view(b, k, h // k, t, -1)
        if mask is not None:
            scores.masked_fill_(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
        weights = weights.view(b, k, h // k * t, -1)
        if whole is None:
            return (weights @ value).view(b, h, t, d)
    return (F.pad(weights, (0, whole.shape[2] - weights.shape[3])) @ whole).view(b, h, t, d)


def _whole(value: Tensor) -> Tensor | None:
    """The rows of a cache [B, K, S, D] as far as they go: in one piece, which oneDNN reads twice as
    fast as the BLAS, and copies otherwise. None where that is not so, or not worth it."""
    b, k, s, d = value.shape
    slots = value.stride(1) // d
    if value.is_cuda or value.dtype != torch.float32 or value.numel() < FAR or not onednn():
        return None
    if value.stride() != (k * slots * d, slots * d, d, 1) or not s <= slots <= WASTE * s:
        return None
    return value.as_strided((b, k, slots, d), value.stride())


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """query [B, K, R, D] over key [B, K, S, D] -> [B, K, R, S]. A processor reads many keys faster
    as the rows of a product than as its columns."""
    if key.is_cuda or key.numel() < MANY:
        return query @ key.transpose(2, 3)
    return (key @ query.transpose(2, 3)).transpose(2, 3).contiguous()


def _worth(query: Tensor, key: Tensor) -> bool:
    """Whether oneDNN has products of blocks, and they are large enough for it."""
    fits = key.dtype == torch.float32 and not key.is_cuda and onednn()
    return fits and query.numel() // key.shape[1] * key.shape[2] >= ROUGH


def _blocked(query: Tensor, key: Tensor, value: Tensor, scaling: float, held: int) -> Tensor:
    """One row's new tokens, a block of them at a time over no more keys than they may look at:
    [1, H, T, D] over [1, K, held + T, D] -> [1, H, T, D]. torch's kernel with a mask computes what
    is masked, and takes twice as long where oneDNN has the products."""
    _, h, t, d = query.shape
    shared = h // key.shape[1]
    block = max(FEW, min(BLOCK, SCORES // (shared * (held + t))))
    made = torch.empty_like(query, dtype=value.dtype)
    query = query * scaling
    for head in range(key.shape[1]):
        rows = slice(head * shared, (head + 1) * shared)
        for start in range(0, t, block):
            end = min(t, start + block)
            n, high = end - start, held + end
            scores = query[0, rows, start:end].reshape(-1, d) @ key[0, head, :high].T
            later = torch.ones(n, n, dtype=torch.bool, device=query.device).triu(1)
            own = scores.view(shared, n, high)[:, :, held + start :]
            own.masked_fill_(later, torch.finfo(scores.dtype).min)
            part = torch.softmax(scores, -1) @ value[0, head, :high]
            made[0, rows, start:end] = part.view(shared, n, d)
    return made


def _spans(query: Tensor, key: Tensor, value: Tensor, scaling: float, flat: Flat) -> Tensor:
    """A row at a time, over exactly what it holds -> [1, N, H, D]."""
    made = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3], dtype=value.dtype)
    start = 0
    for span in flat.spans:
        end, high = start + span.new, span.held + span.new
        q = query[:, :, start:end]
        k, v = key[span.row, None, :, :high], value[span.row, None, :, :high]
        if span.new == 1:
            part = _grouped(q, k, v, None, scaling)
        elif span.held == 0:
            part = _causal(q, k, v, scaling)
        elif span.new > FEW and _worth(q, k):
            part = _blocked(q, k, v, scaling, span.held)
        else:
            with products("blas"):
                part = _masked(q, k, v, flat.mask(span, q.device), scaling)
        made[:, start:end] = part.transpose(1, 2)
        start = end
    return made


def _sequences(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, packed: Packed,
    before: tuple[Tensor, Tensor] | None,
) -> Tensor:  # fmt: skip
    """Every sequence over what is before all of them, and itself -> [1, N, H, D]: in one kernel on
    a graphics card, which has it for 16 bits, else one after another."""
    if query.is_cuda and value.dtype in (torch.bfloat16, torch.float16):
        q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
        ends, longest = packed.ends, packed.longest
        made = varlen_attn(
            q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0),
            enable_gqa=True,
        )  # fmt: skip
        assert isinstance(made, Tensor)
        return made[None]
    parts = [
        _causal(q, k, v, scaling)
        if before is None
        else shared_prefix.attend(q, k, v, before, scaling)
        for q, k, v in zip(
            *(x.split_with_sizes(packed.lengths, 2) for x in (query, key, value)), strict=True
        )
    ]
    return torch.cat(parts, 2).transpose(1, 2)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """A row over itself [1, H, T, D], by torch's kernel."""
    short = query.shape[2] < SHORT and not query.is_cuda
    with products("blas") if short else nullcontext():
        return F.scaled_dot_product_attention(
            query, key, value, scale=scaling, is_causal=True, enable_gqa=True
        )


def register() -> str:
    """Make the function known to transformers; its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME
