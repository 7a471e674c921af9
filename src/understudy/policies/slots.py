"""Generation with the KV cache kept from turn to turn, and continuous batching.

Every live episode owns a row of one cache. A turn's prompt is compared with what the row holds,
and only what is new is computed. Rows decode together; those that finished wait for their next
prompt while the others go on.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.errors import PolicyError
from understudy.policies.base import Completion, Request

BUCKET = 64
"""Keys read are rounded up to this many, so that shapes repeat."""


class SlotCache:
    """What a transformers model takes for a cache: keys and values by row and position.

    keys, values  per layer [rows, kv heads, slots + 1, head dim]; the last slot takes what rows
                  that sit a pass out would write
    """

    is_compileable = False
    is_initialized = True

    def __init__(self, config: Any, rows: int, slots: int, dtype: torch.dtype, device: str) -> None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (rows, heads, slots + 1, size)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.slots = slots
        self.rows: Tensor | slice = slice(0, 0)
        self.index = torch.empty(0)
        self.high = 0

    def update(
        self, k: Tensor, v: Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write k, v [B, heads, T, dim] at `index` [B, T] of `rows`; read the first `high`."""
        keys, values = self.keys[layer], self.values[layer]
        if isinstance(self.rows, slice):
            keys, values = keys[self.rows], values[self.rows]
            at = torch.arange(len(keys), device=keys.device)[:, None]
            keys[at, :, self.index] = k.transpose(1, 2).to(keys.dtype)
            values[at, :, self.index] = v.transpose(1, 2).to(values.dtype)
            return keys[:, :, : self.high], values[:, :, : self.high]
        at = self.rows[:, None]
        keys[at, :, self.index] = k.transpose(1, 2).to(keys.dtype)
        values[at, :, self.index] = v.transpose(1, 2).to(values.dtype)
        return keys[self.rows, :, : self.high], values[self.rows, :, : self.high]

    def get_seq_length(self, *args: object) -> int:
        return 0

    def get_mask_sizes(self, *args: object) -> tuple[int, int]:
        return self.high, 0


@dataclass(slots=True)
class _Row:
    """One row of the cache: whose it is and what it holds."""

    key: str = ""
    ids: list[int] = field(default_factory=list)  # whose keys and values are in the cache
    request: Request | None = None
    made: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    draw: random.Random = field(default_factory=random.Random)
    used: int = 0  # when a turn was last asked of it


