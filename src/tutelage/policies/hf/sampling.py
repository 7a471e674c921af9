"""Sampling by the inverse of the cumulative distribution, for many rows at once."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.policies.base import Completion, Request


def draw(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample each row of logits[B, V] with its number of uniform[B] in [0, 1).

    The token is the first whose cumulative probability exceeds the number, so a token of
    probability zero is never drawn. At temperature[B] 0 it is the likeliest token. Returns tokens
    [B] and their log-probabilities at the row's temperature (at 1 where that is 0).
    """
    greedy = temperature == 0
    logps = torch.log_softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], -1)
    mass = logps.double().exp().cumsum(-1)
    token = torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True).squeeze(-1)
    token = token.clamp(max=logits.shape[-1] - 1)
    token = torch.where(greedy, logps.argmax(-1), token)
    return token, logps.gather(-1, token[:, None]).squeeze(-1)


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """[B, count] in float64: what `random.Random(seed).random()` gives, time after time."""
    drawn = bytearray().join(random.Random(seed).randbytes(8 * count) for seed in seeds)
    words = torch.frombuffer(drawn, dtype=torch.int32).long() & 0xFFFFFFFF
    high, low = (words.view(len(seeds), count, 2) >> torch.tensor([5, 6])).unbind(-1)
    return (high * 2**26 + low).double() / 2**53


class Draws:
    """What each row samples with, and what it has sampled: tensors, so that a pass over many rows
    is a handful of calls whatever their number. Their addresses stay until `begin` widens them.

    last, made, limit, temperature  [R]: the newest token, how many there are, may be, drawn how
    uniforms, tokens, logps         [R, W]: the turn's numbers to come, and what came of them
    """

    def __init__(self, rows: int, end: int, device: str) -> None:
        self.end, self.device = end, device
        self.every = torch.arange(rows, device=device)
        self.last = torch.zeros(rows, dtype=torch.long, device=device)
        self.made = torch.zeros_like(self.last)
        self.limit = torch.ones_like(self.last)
        self.temperature = torch.ones(rows, device=device)
        self.uniforms = torch.zeros(rows, 0, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self.logps = torch.zeros(rows, 0, device=device)

    def begin(self, at: Sequence[int], requests: Sequence[Request]) -> bool:
        """Rows begin turns; whether tensors had to be made anew for them."""
        most = max(r.max_new for r in requests)
        wider = most > self.tokens.shape[1]
        if wider:
            self._widen(max(most, 2 * self.tokens.shape[1]))
        rows = torch.tensor(at, device=self.device)
        for name, values in (
            ("made", [0] * len(at)),
            ("limit", [r.max_new for r in requests]),
            ("temperature", [r.temperature for r in requests]),
        ):
            state: Tensor = getattr(self, name)
            state[rows] = torch.tensor(values, dtype=state.dtype, device=self.device)
        self.uniforms[rows, :most] = uniforms([r.seed for r in requests], most).to(self.device)
        return wider

    def _widen(self, width: int) -> None:
        for name in ("uniforms", "tokens", "logps"):
            old: Tensor = getattr(self, name)
            new = torch.zeros(len(old), width, dtype=old.dtype, device=self.device)
            new[:, : old.shape[1]] = old
            setattr(self, name, new)

    def move(self, kept: Sequence[int]) -> None:
        """What was row kept[i] is row i from now on."""
        rows = torch.tensor(kept, dtype=torch.long, device=self.device)
        for state in (
            self.last, self.made, self.limit, self.temperature, self.uniforms, self.tokens,
            self.logps,
        ):  # fmt: skip
            state[: len(kept)] = state[rows]

    def take(self, part: slice | Tensor, logits: Tensor, live: Tensor | None = None) -> Tensor:
        """Draw each row's next token from logits[B, V]; which rows that ends, [B]. Rows that are
        not live stay where they are."""
        rows, made = self.every[part], self.made[part]
        at = made.clamp(max=self.tokens.shape[1] - 1)  # a row that sits out may be at its end
        token, logp = draw(logits, self.temperature[part], self.uniforms[rows, at])
        self.last[part] = token if live is None else torch.where(live, token, self.last[part])
        self.tokens[rows, at] = token
        self.logps[rows, at] = logp
        after = made + 1 if live is None else made + live
        self.made[part] = after
        over = (token == self.end) | (after >= self.limit[part])
        return over if live is None else over & live

    def completions(self, at: Sequence[int], requests: Sequence[Request]) -> list[Completion]:
        """The turns of rows that are over."""
        rows = torch.tensor(at, device=self.device)
        counts = self.made[rows].tolist()
        tokens = self.tokens[rows, : max(counts)].tolist()
        logps = self.logps[rows, : max(counts)].tolist()
        return [
            Completion(
                key=request.key,
                tokens=tuple(ids[:n]),
                logps=tuple(some[:n]),
                ended=ids[n - 1] == self.end,
            )
            for request, n, ids, some in zip(requests, counts, tokens, logps, strict=True)
        ]
