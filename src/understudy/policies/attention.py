"""Attention for the two shapes that occur here: whole sequences, and a few new tokens over a cache.

transformers' own sdpa path copies keys and values once per query head before it attends with a
mask, which at one new token per row costs more than everything else in a small model.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "understudy"
MATRIX_ELEMENTS = 1 << 24
"""Scores [B, heads, T, S] up to this many (64 MB in float32) are formed in one product."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, K, S, D] with K dividing H -> [B, T, H, D].

    `attention_mask` is True where attention may look, [B, 1, T, S]; without one it is causal.
    """
    if attention_mask is None:
        made = F.scaled_dot_product_attention(
            query, key, value, scale=scaling, is_causal=query.shape[2] > 1, enable_gqa=True
        )
    elif query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] <= MATRIX_ELEMENTS:
        made = _grouped(query, key, value, attention_mask, scaling)
    else:
        made = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
    return made.transpose(1, 2).contiguous(), None


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """The query heads that share a key head as rows of one product: nothing is copied."""
    b, h, t, d = query.shape
    k = key.shape[1]
    q = (query * scaling).reshape(b, k, h // k * t, d)
    scores = (q @ key.transpose(2, 3)).view(b, k, h // k, t, -1)
    scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    return (weights.view(b, k, h // k * t, -1) @ value).view(b, h, t, d)


def register() -> str:
    """Make the function known to transformers; its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME
