"""The attention function given to transformers: packed sequences, and new tokens over a KV cache.

transformers' own sdpa path copies keys and values once per query head when there is a mask. At
batch 64, one new token and 512 cached ones (head size 32) that took 8.9 ms a layer on one CPU core,
the grouped product below 3.2 ms.

Three passes occur on a CPU. Scoring without padding (`PackedPass`): sequences lie one after another on one
axis of tokens and each attends to itself, never through a block mask, which was measured twice as
slow on a CPU. Prefilling (`FlatPass`): the new tokens of several cache slots lie on one axis, and
each slot attends to exactly what it holds. Decoding: one new token for each of several neighbouring
slots, read in one product. On a GPU and in 16 bits, one kernel serves the last two (`SlotReads`): it
reads each slot up to its own length, and nothing is copied.

oneDNN or BLAS, on a CPU, is chosen by shape:
- Decoding products of one token's few heads with its keys have very few rows; oneDNN needs three
  times as long for them (six layers of 8 slots with 2,560 keys: 17.5 ms beside 5.4), so they go to
  the BLAS, with many keys as the rows of the product, not its columns (3.8 ms).
- Products with many values go to oneDNN, which reads them twice as fast where they lie in one piece
  (8 slots, 2 heads, 2,048 keys: 0.32 ms beside 0.75) and copies them where they do not.
- New tokens after cached ones go through blocks: torch's kernel with a mask computes what is masked
  (448 tokens over 2,560: 18.5 ms a layer; blocks of 64 with oneDNN 10.9).
- oneDNN takes some 14 us to begin a product, so sequences of fewer than 256 tokens stay with the
  BLAS (128 tokens, forward and backward: 1.1 ms beside 2.7).
- In 16 bits oneDNN builds a kernel anew for nearly every sequence's length, so whole sequences attend in
  float32 (9 heads of 64, forward and backward, Xeon with AMX: 120 tokens 4 ms beside 13, 500 tokens 31
  beside 37, 1,150 tokens 106 beside 93; means over 30 lengths, beside other work). One new token of a slot
  goes through torch's kernel, which reads 16 bits and widens nothing (100 slots of 400 tokens: 5.7 ms
  beside 10.7 of the grouped product, measured once; one slot of 400: 0.05 ms beside 0.39, median of 15).
Else medians of 7 to 20 on an AMD EPYC; `benchmarks/generation.py --full` measures whole turns.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.cpu import onednn, products
from tutelage.errors import PolicyError
from tutelage.policies.hf import shared_prefix
from tutelage.policies.hf.compat import varlen_causal, varlen_over_slots
from tutelage.policies.hf.shared_prefix import Prefix

NAME = "tutelage"
MAX_GROUPED_SCORES = 1 << 24
"""Scores [B, heads, T, S] that may be formed in one product (64 MB in float32)."""
MAX_GROUPED_TOKENS = 16
"""New tokens of a slot up to which one product is faster than torch's kernel, which works in
blocks of tokens."""
MIN_KEYS_AS_ROWS = 1 << 20
"""Entries of keys from which on they are the rows of the product."""
MIN_ONEDNN_VALUES = 1 << 19
"""Entries of values from which on oneDNN reads them faster, if they lie in one piece."""
MAX_OVERREAD = 1.3
"""Factor by which more values than needed may be read to have them in one piece."""
MIN_BLOCKED_MULTIPLICATIONS = 1 << 21
"""Multiplications of one key head's scores from which on blocks are faster."""
MIN_ONEDNN_TOKENS = 256
"""Tokens of a sequence from which on the kernel is faster with oneDNN."""
BLOCK_TOKENS, BLOCK_SCORES = 128, 3 << 18
"""New tokens of a slot in one block at most, and scores of a key head in it (3 MB): memory beyond
that is mapped again for each block."""


class NewTokens(NamedTuple):
    """Part of a flat pass: `new` tokens of a cache slot, after the `cached` ones that it holds."""

    slot: int
    cached: int
    new: int