class SlotEngine:
    """Samples turns of up to `rows` episodes at a time.

    forward  the model without its head: ids, mask, positions, cache -> hidden states [B, T, H]
    head     the output head [V, H] of now

    Requests beyond that wait; the row that was idle for longest is given away, and its episode,
    if it comes back, is computed again from its prompt.
    """

    def __init__(
        self, forward: Callable[..., Tensor], head: Callable[[], Tensor], config: Any, *,
        end: int, rows: int, context: int, compute: torch.dtype, device: str,
    ) -> None:  # fmt: skip
        self.forward, self.head, self.config, self.end = forward, head, config, end
        self.context, self.count, self.compute = context, rows, compute
        self.device = device
        self.slots = 0
        self.clock = 0
        self.waiting: list[Request] = []
        self.rows: list[_Row] = [_Row() for _ in range(rows)]
        self.cache: SlotCache | None = None

    def submit(self, request: Request) -> None:
        if len(request.prompt) + request.max_new > self.context:
            raise PolicyError(
                f"a prompt of {len(request.prompt)} tokens and {request.max_new} new ones exceed "
                f"the context of {self.context}; raise the context or shorten the episode"
            )
        self.waiting.append(request)

    def release(self, key: str) -> None:
        for row in self.rows:
            if row.key == key and row.request is None:
                row.key, row.ids = "", []

    def refresh(self) -> None:
        """Forget all keys and values, which other weights made, and turns nobody waits for."""
        self.waiting = []
        self.rows = [_Row() for _ in self.rows]

    def poll(self) -> list[Completion]:
        """One pass: fill waiting prompts when enough of them wait, else decode one token each."""
        decoding = [i for i, row in enumerate(self.rows) if row.request is not None]
        free = len(self.rows) - len(decoding)
        ready = min(len(self.waiting), free)
        if ready and (not decoding or ready * 3 >= len(decoding) or ready == free):
            return self._prefill(ready)
        return self._decode(decoding) if decoding else []

    # -- prompts

    def _place(self, request: Request) -> int:
        """The row for a request: its episode's own, else an empty one, else the longest idle."""
        idle = [i for i, row in enumerate(self.rows) if row.request is None]
        own = [i for i in idle if self.rows[i].key == request.key]
        empty = [i for i in idle if not self.rows[i].key]
        return own[0] if own else empty[0] if empty else min(idle, key=lambda i: self.rows[i].used)

    def _prefill(self, count: int) -> list[Completion]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        self._grow(max(len(r.prompt) + r.max_new for r in taken))
        # an episode's own row must be claimed before another request is given it as idle
        owners = {row.key for row in self.rows if row.request is None}
        placed: list[tuple[int, list[int]]] = []
        for request in sorted(taken, key=lambda r: r.key not in owners):
            at = self._place(request)
            row = self.rows[at]
            keep = _common(row.ids, request.prompt) if row.key == request.key else 0
            keep = min(keep, len(request.prompt) - 1)  # the last token must be fed for its logits
            self.clock += 1
            row.key, row.used, row.request = request.key, self.clock, request
            row.ids = row.ids[:keep]
            row.made, row.logps = [], []
            row.draw = random.Random(request.seed)
            placed.append((at, list(request.prompt[keep:])))
        placed.sort()
        logits = self._feed([at for at, _ in placed], [new for _, new in placed])
        return self._take([at for at, _ in placed], logits)

    def _decode(self, decoding: list[int]) -> list[Completion]:
        self._grow(max(len(self.rows[i].ids) + 2 for i in decoding))
        logits = self._feed(decoding, [[self.rows[i].made[-1]] for i in decoding])
        return self._take(decoding, logits)

    def _grow(self, need: int) -> None:
        """Room for `need` tokens a row; what is cached is copied over."""
        if self.cache is not None and need <= self.slots:
            return
        slots = min(self.context, max(need, 2 * self.slots, 256))
        slots = -(-slots // BUCKET) * BUCKET
        old, dtype = self.cache, self.compute
        cache = SlotCache(self.config, self.count, slots, dtype, self.device)
        if old is not None:
            for new, was in ((cache.keys, old.keys), (cache.values, old.values)):
                for a, b in zip(new, was, strict=True):
                    a[:, :, : self.slots] = b[:, :, : self.slots]
        self.cache, self.slots = cache, slots

    @torch.no_grad()
    def _feed(self, at: list[int], new: list[list[int]]) -> Tensor:
        """Feed each row its new ids, right-padded; logits [B, V] after each row's last one."""
        assert self.cache is not None
        # neighbouring rows are read in place, scattered ones are copied out first: so where most
        # rows of a span take part, the others sit the pass out inside it
        span = range(at[0], at[-1] + 1)
        part = span if len(at) * 2 > len(span) else at
        fed = dict(zip(at, new, strict=True))
        width = max(len(ids) for ids in new)
        lengths = torch.tensor([len(fed.get(i, ())) for i in part], device=self.device)
        start = torch.tensor([len(self.rows[i].ids) for i in part], device=self.device)
        padded = [[*fed.get(i, ()), *[0] * (width - len(fed.get(i, ())))] for i in part]
        offset = torch.arange(width, device=self.device)
        position = start[:, None] + offset
        real = offset < lengths[:, None]
        high = max(len(self.rows[i].ids) + len(x) for i, x in fed.items())
        self.cache.high = min(self.slots, -(-high // BUCKET) * BUCKET)
        self.cache.index = torch.where(real, position, torch.full_like(position, self.slots))
        inside = isinstance(part, range)
        self.cache.rows = (
            slice(at[0], at[-1] + 1) if inside else torch.tensor(at, device=self.device)
        )
        slots = torch.arange(self.cache.high, device=self.device)
        mask = slots[None, None, None, :] <= position[:, None, :, None]
        hidden = self.forward(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=mask,
            position_ids=position.clamp(max=self.context - 1),
            past_key_values=self.cache,
            use_cache=True,
        )
        for i, x in fed.items():
            self.rows[i].ids.extend(x)
        chosen = torch.tensor([i - at[0] for i in at] if inside else list(range(len(at))))
        chosen = chosen.to(self.device)
        last = hidden[chosen, lengths[chosen] - 1]
        return (last @ self.head().to(last.dtype).T).float()

    # -- sampling

    def _take(self, at: list[int], logits: Tensor) -> list[Completion]:
        """Draw each row's next token; hand back the turns that it ends."""
        requests = [r for i in at if (r := self.rows[i].request) is not None]
        tokens, logps = draw(
            logits,
            [r.temperature for r in requests],
            [self.rows[i].draw.random() for i in at],
        )
        done = []
        for i, request, token, logp in zip(at, requests, tokens, logps, strict=True):
            row = self.rows[i]
            row.made.append(token)
            row.logps.append(logp)
            ended = token == self.end
            if ended or len(row.made) == request.max_new:
                done.append(
                    Completion(
                        key=request.key,
                        tokens=tuple(row.made),
                        logps=tuple(row.logps),
                        ended=ended,
                    )
                )
                row.request = None
        return done


def draw(
    logits: Tensor, temperatures: Sequence[float], uniforms: Sequence[float]
) -> tuple[list[int], list[float]]:
    """Sample each row of logits[B, V] by inverting its cumulative distribution.

    The token is the first whose cumulative probability exceeds the row's number in [0, 1), so a
    token of probability zero is never drawn. At temperature 0 it is the likeliest token. Returns
    tokens and their log-probabilities at the row's temperature (at 1 where that is 0).
    """
    heat = torch.tensor([t or 1.0 for t in temperatures], device=logits.device)
    logps = torch.log_softmax(logits / heat[:, None], -1)
    mass = logps.double().exp().cumsum(-1)
    aim = torch.tensor(uniforms, dtype=torch.float64, device=logits.device) * mass[:, -1]
    token = torch.searchsorted(mass, aim[:, None], right=True).squeeze(-1)
    token = token.clamp(max=logits.shape[-1] - 1)
    greedy = torch.tensor([t == 0 for t in temperatures], device=logits.device)
    token = torch.where(greedy, logps.argmax(-1), token)
    return token.tolist(), logps.gather(-1, token[:, None]).squeeze(-1).tolist()


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common head."""
    short = min(len(a), len(b))
    if list(a[:short]) == list(b[:short]):
        return short
    return next(i for i in range(short) if a[i] != b[i])
