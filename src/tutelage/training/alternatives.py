"""The likeliest tokens of every view at each sampled token, recorded for people to read."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tutelage.objective.aligned import Aligned
from tutelage.objective.lazy_scores import LazyScores
from tutelage.objective.scores import Scores

ALTERNATIVES = 5
"""Tokens of each view at each sampled token that a run records if it is asked to."""

Likeliest = Mapping[str, tuple[Tensor, Tensor]]
"""View -> ids [N, k] and log-probabilities [N, k] of its likeliest tokens, the likeliest first; -1
and NaN at a token whose distribution was not computed."""


class Alternatives:
    """Collects the `k` likeliest tokens at each of N sampled tokens while a step runs.

    Only distributions that the step computes anyway are read: a view that is scored at its sampled
    tokens alone, as a server does, has none. `k` = 0 records nothing.
    """

    def __init__(self, k: int, views: Iterable[str], like: Tensor) -> None:
        count, device = len(like), like.device
        self.k = k
        self.found: dict[str, tuple[Tensor, Tensor]] = {
            name: (
                torch.full((count, k), -1, device=device),
                torch.full((count, k), torch.nan, device=device),
            )
            for name in views
            if k
        }

    def add(self, name: str, scores: Scores, index: Tensor) -> None:
        """Record a view's scores of the tokens index [n], except those that were recorded before."""
        if name not in self.found or not scores.has_distribution:
            return
        if isinstance(scores, Aligned):  # whose ids are those of another vocabulary
            return
        ids, logps = self.found[name]
        new = ids[index, 0] < 0
        if not new.any():
            return
        of, index = scores.distribution[new].detach(), index[new]
        for start in range(0, len(of), of.chunk):
            part = slice(start, start + of.chunk)
            best = of[part].logps().topk(min(self.k, len(of.head)), -1)
            ids[index[part], : best.indices.shape[1]] = best.indices
            logps[index[part], : best.values.shape[1]] = best.values.to(logps)

    @torch.no_grad()
    def add_pass(self, live: Mapping[str, Scores], index: Tensor) -> None:
        """Record the scores of a micro-batch, before its gradient is taken."""
        for name, scores in live.items():
            self.add(name, scores, index)

    @torch.no_grad()
    def add_read(self, before: LazyScores) -> None:
        """Record what signals have read under the weights from before the update. Call it before
        those change: distributions are computed from the LM head as it is."""
        for name in self.found:
            scores = before.if_read(name)
            if scores is not None and scores.has_distribution:
                here = scores.here.nonzero().squeeze(-1)
                if len(here):
                    self.add(name, scores.at(here), here)

    def recorded(self, tensors: Mapping[str, Tensor]) -> Likeliest:
        """The views of which something was recorded, from `tensors` as the ranks gathered it."""
        pairs = {
            name: (tensors[f"ids {name}"].long(), tensors[f"logps {name}"]) for name in self.found
        }
        return {name: pair for name, pair in pairs.items() if (pair[0] >= 0).any()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything recorded, as columns [N, k] of one name each."""
        return {
            f"{kind} {name}": x
            for name, pair in self.found.items()
            for kind, x in zip(("ids", "logps"), pair, strict=True)
        }
