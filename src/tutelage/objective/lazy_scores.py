"""What views said before a step's update, of those tokens that something asks for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution
from tutelage.objective.scores import Scores

Take = Callable[[str, Tensor], tuple[Scores, Tensor]]
"""(view, tokens [N] bool) -> scores of n tokens, those among them, and their places [n]."""


class Partial(Scores):
    """Scores of some of N tokens. `place` [N] says where each is among those; -1: it is not."""

    __slots__ = ("_place", "_some")

    def __init__(self, some: Scores, place: Tensor) -> None:
        self._some, self._place, self._logp = some, place, None

    @property
    def scored(self) -> Tensor:
        return self._place >= 0

    @property
    def logp(self) -> Tensor:
        """[N] log-probability of each sampled token, NaN where it was not scored."""
        if self._logp is None:
            made = self._some.logp.new_full((len(self._place),), torch.nan)
            made[self.scored] = self._some.logp[self._place[self.scored]]
            self._logp = made
        return self._logp

    def at(self, i: Tensor) -> Scores:
        place = self._place[i]
        if (place < 0).any():
            raise ValueError(
                "scores are read of tokens that weigh nothing, and so were not scored; read them "
                "only where a term counts, or leave `tokenwise` out of the signal that reads them"
            )
        return self._some.at(place)

    def check(self) -> None:
        self._some.check()

    @property
    def distribution(self) -> Distribution:
        raise ValueError(
            "only some tokens were scored; read them with `at`, or leave `tokenwise` out of the "
            "signal that reads them"
        )


class LazyScores(Mapping[str, Scores]):
    """Views' scores before the update, taken when something first asks for them: what nothing
    reads is never computed.

    twins  by view, the views named before it and the tokens [N] at which both read the same ids
           with the same weights: such tokens are scored once
    """

    def __init__(
        self, twins: Mapping[str, Sequence[tuple[str, Tensor]]], take: Take, like: Tensor
    ) -> None:
        self._twins, self._take = twins, take
        self._nothing = torch.zeros_like(like, dtype=torch.bool)
        self._asked: dict[str, Tensor] = {}
        self._held: dict[str, Scores] = {}
        self._place: dict[str, Tensor] = {}
        self._made: dict[str, Scores] = {}

    def __getitem__(self, name: str) -> Scores:
        return self.of(name, ~self._nothing)

    def __iter__(self) -> Iterator[str]:
        return iter(self._twins)

    def __len__(self) -> int:
        return len(self._twins)

    def of(self, name: str, tokens: Tensor) -> Scores:
        """A view's scores of some tokens [N] at least."""
        if name not in self._twins:
            raise KeyError(f"the algorithm has no view {name!r}, only {', '.join(self._twins)}")
        wanted = tokens | self._asked.get(name, self._nothing)
        missing = wanted & ~self._scored(name)
        if missing.any():
            for other, alike in self._twins[name]:
                if (shared := missing & alike).any():
                    index = shared.nonzero().squeeze(-1)
                    self._add(name, self.of(other, shared).at(index), index)
                    missing = missing & ~alike
            if missing.any():
                self._add(name, *self._take(name, missing))
            self._made.pop(name, None)
        if name not in self._made:
            self._made[name] = self._whole(name)
        return self._made[name]

    def want(self, name: str, tokens: Tensor) -> Callable[[], Scores]:
        """Scores of some tokens that will be read before the update: taken when they are, in one
        pass with what else of the view is wanted by then."""
        self._asked[name] = tokens | self._asked.get(name, self._nothing)
        return cache(lambda: self.of(name, tokens))

    def within(self, tokens: Tensor) -> "Narrowed":
        """The same, of some tokens [N]."""
        return Narrowed(self, tokens)

    def made(self, name: str) -> Scores | None:
        """A view's scores if something has asked for them."""
        return self._made.get(name)

    def _scored(self, name: str) -> Tensor:
        return self._place[name] >= 0 if name in self._place else self._nothing

    def _add(self, name: str, more: Scores, index: Tensor) -> None:
        held = self._held.get(name)
        start = 0 if held is None else len(held)
        self._held[name] = more if held is None else joined(held, more)
        place = self._place.setdefault(name, torch.where(self._nothing, 0, -1))
        place[index] = torch.arange(start, start + len(index), device=place.device)

    def _whole(self, name: str) -> Scores:
        if name not in self._held:
            none = torch.zeros(0, device=self._nothing.device)
            return Partial(Scores(logp=none), torch.where(self._nothing, 0, -1))
        place = self._place[name]
        if place.equal(torch.arange(len(place), device=place.device)):
            return self._held[name]
        return Partial(self._held[name], place.clone())


class Narrowed(Mapping[str, Scores]):
    """Scores of some tokens, for readers that need no others."""

    def __init__(self, whole: LazyScores, tokens: Tensor) -> None:
        self.whole, self.tokens = whole, tokens

    def __getitem__(self, name: str) -> Scores:
        return self.whole.of(name, self.tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole)

    def __len__(self) -> int:
        return len(self.whole)


def joined(first: Scores, second: Scores) -> Scores:
    """Scores of one view's tokens after those of others."""
    if not (first.thick and second.thick):
        return Scores(logp=torch.cat([first.logp, second.logp]))
    one, other = first.distribution, second.distribution
    return Scores(
        distribution=replace(one, hidden=torch.cat([one.hidden, other.hidden])),
        token=torch.cat([first.token, second.token]),
    )


def kept(made: Scores, heads: list[Tensor]) -> Scores:
    """Scores that a later minibatch reads must not follow the head through the update: one copy of
    it a step, which is put into `heads`, stands in all of them."""
    if not made.thick:
        return made
    of = made.distribution
    if not heads:
        heads.append(of.head.clone())
    return made.like(replace(of, head=heads[0]), slice(None))
