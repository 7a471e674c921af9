"""Token sampling by inversion of the cumulative distribution, for many slots at once."""

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.policies.base import MOST_ENDS, Completion, Request

BLOCKS = (512, 256, 128, 64)
"""Entries whose probabilities a GPU sums first: the largest of these that divides the vocabulary,
or the largest of all after padding."""
BELOW_ONE = 1 - 2**-52
NO_TOKEN = -1


def draw(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample from each row of logits[B, V] with its number of uniform[B] in [0, 1).

    The token is the first whose cumulative probability exceeds the number, so a token of
    probability zero is never drawn. At temperature[B] 0 it is the likeliest token. Returns tokens
    [B] and their log-probabilities at the row's temperature (at 1 where that is 0).
    """
    if logits.is_cuda:
        return draw_by_blocks(logits, temperature, uniform)
    greedy = temperature == 0
    logps = torch.log_softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], -1)
    mass = logps.double().exp().cumsum(-1)
    token = torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True).squeeze(-1)
    token = token.clamp(max=logits.shape[-1] - 1)
    token = torch.where(greedy, logps.argmax(-1), token)
    return token, logps.gather(-1, token[:, None]).squeeze(-1)


def draw_by_blocks(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """`draw` for a GPU: the same tokens but for rounding, and no row depends on another.

    The block in which the cumulative probability exceeds the number is found first, then the token
    inside of it: sums over the vocabulary are in double, but its entries are read in float32 and
    only blocks are cumulated.
    """
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    best, likeliest = scaled.max(-1, keepdim=True)
    weights = (scaled - best).exp()
    entries = weights.shape[1]
    size = next((n for n in BLOCKS if entries % n == 0), BLOCKS[0])
    blocks = F.pad(weights, (0, -entries % size)).view(len(weights), -1, size)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    total = ends[:, -1:]
    target = torch.minimum(uniform[:, None] * total, total * BELOW_ONE)
    block = torch.searchsorted(ends, target, right=True)
    before = torch.where(block > 0, ends.gather(-1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, size))[:, 0].double().cumsum(-1)
    within = torch.minimum(target - before, inside[:, -1:] * BELOW_ONE)
    token = block * size + torch.searchsorted(inside, within, right=True)
    token = torch.where(greedy[:, None], likeliest, token)
    logp = scaled.gather(-1, token) - best - total.log().to(scaled.dtype)
    return token.squeeze(-1), logp.squeeze(-1)


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """[B, count] in float64: the first numbers that `random.Random(seed).random()` returns."""
    drawn = bytearray().join(random.Random(seed).randbytes(8 * count) for seed in seeds)
    words = torch.frombuffer(drawn, dtype=torch.int32).long() & 0xFFFFFFFF
    high, low = (words.view(len(seeds), count, 2) >> torch.tensor([5, 6])).unbind(-1)
    return (high * 2**26 + low).double() / 2**53


def _filled(ends: Sequence[int]) -> list[int]:
    return [*ends, *[NO_TOKEN] * (MOST_ENDS - len(ends))]


class SlotSampler:
    """The sampling state of every slot, as tensors: a pass over many slots is a handful of calls.

    The tensors' addresses stay the same until `begin` makes them wider.

    last, counts, limit, temperature  [slots]: the newest token, tokens so far, at most, how drawn
    ending                            [slots, MOST_ENDS]: the tokens that end the turn
    uniforms, tokens, logps           [slots, width]: random numbers of the turn, and its results
    """

    def __init__(self, slots: int, ends: Sequence[int], device: str) -> None:
        self.ends, self.device = tuple(ends)[:MOST_ENDS], device
        self.every = torch.arange(slots, device=device)
        self.last = torch.zeros(slots, dtype=torch.long, device=device)
        self.counts = torch.zeros_like(self.last)
        self.limit = torch.ones_like(self.last)
        self.temperature = torch.ones(slots, device=device)
        self.ending = torch.full((slots, MOST_ENDS), NO_TOKEN, device=device)
        self.uniforms = torch.zeros(slots, 0, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(slots, 0, dtype=torch.long, device=device)
        self.logps = torch.zeros(slots, 0, device=device)

    def begin(self, at: Sequence[int], requests: Sequence[Request]) -> bool:
        """Begin turns in slots; returns whether tensors were replaced by wider ones."""
        most = max(r.max_new for r in requests)
        wider = most > self.tokens.shape[1]
        if wider:
            self._widen(max(most, 2 * self.tokens.shape[1]))
        slots = torch.tensor(at, device=self.device)
        for name, values in (
            ("counts", [0] * len(at)),
            ("limit", [r.max_new for r in requests]),
            ("temperature", [r.temperature for r in requests]),
            ("ending", [_filled(r.ends or self.ends) for r in requests]),
        ):
            state: Tensor = getattr(self, name)
            state[slots] = torch.tensor(values, dtype=state.dtype, device=self.device)
        self.uniforms[slots, :most] = uniforms([r.seed for r in requests], most).to(self.device)
        return wider

    def _widen(self, width: int) -> None:
        for name in ("uniforms", "tokens", "logps"):
            old: Tensor = getattr(self, name)
            new = torch.zeros(len(old), width, dtype=old.dtype, device=self.device)
            new[:, : old.shape[1]] = old
            setattr(self, name, new)

    def move(self, sources: Sequence[int]) -> None:
        """Slot i continues the turn of slot sources[i]."""
        slots = torch.tensor(sources, dtype=torch.long, device=self.device)
        for state in (
            self.last,
            self.counts,
            self.limit,
            self.temperature,
            self.ending,
            self.uniforms,
            self.tokens,
            self.logps,
        ):
            state[: len(sources)] = state[slots]

    def sample(self, part: slice | Tensor, logits: Tensor, active: Tensor | None = None) -> Tensor:
        """Draw the next token of each slot from logits[B, V] -> which slots' turns that ends, [B].
        Slots that are not active do not change."""
        slots, counts = self.every[part], self.counts[part]
        at = counts.clamp(max=self.tokens.shape[1] - 1)  # an inactive slot may be at its end
        token, logp = draw(logits, self.temperature[part], self.uniforms[slots, at])
        self.last[part] = token if active is None else torch.where(active, token, self.last[part])
        self.tokens[slots, at] = token
        self.logps[slots, at] = logp
        after = counts + 1 if active is None else counts + active
        self.counts[part] = after
        ended = (token[:, None] == self.ending[part]).any(-1)
        finished = ended | (after >= self.limit[part])
        return finished if active is None else finished & active

    def completions(self, at: Sequence[int], requests: Sequence[Request]) -> list[Completion]:
        """The turns of slots that are finished."""
        slots = torch.tensor(at, device=self.device)
        counts = self.counts[slots].tolist()
        tokens = self.tokens[slots, : max(counts)].tolist()
        logps = self.logps[slots, : max(counts)].tolist()
        return [
            Completion(
                key=request.key,
                tokens=tuple(ids[:n]),
                logps=tuple(token_logps[:n]),
                ended=ids[n - 1] in (request.ends or self.ends),
            )
            for request, n, ids, token_logps in zip(requests, counts, tokens, logps, strict=True)
        ]
