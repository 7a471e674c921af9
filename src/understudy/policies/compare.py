"""How far two policies are apart at every token of the same turns, each after its own prompt."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch

from understudy.maths.divergences import reverse_kl
from understudy.maths.vocabulary import diverge
from understudy.policies.base import Sample, Scorer


def divergences(
    mine: Scorer,
    theirs: Scorer,
    turns: Sequence[tuple[Sample, Sample]],
    temperature: float,
) -> list[list[float]]:
    """KL(mine || theirs) over the vocabulary at each token of each turn.

    turns  the same tokens twice: after the prompt of `mine`, and after that of `theirs`
    """
    with torch.no_grad():
        p = mine.score([own for own, _ in turns], temperature).distribution
        q = theirs.score([other for _, other in turns], temperature).distribution
        flat = diverge(reverse_kl, p, q.to(str(p.hidden.device))).tolist()
    ends = list(accumulate(len(own.tokens) for own, _ in turns))
    return [flat[start:end] for start, end in pairwise([0, *ends])]