class SlotReads:
    """A pass over new tokens of P sequences on one axis [1, N], by one kernel on a GPU that reads
    keys and values where they lie in the cache. Tensors only: it can be recorded.

    slots, used  [P] int32: each sequence's slot, and the tokens that it holds with the new ones
    ends         [P + 1] int32: cumulated new tokens, 0 first
    longest      new tokens of a sequence at most
    longest_keys tokens that one holds at most
    """

    def __init__(
        self, slots: Tensor, used: Tensor, ends: Tensor, *, longest: int, longest_keys: int
    ) -> None:
        self.slots, self.used, self.ends = slots, used, ends
        self.longest, self.longest_keys = longest, longest_keys
        self.layers = 0  # that have attended
        self._starts: tuple[int, Tensor] | None = None

    def starts(self, rows: int) -> Tensor:
        """[P + 1] int32: where each sequence's slot begins if a slot is so many rows; its last entry
        stands for nothing. Computed in the first layer, for all."""
        if self._starts is None or self._starts[0] != rows:
            self._starts = rows, F.pad(self.slots * rows, (0, 1))
        return self._starts[1]

    @classmethod
    def of(cls, parts: Sequence[NewTokens], device: torch.device | str) -> "SlotReads":
        held = [p.cached + p.new for p in parts]
        slots, used, ends = (
            torch.tensor(x, dtype=torch.int32, device=device)
            for x in ([p.slot for p in parts], held, [0, *accumulate(p.new for p in parts)])
        )
        return cls(slots, used, ends, longest=max(p.new for p in parts), longest_keys=max(held))


class FlatPass:
    """A pass over new tokens of several cache slots, on one axis [1, N]: nothing is padded."""

    def __init__(self, parts: Sequence[NewTokens]) -> None:
        self.parts = parts
        self.masks: dict[NewTokens, Tensor] = {}  # made in the first layer
        self.layers = 0  # that have attended

    def mask(self, part: NewTokens, device: torch.device) -> Tensor:
        """True where new token t may look, [1, 1, T, S]: at earlier tokens and itself."""
        if part not in self.masks:
            end = part.cached + part.new
            key = torch.arange(end, device=device)
            query = torch.arange(part.cached, end, device=device)
            self.masks[part] = (key <= query[:, None])[None, None]
        return self.masks[part]


class PackedPass:
    """A pass over whole sequences, one after another on one axis [1, N]; none sees another.

    prefix  what all sequences begin with, computed before: only their other tokens are passed
    into    the only sequence is this prefix: collect its keys and values
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: str,
        *,
        prefix: Prefix | None = None,
        into: Prefix | None = None,
    ) -> None:
        self.prefix, self.into = prefix, into
        self.lengths, self.longest = tuple(lengths), max(lengths)
        self.ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        self.layers = 0  # that have attended


def check_all_layers_attended(tokens: FlatPass | PackedPass | SlotReads, layers: int) -> None:
    """Raise PolicyError unless every layer of the model called `attend` with this pass."""
    if tokens.layers != layers:
        raise PolicyError(
            "this model's layers do not pass keyword arguments on to attention, which packed "
            "sequences need; choose a model such as Qwen3 or Llama"
        )


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    flat: FlatPass | None = None,
    reads: SlotReads | None = None,
    packed: PackedPass | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, K, S, D] with K dividing H -> [B, T, H, D].

    `attention_mask` is True where attention may look, [B, 1, T, S]; without one it is causal. With
    `flat` or `reads`, query is [1, H, N, D], and key and value are those of all slots of the cache;
    with `packed` all three are on one axis of N tokens.
    """
    if packed is not None:
        packed.layers += 1
        if packed.into is not None:
            packed.into.add(module.layer_idx, key, value)
        prefix = packed.prefix
        before = None if prefix is None else prefix.leaves[module.layer_idx]
        return _packed(query, key, value, scaling, packed, before), None
    if reads is not None:
        reads.layers += 1
        return _read_slots(query, key, value, scaling, reads), None
    if flat is not None:
        flat.layers += 1
        return _flat(query, key, value, scaling, flat), None
    if attention_mask is None:
        attended = _of_torch(query, key, value, None, scaling, causal=query.shape[2] > 1)
    else:
        attended = _masked(query, key, value, attention_mask, scaling)
    return attended.transpose(1, 2).contiguous(), None


