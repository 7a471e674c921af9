"""Per-token KL divergence between two policies on the same turns, each after its own prompt.

AdaSwitch compares policies token by token while a turn is played, so turns are scored with the
engines' caches: each is fed only the new tokens, and the teacher continues from there if it takes
the turn over. In an episode of 12 turns and 376 tokens, 144 of them sampled, that was 144 tokens of
the student and 359 of the teacher; complete sequences were 2,472 of each. A policy without a local
engine, or with all slots in turns, is scored on complete sequences. A teacher that is the student
with a hint shares the student's slots, and holds nothing between turns.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution, diverge
from tutelage.maths.divergences import reverse_kl
from tutelage.objective.scores import Scores
from tutelage.policies.base import Engine, Scorer
from tutelage.policies.hf.generation import SlotEngine
from tutelage.prompts.prompter import Sample


@runtime_checkable
class HasEngine(Protocol):
    """A policy in this process, whose engine keeps the keys and values of episodes."""

    @property
    def engine(self) -> Engine: ...

    @property
    def head(self) -> Tensor: ...

    @property
    def cap(self) -> float: ...


def divergences(
    student: Scorer,
    teacher: Scorer,
    turns: Sequence[tuple[Sample, Sample]],
    temperature: float,
    keys: Sequence[str] = (),
) -> list[list[float]]:
    """KL(student || teacher) over the vocabulary at each token of each turn, in nats.

    turns  the same tokens twice: after the prompt of `student`, and after that of `teacher`
    keys   the episodes of the turns: an engine that holds an episode is fed only the new tokens
    """
    with torch.no_grad():
        p = _scored(student, [sample for sample, _ in turns], keys, temperature).distribution
        q = _scored(teacher, [sample for _, sample in turns], keys, temperature).distribution
        flat = diverge(reverse_kl, p, q.to(str(p.hidden.device))).tolist()
    ends = list(accumulate(len(sample.tokens) for sample, _ in turns))
    return [flat[start:end] for start, end in pairwise([0, *ends])]


def _scored(
    policy: Scorer, samples: Sequence[Sample], keys: Sequence[str], temperature: float
) -> Scores:
    """Scores of turns, by the policy's engine where it has free slots."""
    engine = policy.engine if isinstance(policy, HasEngine) else None
    if keys and isinstance(engine, SlotEngine) and (free := engine.free_slots(samples)):
        turns = list(zip(keys, samples, strict=True))
        hidden = torch.cat([engine.feed(turns[i : i + free]) for i in range(0, len(turns), free)])
        assert isinstance(policy, HasEngine)
        distribution = Distribution(
            hidden=hidden,
            head=policy.head.detach().to(hidden.dtype),
            temperature=temperature,
            cap=policy.cap,
        )
        token = torch.tensor([t for s in samples for t in s.tokens], device=hidden.device)
        return Scores(distribution=distribution, token=token)
    return policy.score(samples, temperature)
