"""Distributions over a whole vocabulary, without ever holding all of them at once.

N tokens over V entries in float32 are 4NV bytes: 600 kB a token at V = 151,936. Here a distribution
is kept as what it is computed from, hidden states [N, H] and an output head [V, H], and turned
into log-probabilities a chunk at a time; in the backward pass each chunk is computed again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 24
"""Log-probabilities made at once: 64 MB in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """log-softmax(hidden head^T / temperature) at each of N sampled tokens.

    hidden [N, H], head [V, H]; temperature is that of sampling.
    """

    hidden: Tensor
    head: Tensor
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: Tensor | slice) -> "Distribution":
        return Distribution(hidden=self.hidden[index], head=self.head, temperature=self.temperature)

    def to(self, device: str) -> "Distribution":
        return Distribution(
            hidden=self.hidden.to(device),
            head=self.head.to(device),
            temperature=self.temperature,
        )

    def detach(self) -> "Distribution":
        """The same numbers without gradient."""
        return Distribution(
            hidden=self.hidden.detach(), head=self.head.detach(), temperature=self.temperature
        )

    @property
    def chunk(self) -> int:
        """How many tokens to turn into log-probabilities at once."""
        return max(1, CHUNK_ELEMENTS // len(self.head))

    def logps(self) -> Tensor:
        """All log-probabilities [N, V] in float32: 4NV bytes."""
        return log_softmax(self.hidden, self.head, self.temperature)


def log_softmax(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    """hidden [n, H], head [V, H] -> log-probabilities [n, V] in float32."""
    logits = (hidden @ head.T).float()
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, -1)


def sampled_logps(of: Distribution, token: Tensor) -> Tensor:
    """Log-probability of token[N] -> [N]."""

    def pick(hidden: Tensor, head: Tensor, token: Tensor) -> Tensor:
        rows = log_softmax(hidden, head, of.temperature)
        return rows.gather(-1, token[:, None]).squeeze(-1)

    parts = [
        _again(pick, of.hidden[i : i + of.chunk], of.head, token[i : i + of.chunk])
        for i in range(0, len(of), of.chunk)
    ]
    return torch.cat(parts) if parts else of.hidden.new_zeros(0, dtype=torch.float32)


def entropy(of: Distribution) -> Tensor:
    """-sum_v p log p per token -> [N], in nats."""

    def one(hidden: Tensor, head: Tensor) -> Tensor:
        rows = log_softmax(hidden, head, of.temperature)
        return -(rows.exp() * rows).sum(-1)

    parts = [_again(one, of.hidden[i : i + of.chunk], of.head) for i in range(0, len(of), of.chunk)]
    return torch.cat(parts) if parts else of.hidden.new_zeros(0, dtype=torch.float32)


Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student [n, V], teacher [n, V]) log-probabilities -> [n], as in `maths.divergences`."""


def diverge(divergence: Divergence, student: Distribution, teacher: Distribution) -> Tensor:
    """A divergence at each token -> [N]; the gradient reaches the student only."""
    if len(student.head) != len(teacher.head):
        raise ValueError(
            f"the student's vocabulary has {len(student.head)} entries and the teacher's "
            f"{len(teacher.head)}: a divergence over the vocabulary needs the same tokenizer"
        )

    def one(hidden: Tensor, head: Tensor, other: Tensor) -> Tensor:
        with torch.no_grad():
            goal = log_softmax(other, teacher.head, teacher.temperature)
        return divergence(log_softmax(hidden, head, student.temperature), goal)

    size = min(student.chunk, teacher.chunk)
    parts = [
        _again(one, student.hidden[i : i + size], student.head, teacher.hidden[i : i + size])
        for i in range(0, len(student), size)
    ]
    return torch.cat(parts) if parts else student.hidden.new_zeros(0, dtype=torch.float32)


def _again(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call now; where a gradient is wanted, forget the inside and call again for the backward."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        result = checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(result, Tensor)
        return result
    return function(*tensors)
