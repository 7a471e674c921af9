"""What the installed torch and transformers offer: every difference between supported versions.

Each difference is decided once, by a function's signature and not by a version number, so that
development builds and backports are answered correctly too.
"""

import inspect
from functools import cache
from typing import Any

from torch import Tensor


def varlen_attn(*args: Any, **options: Any) -> Any:
    """torch's attention within sequences of one axis. Importing it imports torch's compiler, over a
    second that a process without a GPU need not pay: hence here."""
    from torch.nn.attention import varlen

    return varlen.varlen_attn(*args, **options)


@cache
def varlen_shares_key_heads() -> bool:
    """Whether `varlen_attn` takes fewer key than query heads: torch 2.12 gave it `enable_gqa`."""
    from torch.nn.attention import varlen

    return "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters


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
    *,
    key_ends: Tensor | None = None,
    longest_keys: int = 0,
) -> Tensor:
    """Causal attention within each sequence of one axis, on a GPU.

    query [N, H, D], key and value [N, K, D] with K dividing H, and `ends` the cumulated lengths
    (0 first) -> [N, H, D]. With `key_ends`, keys and values are [S, K, D], and a sequence's queries
    are the last of its tokens.
    """
    grouped = query.shape[1] != key.shape[1]
    options: dict[str, Any] = {}
    if varlen_shares_key_heads():
        options["enable_gqa"] = True
    elif grouped:
        copies = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(copies, 1) for x in (key, value))
    attended = varlen_attn(
        query,
        key,
        value,
        ends,
        ends if key_ends is None else key_ends,
        longest,
        longest if key_ends is None else longest_keys,
        scale=scaling,
        window_size=(-1, 0),
        **options,
    )
    assert isinstance(attended, Tensor)
    return attended
