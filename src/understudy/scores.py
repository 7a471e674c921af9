"""What one view of a policy says about sampled tokens."""

from torch import Tensor

from understudy.maths.vocabulary import Distribution, sampled_logps


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

    @property
    def distribution(self) -> Distribution:
        """The N distributions over V entries."""
        if self._distribution is None:
            raise ValueError(
                "this view was scored on its sampled tokens only, but a term of the algorithm "
                "needs the whole vocabulary: choose its sampled-token form, or a local teacher"
            )
        return self._distribution
