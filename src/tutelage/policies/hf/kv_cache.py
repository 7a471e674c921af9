"""Keys and values by row and position, in the place of a transformers model's own cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage import cpu
from tutelage.errors import PolicyError

SHARE = 1 / 3
"""Of a machine's memory, what the keys and values of all engines may take where nobody says."""
GB = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a model keeps of a token."""

    layers: int
    heads: int  # of keys and values
    size: int  # of a head
    dtype: torch.dtype
    device: str

    @classmethod
    def of(cls, config: Any, dtype: torch.dtype, device: str) -> "Layout":
        """Of a transformers configuration."""
        return cls(
            layers=config.num_hidden_layers,
            heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            size=getattr(config, "head_dim", None)
            or config.hidden_size // config.num_attention_heads,
            dtype=dtype,
            device=device,
        )

    def row(self, slots: int) -> int:
        """Bytes of a row of so many slots, and the one that takes what nobody wants."""
        return 2 * self.layers * self.heads * self.size * (slots + 1) * self.dtype.itemsize


def budget(device: str, *, wanted: float = 0.0, engines: int = 1) -> int:
    """Bytes for the keys and values of one of `engines`: `wanted` GB, or where that is 0 its part
    of what a device has. The same at every start on a machine, because which rows are computed
    together decides the last digits.

    Raises PolicyError where `wanted` is 0 and the system does not tell its memory.
    """
    if wanted:
        return int(wanted * GB)
    cuda = device.startswith("cuda")
    whole = torch.cuda.mem_get_info(device)[1] if cuda else cpu.memory()
    if not whole:
        raise PolicyError(
            "this system does not tell how much memory it has; set policy.cache to the GB that "
            "keys and values may take"
        )
    return int(SHARE * whole / engines)


class SlotCache:
    """What a transformers model takes for a cache.

    keys, values  per layer [rows, kv heads, slots + 1, head dim]; the last slot takes what rows
                  that sit a pass out would write
    """

    is_compileable = False
    is_initialized = True

    def __init__(self, layout: Layout) -> None:
        self.layout, self.rows, self.slots = layout, 0, 0
        empty = torch.zeros(0, layout.heads, 1, layout.size, dtype=layout.dtype)
        self.keys = [empty.to(layout.device) for _ in range(layout.layers)]
        self.values = [empty.to(layout.device) for _ in range(layout.layers)]
        self.part: Tensor | slice = slice(0, 0)
        self.at = self.index = torch.empty(0)
        self.high = 0

    def resize(self, kept: Sequence[int], rows: int, slots: int) -> None:
        """Become so large; what was row kept[i] is row i then. A layer at a time, so that old and
        new are never there as a whole."""
        shape = (rows, self.layout.heads, slots + 1, self.layout.size)
        head = min(self.slots, slots)
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                # zeros, because a masked number that is not one would still spoil its sum
                new = torch.zeros(shape, dtype=old.dtype, device=old.device)
                for to, source in enumerate(kept):
                    new[to, :, :head] = old[source, :, :head]
                store[layer] = new
        self.rows, self.slots = rows, slots

    def share(self, source: int, to: int, start: int, end: int) -> None:
        """Copy what one row holds at [start, end) to another."""
        for store in (*self.keys, *self.values):
            store[to, :, start:end] = store[source, :, start:end]

    def write_rows(self, part: slice, index: Tensor, high: int) -> None:
        """What comes next are neighbouring rows [B], at `index` [B, T]; read the first `high`."""
        self.part, self.index, self.high = part, index, high
        self.at = torch.arange(len(index), device=index.device)[:, None]

    def write_flat(self, rows: Tensor, index: Tensor) -> None:
        """What comes next is one axis of tokens [N], of rows [N] at `index` [N]."""
        self.part, self.index = rows, index

    def update(
        self, k: Tensor, v: Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write k, v [B, heads, T, dim]; what is there then, of a flat axis in all rows."""
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
