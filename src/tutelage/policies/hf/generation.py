"""The generation engine: continuous batching over a KV cache that persists from turn to turn.

Every live episode owns a slot of one cache. A request always has its complete prompt; the engine
compares it with the contents of the slots and computes only the rest. Eviction, a teacher that
takes over late and window contexts with a shared prefix are then the same case, and callers never
track what is cached. Slots decode together; a finished slot waits for its next prompt while the
others continue.

Why an engine of our own: transformers' continuous batching (`generate_batch`, 5.23, float32, one
CPU core, 11 million parameters) sampled 105 to 126 tokens a second with 16 slots, where its
`generate` sampled 970.

Prompts are prefilled without padding: the new tokens of all slots are concatenated on one axis, and
a pass is bounded in tokens. A common prefix of 32 tokens or more is copied from another slot, so
the episodes of a group compute their first prompt once.

Memory: slots that exceed the budget are evicted, the longest idle first, and their episodes are
recomputed if they come back; turns that do not fit wait. When nothing is cached any more, the
memory is freed for scoring and the update. On a GPU this also drops the CUDA graphs, which hold the
cache's addresses: they are recorded again in the next rollout, which starts with the slot size that
the last one ended with, so each shape is recorded once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tutelage.maths.distributions import capped, product
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf import kv_cache
from tutelage.policies.hf.attention import (
    FlatPass,
    NewTokens,
    SlotReads,
    check_all_layers_attended,
)
from tutelage.policies.hf.cuda_graphs import CudaRecorder, Recorder, Recordings, rounded
from tutelage.policies.hf.kv_cache import KVShape, SlotCache
from tutelage.policies.hf.recorded_prompts import PromptInputs, RecordedPrompts
from tutelage.policies.hf.sampling import SlotSampler
from tutelage.policies.packing import common_prefix
from tutelage.prompts.prompter import Sample

BUCKET = 64
"""Capacities and keys read are rounded up to a multiple of this, so that shapes repeat."""
MIN_CAPACITY_SLOW_GROWTH = 512
"""Capacity from which on slots grow by a quarter instead of doubling: a decode step reads slots up
to 1.3 times what is needed, and copying such slots costs little beside filling them."""
MAX_PREFILL_TOKENS = 4096
"""New tokens of one pass: bounds the memory it needs besides the cache."""
MAX_PREFILL_TOKENS_GPU = 16_384
"""The same where one kernel reads all slots, as many as a pass has that scores. With 4,096 an H100
spent most of its time on small kernels (128 prompts of 256 tokens, Qwen3-0.6B: 0.38 s), and tensors
were too small for compiled ones; not measured since."""
MIN_SHARED_PREFIX = 32
"""Minimum length of a common prefix for copying it from another slot instead of recomputing it."""
SLOT_COST = 512
"""Fixed cost of attending to a slot on its own, in keys read."""


@dataclass(slots=True)
class _Slot:
    """One slot of the cache: the episode that owns it, and the tokens it holds."""

    key: str = ""
    ids: Sequence[int] = ()  # with cached keys and values, without those of a turn under way
    request: Request | None = None
    since: int = 0  # the pass from which on every pass has added a token
    used: int = 0  # when it last began a turn, on the engine's clock


@dataclass(slots=True)
class _Decoding:
    """The slots in a turn, and how they are read. Valid until a turn begins or ends."""

    slots: list[int] = field(default_factory=list)
    part: slice | Tensor = field(default_factory=lambda: slice(0, 0))
    active: Tensor | None = None  # which slots of `part` decode, where some sit out
    longest: int = 0  # tokens that one of them holds at most


class SlotEngine:
    """Samples turns of up to `slots` episodes at a time.

    forward  the model without its LM head: ids, mask, positions, cache -> hidden states [B, T, H]
    head     returns the current LM head [V, H]
    budget   bytes for keys and values; the default of an only engine if None
    recorder of decode steps, which then have few shapes; CUDA graphs if None and on a GPU, unless
             `recorded` is false
    cap      soft cap of the logits; 0 without one
    reference_path
             sample without the optimisations: no cache between turns, no prefix copies, no CUDA
             graphs, no batched reads of several slots

    Further requests wait for slots of episodes that have ended. An idle slot is taken from a live
    episode only if nothing else can run; that episode is recomputed if it comes back. There is
    always at least one slot.

    Live episodes keep their slots: taking the longest idle one takes it from the episode that comes
    back next (12 episodes of 6 turns in 6 slots computed 3,688 tokens instead of 1,068). An episode
    without a slot therefore waits, and takes one only when nothing is in a turn and no owner waits;
    otherwise two engines could wait for each other's slots without end.
    """

    def __init__(
        self,
        forward: Callable[..., Tensor],
        head: Callable[[], Tensor],
        config: Any,
        *,
        ends: Sequence[int],
        slots: int,
        context: int,
        dtype: torch.dtype,
        device: str,
        budget: int | None = None,
        recorder: Recorder | None = None,
        recorded: bool = True,
        reference_path: bool = False,
        cap: float = 0.0,
    ) -> None:
        self.forward, self.head, self.context = forward, head, context
        self.max_slots, self.device, self.reference_path = slots, device, reference_path
        self.kv_shape = KVShape.of(config, dtype, device)
        self.budget = kv_cache.budget(device) if budget is None else budget
        self.cap = cap
        if reference_path or not recorded:
            recorder = None
        elif recorder is None and device.startswith("cuda"):
            recorder = CudaRecorder(device)
        self.recordings = None if recorder is None else Recordings(recorder)
        self.one_kernel = device.startswith("cuda") and dtype in (torch.bfloat16, torch.float16)
        self.cache = SlotCache(self.kv_shape)
        self.sampler = SlotSampler(slots, ends, device)
        self.cached = torch.zeros(slots, dtype=torch.long, device=device)
        self.active = torch.zeros(slots, dtype=torch.bool, device=device)
        self.finished = torch.zeros(slots, dtype=torch.bool, device=device)
        self.recorded_prompts: RecordedPrompts | None = None
        if self.recordings is not None and self.one_kernel:
            self.recorded_prompts = RecordedPrompts(self.recordings, slots, device)
        self.passes = self.clock = 0
        self.last_size = (0, 0)  # slots and capacity when the cache was last given back, recorded
        self.prefill_next = False
        self.waiting: list[Request] = []
        self.slots: list[_Slot] = []
        self.decoding = _Decoding()

    def submit(self, request: Request) -> None:
        request.refuse_beyond(self.context)
        self.waiting.append(request)

    def release(self, key: str) -> None:
        for slot in self.slots:
            if slot.key == key and slot.request is None:
                slot.key = ""  # its ids stay: another episode may begin with the same
        if not self.waiting and not any(slot.key for slot in self.slots):
            self._drop()

    def refresh(self) -> None:
        """Drop all keys and values, because the weights have changed, and all turns."""
        self.waiting, self.prefill_next = [], False
        self._drop()

    def _drop(self) -> None:
        """Free the cache, and the CUDA graphs that hold its addresses."""
        self.decoding = _Decoding()
        if self.recordings is not None and self.slots:
            self.last_size = len(self.slots), self.cache.capacity
            self.recordings.forget()
        self.slots, self.cache = [], SlotCache(self.kv_shape)

    def poll(self) -> list[Completion]:
        """One pass: prefill prompts when enough of them wait, else decode one token each."""
        busy = len(self.decoding.slots)
        free = self._max_slots(self.cache.capacity) - busy
        ready = min(len(self.waiting), free)
        if ready > 0 and (self.prefill_next or ready * 3 >= busy or ready == free):
            admitted = self._admit(busy)
            if admitted:
                return self._prefill(admitted)
        return self._decode() if busy else []

    # -- turns that were sampled elsewhere

    def free_slots(self, samples: Sequence[Sample]) -> int:
        """How many of these turns `feed` can take in one call."""
        capacity = max(self.capacity_for(len(s.prompt) + len(s.tokens)) for s in samples)
        return self._max_slots(capacity) - sum(slot.request is not None for slot in self.slots)

    @torch.no_grad()
    def feed(self, turns: Sequence[tuple[str, Sample]]) -> Tensor:
        """Compute given turns by episode, only what their slots do not hold yet, and keep them.

        -> the hidden states [N, H] that predict the turns' tokens, one after another. The cache
        holds each turn afterwards, but for its last token. At most `free_slots` turns at a time.
        """
        requests = [
            Request(key=key, prompt=s.prompt, seed=0, max_new=len(s.tokens)) for key, s in turns
        ]
        self._make_room(requests)
        parts: dict[int, NewTokens] = {}
        for i in self._owners_first(requests):
            at, cached = self._begin(requests[i])
            new = len(requests[i].prompt) - cached + requests[i].max_new - 1
            parts[i] = NewTokens(at, cached, new)
        states = []
        for i, (_, sample) in enumerate(turns):
            ids = (*sample.prompt, *sample.tokens[:-1])
            states.append(self._feed_slot(parts[i], ids)[-len(sample.tokens) :])
            slot = self.slots[parts[i].slot]
            slot.ids, slot.request = ids, None
        self._choose_decoding()
        return torch.cat(states)

    def _feed_slot(self, part: NewTokens, ids: Sequence[int]) -> Tensor:
        """Hidden states [T, H] of the new tokens of a slot that then holds `ids`."""
        states = []
        end = part.cached + part.new
        for start in range(part.cached, end, self._pass_tokens):
            tokens = NewTokens(part.slot, start, min(self._pass_tokens, end - start))
            index = torch.arange(start, start + tokens.new, device=self.device)
            self.cache.write_flat(torch.full_like(index, part.slot), index)
            new = torch.tensor(ids, device=self.device)[index]
            states.append(self._flat_pass([tokens], new, index))
        return torch.cat(states)

    # -- scheduling

    @property
    def _pass_tokens(self) -> int:
        return MAX_PREFILL_TOKENS_GPU if self.one_kernel else MAX_PREFILL_TOKENS

    def _max_slots(self, capacity: int) -> int:
        """Slots of this capacity that the budget allows."""
        return max(1, min(self.max_slots, self.budget // self.kv_shape.slot_bytes(capacity)))

    def capacity_for(self, length: int) -> int:
        """The capacity of slots when one must hold `length` tokens: with room to grow if the budget
        allows it."""
        if length <= self.cache.capacity:
            return self.cache.capacity
        capacity = max(length, 2 * self.cache.capacity, 4 * BUCKET)
        slow = self.cache.capacity >= MIN_CAPACITY_SLOW_GROWTH and self.recordings is None
        if slow or self.max_slots * self.kv_shape.slot_bytes(capacity) > self.budget:
            capacity = max(length, self.cache.capacity * 5 // 4)
        return -(-min(capacity, self.context) // BUCKET) * BUCKET

    def _admit(self, busy: int) -> list[Request]:
        """The first waiting requests that fit the slots, the budget and a pass.

        A request with the same prefix as another of them waits for the next pass, which finds the
        prefix computed. One without a slot does not evict an episode while there is anything else
        to do, because that episode would come back.
        """
        owned_ids = {s.key: s.ids for s in self.slots if s.request is None and s.key}
        admitted: list[Request] = []
        later: list[Request] = []
        capacity, tokens, self.prefill_next = self.cache.capacity, 0, False
        owned = sum(bool(slot.key) for slot in self.slots)
        patient = busy > 0 or any(request.key in owned_ids for request in self.waiting)
        for at, request in enumerate(self.waiting):
            capacity = max(capacity, self.capacity_for(len(request.prompt) + request.max_new))
            if busy + len(admitted) >= self._max_slots(capacity):
                later += self.waiting[at:]
                break
            if patient and request.key not in owned_ids and owned >= self._max_slots(capacity):
                later.append(request)
                continue
            if request.key in owned_ids:
                cached = common_prefix(owned_ids[request.key], request.prompt)
            else:
                cached = self._copyable(request, (slot.ids for slot in self.slots))
                coming = self._copyable(request, (r.prompt for r in admitted))
                if coming - cached >= MIN_SHARED_PREFIX:
                    later.append(request)
                    self.prefill_next = True
                    continue
            tokens += len(request.prompt) - cached
            if admitted and tokens > self._pass_tokens:
                later += self.waiting[at:]
                self.prefill_next = True
                break
            owned += request.key not in owned_ids
            admitted.append(request)
        self.waiting = later
        return admitted

    # -- slots

    def _make_room(self, admitted: Sequence[Request]) -> None:
        """Slots and capacity for these turns. Where not all slots fit, the longest idle go."""
        capacity = max(self.capacity_for(len(r.prompt) + r.max_new) for r in admitted)
        owners = {r.key for r in admitted}
        others = sum(bool(slot.key) and slot.key not in owners for slot in self.slots)
        wanted = others + len(admitted)
        count = len(self.slots)
        if wanted > count:
            count = max(wanted, 2 * count)
        if not self.slots and self._max_slots(max(capacity, self.last_size[1])) >= wanted:
            count, capacity = max(count, self.last_size[0]), max(capacity, self.last_size[1])
        count = min(count, self._max_slots(capacity))
        if capacity == self.cache.capacity and count == len(self.slots):
            return

        def order(at: int) -> tuple[bool, bool, bool, int]:
            slot = self.slots[at]
            return slot.request is None, slot.key not in owners, not slot.key, -slot.used

        sources = sorted(sorted(range(len(self.slots)), key=order)[:count])
        self.cache.resize(sources, count, capacity)
        self.sampler.move(sources)
        index = torch.tensor(sources, dtype=torch.long).to(self.device)
        self.cached[: len(sources)] = self.cached[index]
        self.slots = [self.slots[at] for at in sources]
        self.slots += [_Slot() for _ in range(count - len(sources))]
        if self.recordings is not None:
            self.recordings.forget()

    def _owners_first(self, requests: Sequence[Request]) -> list[int]:
        """Sort key: an episode claims its own slot before another request takes it as idle."""
        owners = {slot.key for slot in self.slots if slot.request is None}
        return sorted(range(len(requests)), key=lambda i: requests[i].key not in owners)

    def _begin(self, request: Request) -> tuple[int, int]:
        """Assign a slot to a request -> its index, and how many tokens of the prompt it holds
        already."""
        at = self._place(request)
        cached, slot = self._reuse(at, request), self.slots[at]
        self.clock += 1
        slot.key, slot.used, slot.request = request.key, self.clock, request
        slot.ids = tuple(request.prompt[:cached])
        return at, cached

    def _place(self, request: Request) -> int:
        """The slot for a request: its episode's, else an empty one, else the longest idle."""
        idle = [i for i, slot in enumerate(self.slots) if slot.request is None]
        owned = [i for i in idle if self.slots[i].key == request.key]
        if owned:
            return owned[0]
        empty = [i for i in idle if not self.slots[i].key]
        if empty:
            return max(empty, key=lambda i: common_prefix(self.slots[i].ids, request.prompt))
        return min(idle, key=lambda i: self.slots[i].used)

    def _copyable(self, request: Request, others: Iterable[Sequence[int]]) -> int:
        """Length of the longest prefix of a request that can be copied from one of `others`."""
        if self.reference_path:
            return 0
        return max((common_prefix(ids, request.prompt) for ids in others), default=0)

    def _reuse(self, at: int, request: Request) -> int:
        """How many tokens of a prompt its slot holds, after copying from another slot if that holds
        more. The last token is always computed, for its logits."""
        slot, most = self.slots[at], len(request.prompt) - 1
        cached = min(common_prefix(slot.ids, request.prompt), most)
        if slot.key == request.key or self.reference_path:
            return cached
        prefixes = [min(common_prefix(other.ids, request.prompt), most) for other in self.slots]
        source = max(range(len(prefixes)), key=prefixes.__getitem__)
        if prefixes[source] - cached < MIN_SHARED_PREFIX:
            return cached
        self.cache.copy_prefix(source, at, cached, prefixes[source])
        return prefixes[source]

    # -- passes

    def _prefill(self, admitted: Sequence[Request]) -> list[Completion]:
        self._make_room(admitted)
        requests = [admitted[i] for i in self._owners_first(admitted)]
        parts, ids = [], list[int]()
        for request in requests:
            at, cached = self._begin(request)
            self.slots[at].since = self.passes
            parts.append(NewTokens(at, cached, len(request.prompt) - cached))
            ids += request.prompt[cached:]
        logits = self._prompt_logits_recorded(parts, ids)
        if logits is None:
            logits = self._prompt_logits(parts, torch.tensor(ids, device=self.device))
        slots = [part.slot for part in parts]
        for at, request in zip(slots, requests, strict=True):
            self.slots[at].ids = tuple(request.prompt)
        if self.sampler.begin(slots, requests) and self.recordings is not None:
            self.recordings.forget()
        index = torch.tensor(slots, device=self.device)
        self.cached[index] = torch.tensor([len(r.prompt) for r in requests], device=self.device)
        completions = self._end_turns(slots, self.sampler.sample(index, logits))
        self._choose_decoding()
        return completions

    @torch.no_grad()
    def _prompt_logits(self, parts: Sequence[NewTokens], ids: Tensor) -> Tensor:
        """Feed slots their new ids[N], one after another; logits [B, V] after each slot's last."""
        first, most = parts[0], self._pass_tokens
        if len(parts) == 1 and first.new > most:
            self._prompt_logits([NewTokens(first.slot, first.cached, most)], ids[:most])
            rest = NewTokens(first.slot, first.cached + most, first.new - most)
            return self._prompt_logits([rest], ids[most:])
        new = torch.tensor([part.new for part in parts], device=self.device)
        slots = torch.tensor([part.slot for part in parts], device=self.device)
        index = torch.cat(
            [torch.arange(p.cached, p.cached + p.new, device=self.device) for p in parts]
        )
        self.cache.write_flat(slots.repeat_interleave(new), index)
        hidden = self._flat_pass(parts, ids, index)
        return self._logits(hidden[new.cumsum(0) - 1])

    @torch.no_grad()
    def _prompt_logits_recorded(
        self, parts: Sequence[NewTokens], ids: Sequence[int]
    ) -> Tensor | None:
        """The same by a CUDA graph; None where that is not worth one."""
        if self.recorded_prompts is None:
            return None
        capacity, vocabulary = self.cache.capacity, len(self.head())

        def step(inputs: PromptInputs) -> Tensor:
            self.cache.write_flat(inputs.token_slots, inputs.positions)
            reads = SlotReads(
                inputs.slots.int(),
                inputs.used.int(),
                inputs.ends.int(),
                longest=len(inputs.ids),
                longest_keys=capacity,
            )
            positions = inputs.positions.clamp(max=self.context - 1)
            hidden = self._read_slots(reads, inputs.ids, positions)
            return self._logits(hidden[inputs.last])

        return self.recorded_prompts.logits(parts, ids, step, spare=capacity, entries=vocabulary)

    def _flat_pass(self, parts: Sequence[NewTokens], ids: Tensor, index: Tensor) -> Tensor:
        """Hidden states [N, H] of ids[N] at positions index[N] of their slots."""
        if self.one_kernel:
            return self._read_slots(SlotReads.of(parts, self.device), ids, index)
        flat = FlatPass(parts)
        hidden = self.forward(
            input_ids=ids[None],
            attention_mask=None,
            position_ids=index[None],
            cache=self.cache,
            use_cache=True,
            flat=flat,
        )
        check_all_layers_attended(flat, self.kv_shape.layers)
        return hidden[0]

    def _read_slots(self, reads: SlotReads, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden states [N, H] of ids[N] at positions[N], which the cache was told where to write."""
        hidden = self.forward(
            input_ids=ids[None],
            attention_mask=None,
            position_ids=positions[None],
            cache=self.cache,
            use_cache=True,
            reads=reads,
        )
        check_all_layers_attended(reads, self.kv_shape.layers)
        return hidden[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        head = self.head()
        if head.dtype == torch.bfloat16 and head.is_cuda:
            return capped(product(hidden.bfloat16(), head), self.cap)
        return capped((hidden @ head.to(hidden.dtype).T).float(), self.cap)

    def _choose_decoding(self) -> None:
        """Choose how the slots in a turn are read until the next turn begins or ends.

        Neighbouring slots are read in one product, as far as the longest of them: keys of other
        slots in between, or beyond a shorter one's end, are read needlessly. If that costs more
        than one pass per slot, slots are read one at a time.
        """
        at = [i for i, slot in enumerate(self.slots) if slot.request is not None]
        self.decoding = decoding = _Decoding(slots=at)
        if not at:
            return
        lengths = [len(self.slots[i].ids) + self.passes - self.slots[i].since for i in at]
        decoding.longest = max(lengths)
        part = slice(at[0], at[-1] + 1)
        size = part.stop - part.start
        cost_together = size * decoding.longest
        cost_apart = sum(lengths) + SLOT_COST * len(at)
        together = 2 * len(at) > size and cost_together <= cost_apart and not self.reference_path
        decoding.part = part if together else torch.tensor(at, device=self.device)
        if self.recordings is not None or (together and len(at) < size):
            active = torch.zeros(self.max_slots, dtype=torch.bool, device=self.device)
            active[torch.tensor(at, device=self.device)] = True
            decoding.active = active if self.recordings is not None else active[part]

    def _decode(self) -> list[Completion]:
        decoding = self.decoding
        decoding.longest += 1
        if self.recordings is not None:
            finished = self._decode_recorded(self.recordings, decoding)
            at: Sequence[int] = range(len(finished))
        elif isinstance(decoding.part, slice):
            high = min(self.cache.capacity, -(-decoding.longest // BUCKET) * BUCKET)
            at = range(decoding.part.start, decoding.part.stop)
            finished = self._decode_together(decoding.part, decoding.active, high)
        else:
            at, finished = decoding.slots, self._decode_one_by_one(decoding.part)
        self.passes += 1
        completions = self._end_turns(at, finished)
        if completions:
            self._choose_decoding()
        return completions

    @torch.no_grad()
    def _decode_together(self, part: slice, active: Tensor | None, high: int) -> Tensor:
        """A token for each of some neighbouring slots [B], over their first `high` positions ->
        which turns that ends. Tensors only: it can be recorded."""
        cached = self.cached[part]
        index = cached if active is None else torch.where(active, cached, self.cache.capacity)
        position = cached.clamp(max=self.context - 1)
        if self.one_kernel:
            hidden = self._read_slots(
                self._reads(part, index, high), self.sampler.last[part], position
            )
        else:
            self.cache.write_slots(part, index[:, None], high)
            positions = torch.arange(high, device=self.device)
            hidden = self.forward(
                input_ids=self.sampler.last[part][:, None],
                attention_mask=(positions <= cached[:, None])[:, None, None],
                position_ids=position[:, None],
                cache=self.cache,
                use_cache=True,
            )[:, 0]
        self.cached[part] = cached + 1 if active is None else cached + active
        return self.sampler.sample(part, self._logits(hidden), active)

    def _reads(self, part: slice, index: Tensor, high: int) -> SlotReads:
        """The next pass writes a token of each neighbouring slot at index[B], and reads up to it. A
        slot that sits it out, whose index is the spare position, reads one key."""
        slots = self.sampler.every[part]
        self.cache.write_flat(slots, index)
        used = torch.where(index < self.cache.capacity, index + 1, 1)
        ends = torch.arange(len(index) + 1, dtype=torch.int32, device=self.device)
        return SlotReads(slots.int(), used.int(), ends, longest=1, longest_keys=high)

    def _decode_one_by_one(self, part: Tensor) -> Tensor:
        """A token for each of some slots that are not adjacent, or have very different lengths."""
        parts = [
            NewTokens(i, len(slot.ids) + self.passes - slot.since, 1)
            for i in self.decoding.slots
            for slot in (self.slots[i],)
        ]
        logits = self._prompt_logits(parts, self.sampler.last[part])
        self.cached[part] += 1
        return self.sampler.sample(part, logits)

    def _decode_recorded(self, recordings: Recordings, decoding: _Decoding) -> Tensor:
        """A token for each slot in a turn, by a CUDA graph; the other slots are masked out."""
        assert decoding.active is not None
        size = min(len(self.slots), 1 << decoding.slots[-1].bit_length())
        high = rounded(decoding.longest, self.cache.capacity)

        def step() -> None:
            self.finished[:size] = self._decode_together(slice(0, size), self.active[:size], high)

        self.active.zero_()  # so that the runs before a recording change nothing
        replay = recordings.get(("decode", size, high), step)
        self.active.copy_(decoding.active)
        replay()
        return self.finished[:size]

    def _end_turns(self, at: Sequence[int], finished: Tensor) -> list[Completion]:
        """The completions of the slots whose turns are finished."""
        ended = [i for i, over in zip(at, finished.tolist(), strict=True) if over]
        requests = [r for i in ended if (r := self.slots[i].request) is not None]
        completions = self.sampler.completions(ended, requests) if ended else []
        for i, completion in zip(ended, completions, strict=True):
            slot = self.slots[i]
            slot.ids, slot.request = (*slot.ids, *completion.tokens[:-1]), None
            if self.reference_path:
                slot.key, slot.ids = "", ()
        return completions
