"""What the installed torch and transformers offer: every difference between supported versions.

Each difference is decided once, by a function's signature and not by a version number, so that
development builds and backports are answered correctly too.
"""

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor


def varlen_attn(*args: Any, **options: Any) -> Any:
    """torch's attention within sequences of one axis. Importing it imports torch's compiler, over a
    second that a process without a GPU need not pay: hence here."""
    from torch.nn.attention import varlen

    return varlen.varlen_attn(*args, **options)


@cache
def varlen_takes(argument: str) -> bool:
    """Whether the installed `varlen_attn` has an argument. torch 2.12 gave it `enable_gqa`, for fewer
    key than query heads, and `seqused_k`, for lengths of keys; the kernel behind it had both before."""
    from torch.nn.attention import varlen

    return argument in inspect.signature(varlen.varlen_attn).parameters


def cache_argument(base: Any) -> str:
    """The name under which a transformers model without its head takes a KV cache.

    transformers 5.24 renamed `past_key_values` to `cache` and warns about the old name; a model
    whose code comes with its weights may know only one of the two.
    """
    names = inspect.signature(base.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def varlen_causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    longest: int,
    scaling: float,
) -> Tensor:
    """Causal attention within each sequence of one axis, on a GPU.

    query [N, H, D], key and value [N, K, D] with K dividing H, and `ends` the cumulated lengths
    (0 first) -> [N, H, D].
    """
    grouped = query.shape[1] != key.shape[1]
    options: dict[str, Any] = {}
    if varlen_takes("enable_gqa"):
        options["enable_gqa"] = True
    elif grouped:
        copies = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(copies, 1) for x in (key, value))
    attended = varlen_attn(
        query,
        key,
        value,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        **options,
    )
    assert isinstance(attended, Tensor)
    return attended


def varlen_over_slots(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    starts: Tensor,
    used: Tensor,
    longest: int,
    longest_keys: int,
    scaling: float,
) -> Tensor:
    """Causal attention of the last tokens of P sequences over keys that stay where they are, on a
    GPU.

    query [N, H, D], of which ends[P + 1] are the cumulated lengths (0 first); key and value
    [R, K, D], where sequence p has `used[p]` rows from row starts[p] on -> [N, H, D]. A sequence's
    queries are the last of its tokens. `starts` is [P + 1]; its last entry is not read.
    """
    # one query sees all keys: without causality the kernel reads them once per key head
    window = (-1, -1) if longest == 1 else (-1, 0)
    if varlen_takes("seqused_k"):
        # between two releases torch had this argument and not that for shared heads, which it took
        grouped = {"enable_gqa": True} if varlen_takes("enable_gqa") else {}
        attended = varlen_attn(
            query,
            key,
            value,
            ends,
            starts,
            longest,
            longest_keys,
            scale=scaling,
            window_size=window,
            seqused_k=used,
            **grouped,
        )
        assert isinstance(attended, Tensor)
        return attended
    of_torch_2_11: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        ends,
        starts,
        longest,
        longest_keys,
        0.0,
        longest > 1,
        False,
        scale=scaling,
        seqused_k=used,
    )[0]
    return of_torch_2_11
