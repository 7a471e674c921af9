"""Attention for the three shapes that occur here: whole sequences, one new token of each of many
rows over a cache, and new tokens of some rows one after another on a single axis.

transformers' own sdpa path copies keys and values once per query head before it attends with a
mask, which at one new token per row costs more than everything else in a small model.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "understudy"
MATRIX_ELEMENTS = 1 << 24
"""Scores [B, heads, T, S] up to this many (64 MB in float32) may be formed in one product."""
FEW = 16
"""New tokens of a row for which that is faster than torch's kernel, which takes blocks of them."""


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


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    flat: Flat | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, K, S, D] with K dividing H -> [B, T, H, D].

    `attention_mask` is True where attention may look, [B, 1, T, S]; without one it is causal. With
    `flat`, query is [1, H, N, D], and key and value are those of all rows of the cache.
    """
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
    """The query heads that share a key head as rows of one product: nothing is copied."""
    b, h, t, d = query.shape
    k = key.shape[1]
    q = (query * scaling).reshape(b, k, h // k * t, d)
    scores = (q @ key.transpose(2, 3)).view(b, k, h // k, t, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    return (weights.view(b, k, h // k * t, -1) @ value).view(b, h, t, d)


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
            part = F.scaled_dot_product_attention(
                q, k, v, scale=scaling, is_causal=True, enable_gqa=True
            )
        else:
            part = _masked(q, k, v, flat.mask(span, q.device), scaling)
        made[:, start:end] = part.transpose(1, 2)
        start = end
    return made


def register() -> str:
    """Make the function known to transformers; its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME
