"""Generation with the KV cache kept from turn to turn, and continuous batching.

Every live episode owns a row of one cache. A turn's prompt is compared with what the rows hold,
and only what is new is computed. Rows decode together; those that finished wait for their next
prompt while the others go on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import PolicyError
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.attention import Flat, Span, check_handed_on
from tutelage.policies.hf.cuda_graphs import CudaRecorder, Recorder, Recordings, rounded
from tutelage.policies.hf.kv_cache import Layout, SlotCache
from tutelage.policies.hf.kv_cache import budget as usual
from tutelage.policies.hf.sampling import Draws
from tutelage.policies.packing import head_of

BUCKET = 64
"""Keys read are rounded up to this many, so that shapes repeat."""
LONG = 512
"""Slots from which on rows grow by a quarter: whole rows are read, and copying them is little."""
PASS = 4096
"""New tokens of one pass at most: what it needs besides the cache stays small."""
SHARED = 32
"""Tokens from which on a head that another row holds is copied instead of computed."""
ALONE = 512
"""Keys that could be read in the time it takes to begin with a row on its own."""


@dataclass(slots=True)
class _Row:
    """One row of the cache: whose it is and what it holds."""

    key: str = ""
    ids: Sequence[int] = ()  # whose keys and values are there, without those of a turn under way
    request: Request | None = None
    since: int = 0  # the pass from which on a token has been added in each
    used: int = 0  # when a turn was last asked of it


@dataclass(slots=True)
class _Decoding:
    """The rows that are in a turn, and how they are read. Good until one begins or ends."""

    rows: list[int] = field(default_factory=list)
    part: slice | Tensor = field(default_factory=lambda: slice(0, 0))
    live: Tensor | None = None  # of the rows of `part`, where some sit out
    high: int = 0  # the most that one of them holds


class SlotEngine:
    """Samples turns of up to `rows` episodes at a time.

    forward  the model without its head: ids, mask, positions, cache -> hidden states [B, T, H]
    head     the output head [V, H] of now
    budget   bytes that keys and values may take; those of the only engine if None
    recorder of decode steps, which then have few shapes; CUDA graphs if None and on a graphics card
    fast     if False, the slow twin of all that: nothing is kept when a turn is over, copied from
             another row, recorded, or read together with other rows

    Requests beyond that wait for rows of episodes that are over. Only where nothing else could be
    done is the row that was idle for longest given away, and its episode, if it comes back,
    computed again from its prompt. One row there is always.
    """

    def __init__(
        self, forward: Callable[..., Tensor], head: Callable[[], Tensor], config: Any, *,
        end: int, rows: int, context: int, dtype: torch.dtype, device: str,
        budget: int | None = None, recorder: Recorder | None = None, fast: bool = True,
    ) -> None:  # fmt: skip
        self.forward, self.head, self.context = forward, head, context
        self.count, self.device, self.fast = rows, device, fast
        self.layout = Layout.of(config, dtype, device)
        self.budget = usual(device) if budget is None else budget
        if recorder is None and device.startswith("cuda") and fast:
            recorder = CudaRecorder(device)
        self.recordings = Recordings(recorder) if recorder is not None and fast else None
        self.cache = SlotCache(self.layout)
        self.draws = Draws(rows, end, device)
        self.held = torch.zeros(rows, dtype=torch.long, device=device)
        self.live = torch.zeros(rows, dtype=torch.bool, device=device)
        self.over = torch.zeros(rows, dtype=torch.bool, device=device)
        self.passes = self.clock = 0
        self.urgent = False
        self.waiting: list[Request] = []
        self.rows: list[_Row] = []
        self.decoding = _Decoding()

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
                row.key = ""  # its ids stay: another episode may begin with the same
        if not self.waiting and not any(row.key for row in self.rows):
            self._drop()

    def refresh(self) -> None:
        """Forget all keys and values, which other weights made, and turns nobody waits for."""
        self.waiting, self.urgent = [], False
        self._drop()

    def _drop(self) -> None:
        """Hold nothing. The memory is given back, unless recordings know its addresses."""
        self.decoding = _Decoding()
        if self.recordings is None:
            self.rows, self.cache = [], SlotCache(self.layout)
        else:
            self.rows = [_Row() for _ in self.rows]

    def poll(self) -> list[Completion]:
        """One pass: fill waiting prompts when enough of them wait, else decode one token each."""
        busy = len(self.decoding.rows)
        ready = min(len(self.waiting), self._most(self.cache.slots) - busy)
        if ready > 0 and (
            self.urgent or ready * 3 >= busy or ready == self._most(self.cache.slots) - busy
        ):
            taken = self._admit(busy)
            if taken:
                return self._prefill(taken)
        return self._decode() if busy else []

    # -- who is next

    def _most(self, slots: int) -> int:
        """Rows of so many slots that the budget allows."""
        return max(1, min(self.count, self.budget // self.layout.row(slots)))

    def _grown(self, need: int) -> int:
        """Slots of a row where some need so many: with room to grow where the budget has it."""
        if need <= self.cache.slots:
            return self.cache.slots
        slots = max(need, 2 * self.cache.slots, 4 * BUCKET)
        long = self.cache.slots >= LONG and self.recordings is None
        if long or self.count * self.layout.row(slots) > self.budget:
            slots = max(need, self.cache.slots * 5 // 4)
        return -(-min(slots, self.context) // BUCKET) * BUCKET

    def _admit(self, busy: int) -> list[Request]:
        """The first that wait, as far as rows, budget and a pass go. One that begins as another of
        them does is left for the next pass, which finds the head computed. One without a row does
        not take another episode's while there is anything else to do: that one would come back."""
        own = {row.key: row.ids for row in self.rows if row.request is None and row.key}
        taken: list[Request] = []
        later: list[Request] = []
        slots, tokens, self.urgent = self.cache.slots, 0, False
        owned = sum(bool(row.key) for row in self.rows)
        patient = busy > 0 or any(request.key in own for request in self.waiting)
        for at, request in enumerate(self.waiting):
            slots = max(slots, self._grown(len(request.prompt) + request.max_new))
            if busy + len(taken) >= self._most(slots):
                later += self.waiting[at:]
                break
            if patient and request.key not in own and owned >= self._most(slots):
                later.append(request)
                continue
            if request.key in own:
                kept = head_of(own[request.key], request.prompt)
            else:
                kept = self._head(request, (row.ids for row in self.rows))
                coming = self._head(request, (r.prompt for r in taken))
                if coming - kept >= SHARED:
                    later.append(request)
                    self.urgent = True
                    continue
            tokens += len(request.prompt) - kept
            if taken and tokens > PASS:
                later += self.waiting[at:]
                self.urgent = True
                break
            owned += request.key not in own
            taken.append(request)
        self.waiting = later
        return taken

    # -- rows

    def _make_room(self, taken: Sequence[Request]) -> None:
        """Rows and slots for these turns. Where not all rows fit any more, the longest idle go."""
        slots = max(self._grown(len(r.prompt) + r.max_new) for r in taken)
        owners = {r.key for r in taken}
        wanted = sum(bool(row.key) and row.key not in owners for row in self.rows) + len(taken)
        rows = len(self.rows) if wanted <= len(self.rows) else max(wanted, 2 * len(self.rows))
        rows = min(rows, self._most(slots))
        if slots == self.cache.slots and rows == len(self.rows):
            return

        def order(at: int) -> tuple[bool, bool, bool, int]:
            row = self.rows[at]
            return row.request is None, row.key not in owners, not row.key, -row.used

        kept = sorted(sorted(range(len(self.rows)), key=order)[:rows])
        self.cache.resize(kept, rows, slots)
        self.draws.move(kept)
        self.held[: len(kept)] = self.held[torch.tensor(kept, dtype=torch.long).to(self.device)]
        self.rows = [self.rows[at] for at in kept] + [_Row() for _ in range(rows - len(kept))]
        if self.recordings is not None:
            self.recordings.forget()

    def _place(self, request: Request) -> int:
        """The row for a request: its episode's own, else an empty one, else the longest idle."""
        idle = [i for i, row in enumerate(self.rows) if row.request is None]
        own = [i for i in idle if self.rows[i].key == request.key]
        if own:
            return own[0]
        empty = [i for i in idle if not self.rows[i].key]
        if empty:
            return max(empty, key=lambda i: head_of(self.rows[i].ids, request.prompt))
        return min(idle, key=lambda i: self.rows[i].used)

    def _head(self, request: Request, others: Iterable[Sequence[int]]) -> int:
        """How much of a request begins as one of the others does, and can be copied from it."""
        return max((head_of(ids, request.prompt) for ids in others), default=0) if self.fast else 0

    def _keep(self, at: int, request: Request) -> int:
        """How many tokens of a request its row holds, those copied from another row included. The
        last must be fed for its logits."""
        row, most = self.rows[at], len(request.prompt) - 1
        held = min(head_of(row.ids, request.prompt), most)
        if row.key == request.key or not self.fast:
            return held
        heads = [min(head_of(other.ids, request.prompt), most) for other in self.rows]
        source = max(range(len(heads)), key=heads.__getitem__)
        if heads[source] - held < SHARED:
            return held
        self.cache.share(source, at, held, heads[source])
        return heads[source]

    # -- passes

    def _prefill(self, taken: Sequence[Request]) -> list[Completion]:
        self._make_room(taken)
        # an episode's own row must be claimed before another request is given it as idle
        owners = {row.key for row in self.rows if row.request is None}
        requests = sorted(taken, key=lambda r: r.key not in owners)
        spans, ids = [], list[int]()
        for request in requests:
            at = self._place(request)
            held, row = self._keep(at, request), self.rows[at]
            self.clock += 1
            row.key, row.used, row.request = request.key, self.clock, request
            row.ids, row.since = tuple(request.prompt[:held]), self.passes
            spans.append(Span(at, held, len(request.prompt) - held))
            ids += request.prompt[held:]
        logits = self._feed(spans, torch.tensor(ids, device=self.device))
        rows = [span.row for span in spans]
        for at, request in zip(rows, requests, strict=True):
            self.rows[at].ids = tuple(request.prompt)
        if self.draws.begin(rows, requests) and self.recordings is not None:
            self.recordings.forget()
        part = torch.tensor(rows, device=self.device)
        self.held[part] = torch.tensor([len(r.prompt) for r in requests], device=self.device)
        ended = self._ended(rows, self.draws.take(part, logits))
        self._settle()
        return ended

    @torch.no_grad()
    def _feed(self, spans: Sequence[Span], ids: Tensor) -> Tensor:
        """Feed rows their new ids[N], one after another; logits [B, V] after each row's last."""
        first = spans[0]
        if len(spans) == 1 and first.new > PASS:
            self._feed([Span(first.row, first.held, PASS)], ids[:PASS])
            rest = Span(first.row, first.held + PASS, first.new - PASS)
            return self._feed([rest], ids[PASS:])
        new = torch.tensor([span.new for span in spans], device=self.device)
        rows = torch.tensor([span.row for span in spans], device=self.device)
        index = torch.cat([torch.arange(s.held, s.held + s.new, device=self.device) for s in spans])
        self.cache.write_flat(rows.repeat_interleave(new), index)
        flat = Flat(spans)
        hidden = self.forward(
            input_ids=ids[None],
            attention_mask=None,
            position_ids=index[None],
            past_key_values=self.cache,
            use_cache=True,
            flat=flat,
        )
        check_handed_on(flat, self.layout.layers)
        return self._logits(hidden[0, new.cumsum(0) - 1])

    def _logits(self, hidden: Tensor) -> Tensor:
        return (hidden @ self.head().to(hidden.dtype).T).float()

    def _settle(self) -> None:
        """Choose how the rows that are in a turn are read from here on."""
        at = [i for i, row in enumerate(self.rows) if row.request is not None]
        self.decoding = made = _Decoding(rows=at)
        if not at:
            return
        lengths = [len(self.rows[i].ids) + self.passes - self.rows[i].since for i in at]
        made.high = max(lengths)
        span = slice(at[0], at[-1] + 1)
        size = span.stop - span.start
        # neighbours are read in one product, as far as the longest of them; what others hold in
        # between, or beyond a shorter row's end, is read in vain
        whole = 2 * len(at) > size and size * made.high <= sum(lengths) + ALONE * len(at)
        whole = whole and self.fast
        made.part = span if whole else torch.tensor(at, device=self.device)
        if self.recordings is not None or (whole and len(at) < size):
            live = torch.zeros(self.count, dtype=torch.bool, device=self.device)
            live[torch.tensor(at, device=self.device)] = True
            made.live = live if self.recordings is not None else live[span]

    def _decode(self) -> list[Completion]:
        now = self.decoding
        now.high += 1
        if self.recordings is not None:
            over = self._replayed(self.recordings, now)
            at: Sequence[int] = range(len(over))
        elif isinstance(now.part, slice):
            high = min(self.cache.slots, -(-now.high // BUCKET) * BUCKET)
            at = range(now.part.start, now.part.stop)
            over = self._step(now.part, now.live, high)
        else:
            at, over = now.rows, self._apart(now.part)
        self.passes += 1
        ended = self._ended(at, over)
        if ended:
            self._settle()
        return ended

    @torch.no_grad()
    def _step(self, part: slice, live: Tensor | None, high: int) -> Tensor:
        """A token for each of some neighbouring rows [B], over their first `high` slots; which of
        them that ends. Tensors only: it can be recorded."""
        held = self.held[part]
        index = held if live is None else torch.where(live, held, self.cache.slots)
        self.cache.write_rows(part, index[:, None], high)
        slots = torch.arange(high, device=self.device)
        hidden = self.forward(
            input_ids=self.draws.last[part][:, None],
            attention_mask=(slots <= held[:, None])[:, None, None],
            position_ids=held.clamp(max=self.context - 1)[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.held[part] = held + 1 if live is None else held + live
        return self.draws.take(part, self._logits(hidden[:, 0]), live)

    def _apart(self, part: Tensor) -> Tensor:
        """A token for each of some rows that lie apart, or are of very different lengths."""
        spans = [
            Span(i, len(row.ids) + self.passes - row.since, 1)
            for i in self.decoding.rows
            for row in (self.rows[i],)
        ]
        logits = self._feed(spans, self.draws.last[part])
        self.held[part] += 1
        return self.draws.take(part, logits)

    def _replayed(self, recordings: Recordings, now: _Decoding) -> Tensor:
        """A token for each row that is in a turn; the others sit the pass out."""
        assert now.live is not None
        size = min(len(self.rows), 1 << now.rows[-1].bit_length())
        high = rounded(now.high, self.cache.slots)

        def step() -> None:
            self.over[:size] = self._step(slice(0, size), self.live[:size], high)

        self.live.zero_()  # so that the runs before a recording change nothing
        replay = recordings.get((size, high), step)
        self.live.copy_(now.live)
        replay()
        return self.over[:size]

    def _ended(self, at: Sequence[int], over: Tensor) -> list[Completion]:
        """The turns of rows that are over."""
        rows = [i for i, ended in zip(at, over.tolist(), strict=True) if ended]
        requests = [r for i in rows if (r := self.rows[i].request) is not None]
        made = self.draws.completions(rows, requests) if rows else []
        for i, completion in zip(rows, made, strict=True):
            row = self.rows[i]
            row.ids, row.request = (*row.ids, *completion.tokens[:-1]), None
            if not self.fast:
                row.key, row.ids = "", ()
        return made
