"""Scores: the log-probabilities that one view gives the sampled tokens of a step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tutelage.errors import ConfigError
from tutelage.maths.distributions import Distribution, Pieces, sampled_logps


class Scores:
    """Log-probabilities of N sampled tokens under one view and, if the policy provides them, the
    distributions over the vocabulary that they come from.

    Raises ValueError without log-probabilities, unless there are a distribution and the tokens.
    """

    __slots__ = ("_distribution", "_logp", "_token")

    def __init__(
        self,
        *,
        logp: Tensor | None = None,
        distribution: Distribution | None = None,
        token: Tensor | None = None,
    ) -> None:
        if logp is None and (distribution is None or token is None):
            raise ValueError("scores need log-probabilities, or a distribution and the tokens")
        self._logp, self._distribution, self._token = logp, distribution, token

    @property
    def logp(self) -> Tensor:
        """[N] log-probability of each sampled token."""
        if self._logp is None:
            assert self._distribution is not None
            assert self._token is not None
            self._logp = sampled_logps(self._distribution, self._token)
        return self._logp

    def __len__(self) -> int:
        return len(self.token if self._logp is None else self._logp)

    @property
    def scored(self) -> Tensor:
        """[N] bool: the tokens whose scores are known."""
        return torch.ones_like(self.token if self._logp is None else self._logp, dtype=torch.bool)

    @property
    def here(self) -> Tensor:
        """[N] bool: the tokens that this process scored, whose distributions it may have."""
        return self.scored

    def to(self, device: str) -> "Scores":
        """The same scores on the device where losses are formed; a teacher may live on another."""
        of = self._distribution
        return Scores(
            logp=None if self._logp is None else self._logp.to(device),
            distribution=None if of is None else of.to(device),
            token=None if self._token is None else self._token.to(device),
        )

    def at(self, i: Tensor) -> "Scores":
        """The scores of the tokens i[n], without gradient."""
        of = self._distribution
        return Scores(
            logp=None if self._logp is None else self._logp[i].detach(),
            distribution=None if of is None else of[i].detach(),
            token=None if self._token is None else self._token[i],
        )

    def like(self, of: Distribution, part: slice) -> "Scores":
        """The tokens of `part` with another distribution of theirs, detached from its source."""
        return Scores(distribution=of, token=self.token[part])

    @property
    def token(self) -> Tensor:
        """[N] the sampled tokens, if there are distributions."""
        assert self._token is not None
        return self._token

    @property
    def has_distribution(self) -> bool:
        """Whether there are distributions, and not log-probabilities alone."""
        return self._distribution is not None

    def check(self) -> None:
        """Raises ConfigError if there are no distributions."""
        if not self.has_distribution:
            raise ConfigError(
                "this view was scored on its sampled tokens only, but a term of the algorithm "
                "needs the whole vocabulary: choose its sampled-token form, or a local teacher"
            )

    @property
    def distribution(self) -> Distribution:
        """The N distributions over V entries."""
        self.check()
        assert self._distribution is not None
        return self._distribution


def concatenated(first: Scores, second: Scores) -> Scores:
    """Scores of n and m tokens of one view -> those of n + m tokens."""
    if not (first.has_distribution and second.has_distribution):
        return Scores(logp=torch.cat([first.logp, second.logp]))
    one, other = first.distribution, second.distribution
    return Scores(
        distribution=replace(one, hidden=torch.cat([one.hidden, other.hidden])),
        token=torch.cat([first.token, second.token]),
    )


class Cut:
    """Live scores of the same N tokens under several views, cut into pieces of a few tokens.

    A loss is computed, and its gradient taken, piece by piece; `send` then backpropagates the
    gathered gradients through the forward passes. The gradient is that of all tokens at once, but
    memory over the vocabulary does not grow with N.
    """

    def __init__(self, live: Mapping[str, Scores]) -> None:
        self.live = live
        # views may share their scores, and then share the pieces too
        self.one = {id(scores): scores for scores in live.values()}
        self.cut = {key: Pieces(scores.distribution) for key, scores in self.one.items()}

    def pieces(self) -> Iterator[tuple[slice, dict[str, Scores]]]:
        """Which tokens, and every view's scores of them. Call `backward` on a piece's loss, if it
        has a gradient, before asking for the next piece."""
        of = [scores.distribution for scores in self.live.values()]
        if not of:
            return
        count = len(of[0])
        size = min(distribution.chunk for distribution in of)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            pieces = {key: x.like(self.cut[key][part], part) for key, x in self.one.items()}
            yield part, {name: pieces[id(scores)] for name, scores in self.live.items()}

    def send(self, idle: Sequence[Tensor] | None = None) -> None:
        """Backpropagate the gradients of all pieces through the passes that computed the scores.

        idle  the results of other passes, which are backpropagated with gradients of 0, as are
              those of all scores without a gradient: several ranks then make the same passes
        """
        always = idle is not None
        pairs = [pair for cut in self.cut.values() for pair in cut.send(always=always)]
        pairs += [(x, torch.zeros_like(x)) for x in idle or () if x.requires_grad]
        if pairs:
            torch.autograd.backward([to for to, _ in pairs], [gradient for _, gradient in pairs])
