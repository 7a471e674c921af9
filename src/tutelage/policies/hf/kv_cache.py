"""The KV cache of the generation engine: slots of keys and values, used as transformers' cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage import cpu
from tutelage.errors import PolicyError

MEMORY_SHARE = 1 / 3
"""Fraction of the memory for the keys and values of all engines, unless a budget is set."""
GB = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KVShape:
    """The shape of a model's keys and values for one token."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: str

    @classmethod
    def of(cls, config: Any, dtype: torch.dtype, device: str) -> "KVShape":
        """Of a transformers configuration."""
        return cls(
            layers=config.num_hidden_layers,
            kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            head_dim=getattr(config, "head_dim", None)
            or config.hidden_size // config.num_attention_heads,
            dtype=dtype,
            device=device,
        )

    def slot_bytes(self, capacity: int) -> int:
        """Bytes of a slot of so many positions, and the spare one."""
        return (
            2 * self.layers * self.kv_heads * self.head_dim * (capacity + 1) * self.dtype.itemsize
        )


def budget(device: str, *, wanted: float = 0.0, engines: int = 1, total: int = 0) -> int:
    """Bytes for the keys and values of one of `engines`: `wanted` GB, or its share of the memory,
    which is that of this machine if `total` is 0.

    The default is a third of what the device, machine or container has in total, never of what is
    free: which slots are computed together decides the last digits of sampled log-probabilities,
    so the budget must be the same at every start. The dry run asks the same function.

    Raises PolicyError where `wanted` is 0 and the system does not report its memory.
    """
    if wanted:
        return int(wanted * GB)
    cuda = device.startswith("cuda")
    if not total:
        total = torch.cuda.mem_get_info(device)[1] if cuda else cpu.memory()
    if not total:
        raise PolicyError(
            "this system does not report how much memory it has; set the environment "
            "variable TUTELAGE_KV_CACHE_GB to the GB that keys and values may take"
        )
    return int(MEMORY_SHARE * total / engines)


class SlotCache:
    """Keys and values of `slots` slots with `capacity` positions each.

    keys, values  per layer [slots, kv heads, capacity + 1, head dim]; the last position takes what
                  slots that sit a pass out would write

    It has the attributes and methods that a transformers model expects of its cache. Before every
    pass, `write_slots` or `write_flat` says where the new keys and values belong.
    """

    is_compileable = False
    is_initialized = True

    def __init__(self, shape: KVShape) -> None:
        self.shape, self.slots, self.capacity = shape, 0, 0
        empty = torch.zeros(0, shape.kv_heads, 1, shape.head_dim, dtype=shape.dtype)
        self.keys = [empty.to(shape.device) for _ in range(shape.layers)]
        self.values = [empty.to(shape.device) for _ in range(shape.layers)]
        self.part: Tensor | slice = slice(0, 0)
        self.at = self.index = torch.empty(0)
        self.high = 0

    def resize(self, sources: Sequence[int], slots: int, capacity: int) -> None:
        """Change the size; slot i then holds what slot sources[i] held. One layer at a time, so
        that old and new are never in memory completely."""
        size = (slots, self.shape.kv_heads, capacity + 1, self.shape.head_dim)
        copied = min(self.capacity, capacity)
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                # zeros: a NaN in a masked position would still spoil the sum
                new = torch.zeros(size, dtype=old.dtype, device=old.device)
                for to, source in enumerate(sources):
                    new[to, :, :copied] = old[source, :, :copied]
                store[layer] = new
        self.slots, self.capacity = slots, capacity

    def copy_prefix(self, source: int, to: int, start: int, end: int) -> None:
        """Copy what one slot holds at positions [start, end) to another."""
        for store in (*self.keys, *self.values):
            store[to, :, start:end] = store[source, :, start:end]

    def write_slots(self, part: slice, index: Tensor, high: int) -> None:
        """The next pass is over neighbouring slots [B]: write at `index` [B, T], read the first
        `high` positions."""
        self.part, self.index, self.high = part, index, high
        self.at = torch.arange(len(index), device=index.device)[:, None]

    def write_flat(self, slots: Tensor, index: Tensor) -> None:
        """The next pass is over one axis of tokens [N], of `slots` [N] at `index` [N]."""
        self.part, self.index = slots, index

    def update(
        self, k: Tensor, v: Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write k, v [B, kv heads, T, D]; returns what a pass reads: of a flat axis all slots."""
        keys, values = self.keys[layer], self.values[layer]
        if isinstance(self.part, slice):
            keys, values = keys[self.part], values[self.part]
            keys[self.at, :, self.index] = k.transpose(1, 2).to(keys.dtype)
            values[self.at, :, self.index] = v.transpose(1, 2).to(values.dtype)
            return keys[:, :, : self.high], values[:, :, : self.high]
        keys[self.part, :, self.index] = k[0].transpose(0, 1).to(keys.dtype)
        values[self.part, :, self.index] = v[0].transpose(0, 1).to(values.dtype)
        return keys, values

    def get_seq_length(self, *args: object) -> int:
        return 0

    def get_mask_sizes(self, *args: object) -> tuple[int, int]:
        return self.high, 0
