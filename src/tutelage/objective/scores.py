"""What one view of a policy says about sampled tokens."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tutelage.errors import ConfigError
from tutelage.maths.distributions import Distribution, Pieces, sampled_logps


class Scores:
    """What one view says about the N sampled tokens: their log-probabilities, and where the
    policy can give them, the distributions they were drawn from."""

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

    def to(self, device: str) -> "Scores":
        """The same scores on the device where losses are formed; a teacher may live on another."""
        of = self._distribution
        return Scores(
            logp=None if self._logp is None else self._logp.to(device),
            distribution=None if of is None else of.to(device),
            token=None if self._token is None else self._token.to(device),
        )

    def at(self, i: Tensor) -> "Scores":
        """Those of the tokens i[n], without gradient."""
        of = self._distribution
        return Scores(
            logp=None if self._logp is None else self._logp[i].detach(),
            distribution=None if of is None else of[i].detach(),
            token=None if self._token is None else self._token[i],
        )

    def like(self, of: Distribution, part: slice) -> "Scores":
        """The tokens of `part` with another distribution: theirs, cut off from its source."""
        return Scores(distribution=of, token=self.token[part])

    @property
    def token(self) -> Tensor:
        """[N] the sampled tokens, where there are distributions."""
        assert self._token is not None
        return self._token

    @property
    def thick(self) -> bool:
        """Whether there are distributions."""
        return self._distribution is not None

    def check(self) -> None:
        """Raises ConfigError where there are no distributions."""
        if not self.thick:
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


class Cut:
    """Live scores of the same N tokens under several views, cut into pieces: a loss is formed, and
    its gradient taken, a few tokens at a time, and `send` hands on what was gathered. The gradient
    is that of the whole; memory over a vocabulary does not grow with N."""

    def __init__(self, live: Mapping[str, Scores]) -> None:
        self.live = live
        # views may share their scores, and then share the pieces too
        self.one = {id(scores): scores for scores in live.values()}
        self.cut = {key: Pieces(scores.distribution) for key, scores in self.one.items()}

    def pieces(self) -> Iterator[tuple[slice, dict[str, Scores]]]:
        """Which tokens, and every view's scores of them. Call `backward` on a piece's loss, if it
        has a gradient, before the next is asked for."""
        of = [scores.distribution for scores in self.live.values()]
        count = len(of[0])
        size = min(distribution.chunk for distribution in of)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            made = {key: x.like(self.cut[key][part], part) for key, x in self.one.items()}
            yield part, {name: made[id(scores)] for name, scores in self.live.items()}

    def send(self) -> None:
        """The gradients of all pieces, through the passes that made the scores."""
        made = [pair for cut in self.cut.values() for pair in cut.send()]
        if made:
            torch.autograd.backward([to for to, _ in made], [gradient for _, gradient in made])
