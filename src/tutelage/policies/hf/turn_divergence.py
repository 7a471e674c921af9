"""How far two policies are apart at every token of the same turns, each after its own prompt."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution, diverge
from tutelage.maths.divergences import reverse_kl
from tutelage.objective.scores import Scores
from tutelage.policies.base import Engine, Request, Scorer
from tutelage.policies.hf.attention import Flat, Span, check_handed_on
from tutelage.policies.hf.generation import PASS, SlotEngine
from tutelage.prompts.prompter import Sample


@runtime_checkable
class Holds(Protocol):
    """A policy in this process, whose engine keeps the keys and values of episodes."""

    @property
    def engine(self) -> Engine: ...

    @property
    def head(self) -> Tensor: ...


def divergences(
    mine: Scorer,
    theirs: Scorer,
    turns: Sequence[tuple[Sample, Sample]],
    temperature: float,
    keys: Sequence[str] = (),
) -> list[list[float]]:
    """KL(mine || theirs) over the vocabulary at each token of each turn.

    turns  the same tokens twice: after the prompt of `mine`, and after that of `theirs`
    keys   of the episodes they belong to: an engine that holds what came before is fed the rest
           alone
    """
    with torch.no_grad():
        p = _scored(mine, [own for own, _ in turns], keys, temperature).distribution
        q = _scored(theirs, [other for _, other in turns], keys, temperature).distribution
        flat = diverge(reverse_kl, p, q.to(str(p.hidden.device))).tolist()
    ends = list(accumulate(len(own.tokens) for own, _ in turns))
    return [flat[start:end] for start, end in pairwise([0, *ends])]


def _scored(
    policy: Scorer, samples: Sequence[Sample], keys: Sequence[str], temperature: float
) -> Scores:
    """Scores of turns, whole rows where no engine here can take them."""
    engine = policy.engine if isinstance(policy, Holds) else None
    if keys and isinstance(engine, SlotEngine) and (room := _room(engine, samples)):
        pairs = list(zip(keys, samples, strict=True))
        parts = [follow(engine, pairs[i : i + room]) for i in range(0, len(pairs), room)]
        hidden = torch.cat(parts)
        assert isinstance(policy, Holds)
        of = Distribution(
            hidden=hidden, head=policy.head.detach().to(hidden.dtype), temperature=temperature
        )
        token = torch.tensor([t for s in samples for t in s.tokens], device=hidden.device)
        return Scores(distribution=of, token=token)
    return policy.score(samples, temperature)


def _room(engine: SlotEngine, samples: Sequence[Sample]) -> int:
    """Rows that can be given to turns now."""
    slots = max(engine._grown(len(s.prompt) + len(s.tokens)) for s in samples)
    return engine._most(slots) - sum(row.request is not None for row in engine.rows)


@torch.no_grad()
def follow(engine: SlotEngine, turns: Sequence[tuple[str, Sample]]) -> Tensor:
    """Feed an engine turns that are there already, by episode: what its rows hold of them stays.

    -> the hidden states [N, H] before each of their tokens, which the engine holds from here on
    but for the last of each turn.
    """
    requests = [
        Request(key=key, prompt=s.prompt, seed=0, max_new=len(s.tokens)) for key, s in turns
    ]
    engine._make_room(requests)
    owners = {row.key for row in engine.rows if row.request is None}
    spans: dict[int, Span] = {}
    # an episode's own row must be claimed before another is given it as idle
    for i in sorted(range(len(requests)), key=lambda i: requests[i].key not in owners):
        at = engine._place(requests[i])
        held, row = engine._keep(at, requests[i]), engine.rows[at]
        engine.clock += 1
        row.key, row.used, row.request = requests[i].key, engine.clock, requests[i]
        row.ids = tuple(requests[i].prompt[:held])
        new = len(requests[i].prompt) - held + requests[i].max_new - 1
        spans[i] = Span(at, held, new)
    made = []
    for i, (_, sample) in enumerate(turns):
        ids, row = (*sample.prompt, *sample.tokens[:-1]), engine.rows[spans[i].row]
        made.append(_fed(engine, spans[i], ids)[-len(sample.tokens) :])
        row.ids, row.request = ids, None
    engine._settle()
    return torch.cat(made)


def _fed(engine: SlotEngine, span: Span, ids: Sequence[int]) -> Tensor:
    """Hidden states [T, H] of what is new to a row."""
    made = []
    for start in range(span.held, span.held + span.new, PASS):
        flat = Flat([Span(span.row, start, min(PASS, span.held + span.new - start))])
        index = torch.arange(start, start + flat.spans[0].new, device=engine.device)
        engine.cache.write_flat(torch.full_like(index, span.row), index)
        hidden = engine.forward(
            input_ids=torch.tensor(ids, device=engine.device)[None, index],
            attention_mask=None, position_ids=index[None], past_key_values=engine.cache,
            use_cache=True, flat=flat,
        )  # fmt: skip
        check_handed_on(flat, engine.layout.layers)
        made.append(hidden[0])
    return torch.cat(made)