def _masked(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    scores = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    few = query.shape[2] <= MAX_GROUPED_TOKENS and scores <= MAX_GROUPED_SCORES
    if few and (key.is_cuda or key.dtype == torch.float32):
        return _grouped(query, key, value, mask, scaling)
    return _of_torch(query, key, value, mask, scaling, causal=False)


def _of_torch(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, *, causal: bool
) -> Tensor:
    """torch's kernel. Of those for float32 on a GPU only the one that forms all scores [B, H, T, S],
    and keeps them for the backward pass, takes fewer key heads than query heads: they are copied."""
    group = query.shape[1] // key.shape[1]
    copied = group > 1 and copies_key_heads(query, value)
    if copied:
        key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        scale=scaling,
        is_causal=causal,
        enable_gqa=not copied,
    )


def copies_key_heads(query: Tensor, value: Tensor) -> bool:
    """Whether torch's kernel is given a copy of each key head for each of its query heads."""
    return query.is_cuda and _computed_in(value) == torch.float32


def _computed_in(x: Tensor) -> torch.dtype:
    """The dtype in which attention to x is computed. Under autocast on a GPU it is that of autocast,
    in which linear layers write what they compute; those in 4 bits write the dtype of their input."""
    if x.is_cuda and torch.is_autocast_enabled("cuda") and x.dtype == torch.float32:
        return torch.get_autocast_dtype("cuda")
    return x.dtype


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """The query heads that share a key head as rows of one product: nothing is copied. The scores
    always go to the BLAS (see above)."""
    b, h, t, d = query.shape
    k = key.shape[1]
    q = (query * scaling).reshape(b, k, h // k * t, d)
    contiguous = contiguous_values(value)
    with products("blas"):
        scores = _scores(q, key).view(b, k, h // k, t, -1)
        if mask is not None:
            scores.masked_fill_(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
        weights = weights.view(b, k, h // k * t, -1)
        if contiguous is None:
            return (weights @ value).view(b, h, t, d)
    unused = contiguous.shape[2] - weights.shape[3]
    return (F.pad(weights, (0, unused)) @ contiguous).view(b, h, t, d)


def contiguous_values(value: Tensor) -> Tensor | None:
    """The slots of a cache behind `value` [B, K, S, D] up to their capacity: one piece of memory,
    which oneDNN reads twice as fast as the BLAS. None where that is not so, or not worth it."""
    b, k, s, d = value.shape
    capacity = value.stride(1) // d
    if value.is_cuda or value.dtype != torch.float32 or value.numel() < MIN_ONEDNN_VALUES:
        return None
    if not onednn() or not s <= capacity <= MAX_OVERREAD * s:
        return None
    if value.stride() != (k * capacity * d, capacity * d, d, 1):
        return None
    return value.as_strided((b, k, capacity, d), value.stride())


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """query [B, K, R, D] over key [B, K, S, D] -> [B, K, R, S]. A CPU reads many keys faster as the
    rows of a product than as its columns."""
    if key.is_cuda or key.numel() < MIN_KEYS_AS_ROWS:
        return query @ key.transpose(2, 3)
    return (key @ query.transpose(2, 3)).transpose(2, 3).contiguous()


def blocks_are_faster(query: Tensor, key: Tensor) -> bool:
    """Whether oneDNN multiplies blocks of scores, and they are large enough for it."""
    fits = key.dtype == torch.float32 and not key.is_cuda and onednn()
    multiplications = query.numel() // key.shape[1] * key.shape[2]
    return fits and multiplications >= MIN_BLOCKED_MULTIPLICATIONS


def blocked(query: Tensor, key: Tensor, value: Tensor, scaling: float, cached: int) -> Tensor:
    """One slot's new tokens, a block at a time over no more keys than they may look at:
    [1, H, T, D] over [1, K, cached + T, D] -> [1, H, T, D].

    torch's kernel with a mask computes what is masked and takes twice as long where oneDNN forms
    the products.
    """
    _, h, t, d = query.shape
    group = h // key.shape[1]
    block = max(MAX_GROUPED_TOKENS, min(BLOCK_TOKENS, BLOCK_SCORES // (group * (cached + t))))
    attended = torch.empty_like(query, dtype=value.dtype)
    query = query * scaling
    for head in range(key.shape[1]):
        rows = slice(head * group, (head + 1) * group)
        for start in range(0, t, block):
            end = min(t, start + block)
            n, high = end - start, cached + end
            scores = query[0, rows, start:end].reshape(-1, d) @ key[0, head, :high].T
            later = torch.ones(n, n, dtype=torch.bool, device=query.device).triu(1)
            inside = scores.view(group, n, high)[:, :, cached + start :]
            inside.masked_fill_(later, torch.finfo(scores.dtype).min)
            part = torch.softmax(scores, -1) @ value[0, head, :high]
            attended[0, rows, start:end] = part.view(group, n, d)
    return attended


def _flat(query: Tensor, key: Tensor, value: Tensor, scaling: float, flat: FlatPass) -> Tensor:
    """Each slot over exactly what it holds -> [1, N, H, D], a slot at a time."""
    attended = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3], dtype=value.dtype)
    start = 0
    for tokens in flat.parts:
        end, high = start + tokens.new, tokens.cached + tokens.new
        q = query[:, :, start:end]
        k, v = key[tokens.slot, None, :, :high], value[tokens.slot, None, :, :high]
        if tokens.new == 1:
            part = _masked(q, k, v, None, scaling)
        elif tokens.cached == 0:
            part = _causal(q, k, v, scaling)
        elif tokens.new > MAX_GROUPED_TOKENS and blocks_are_faster(q, k):
            part = blocked(q, k, v, scaling, tokens.cached)
        else:
            with products("blas"):
                part = _masked(q, k, v, flat.mask(tokens, q.device), scaling)
        attended[:, start:end] = part.transpose(1, 2)
        start = end
    return attended


def _read_slots(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, reads: SlotReads
) -> Tensor:
    """The same in one kernel, for a GPU and 16 bits."""
    slots, heads, capacity, size = key.shape
    # a row is one token of one head; the heads of a slot lie `capacity` rows apart
    rows = (slots - 1) * heads * capacity + capacity
    strides = (size, capacity * size, 1)
    return varlen_over_slots(
        query[0].transpose(0, 1).to(value.dtype),
        key.as_strided((rows, heads, size), strides),
        value.as_strided((rows, heads, size), strides),
        reads.ends,
        reads.starts(heads * capacity),
        reads.used,
        reads.longest,
        reads.longest_keys,
        scaling,
    )[None]


def _packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    packed: PackedPass,
    before: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Every sequence over the prefix before all of them, and itself -> [1, N, H, D]: in one kernel
    on a GPU, which has it for 16 bits, else one after another."""
    low = _computed_in(value)
    if query.is_cuda and low in (torch.bfloat16, torch.float16):
        q, k, v = (x[0].transpose(0, 1).to(low) for x in (query, key, value))
        return varlen_causal(q, k, v, packed.ends, packed.longest, scaling)[None]
    wide = torch.promote_types(low, torch.float32)
    query, key, value = (x.to(wide) for x in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):  # which would round them again
        parts = [
            _causal(q, k, v, scaling)
            if before is None
            else shared_prefix.attend(q, k, v, before, scaling)
            for q, k, v in zip(
                *(x.split_with_sizes(packed.lengths, 2) for x in (query, key, value)), strict=True
            )
        ]
    return torch.cat(parts, 2).transpose(1, 2).to(low)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """A sequence over itself [1, H, T, D], by torch's kernel."""
    short = query.shape[2] < MIN_ONEDNN_TOKENS and not query.is_cuda
    with products("blas") if short else nullcontext():
        return _of_torch(query, key, value, None, scaling, causal=True)


def register() -> str:
    """Register `attend` with transformers; its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME
