"""A training step made of random numbers that every formula can be checked on: ragged turns of
two actors, invalid ones among them, and views with a distribution at every token."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution
from tutelage.objective import Algorithm, Objective, Step, bind
from tutelage.objective.batch import collate
from tutelage.objective.scores import Scores
from tutelage.types import Episode, Observation, Task, Turn

V, WIDTH = 7, 5
VIEWS = ("student", "teacher", "reference", "full", "ablated")
HEAT = 0.8


@dataclass(frozen=True)
class World:
    """Episodes and, by view and episode, the hidden states [tokens, WIDTH] at their tokens."""

    episodes: tuple[Episode, ...]
    hidden: Mapping[str, tuple[Tensor, ...]]
    heads: Mapping[str, Tensor]

    def reordered(self, order: Sequence[int]) -> "World":
        return World(
            tuple(self.episodes[i] for i in order),
            {view: tuple(rows[i] for i in order) for view, rows in self.hidden.items()},
            self.heads,
        )

    def distribution(self, view: str) -> Distribution:
        return Distribution(
            hidden=torch.cat(self.hidden[view]), head=self.heads[view], temperature=HEAT
        )

    def step(self, at: int = 3) -> Step:
        """What terms are bound to."""
        batch = collate(self.episodes)
        with torch.no_grad():
            scores = {
                v: Scores(distribution=self.distribution(v), token=batch.token) for v in self.hidden
            }
        return Step(batch, scores, at)

    def live(self, step: Step, i: Tensor, *, leaf: Tensor | None = None) -> dict[str, Scores]:
        """Scores of a slice by view, with gradient for `leaf` in place of the student's states."""
        of = {view: self.distribution(view) for view in self.heads}
        if leaf is not None:
            of["student"] = replace(of["student"], hidden=leaf)
        token = step.batch.token[i]
        return {view: Scores(distribution=d[i], token=token) for view, d in of.items()}


def world(seed: int = 0, *, groups: int = 3, group_size: int = 3) -> World:
    rng, gen = random.Random(seed), torch.Generator().manual_seed(seed)
    episodes = tuple(
        Episode(task=Task(id=f"t{g}"), group=f"t{g}", copy=c, turns=_turns(rng))
        for g in range(groups)
        for c in range(group_size)
    )
    counts = [sum(len(t.tokens) for t in e.turns) for e in episodes]

    def rows(view: str) -> tuple[Tensor, ...]:
        result = tuple(torch.randn(n, WIDTH, generator=gen) for n in counts)
        # a teacher that is near its student, as teachers are: gaps of both signs
        return tuple(a + 0.5 * b for a, b in zip(base, result, strict=True)) if view else result

    base = rows("")
    head = torch.randn(V, WIDTH, generator=gen)
    others = {view: rows(view) for view in VIEWS[1:]}
    return World(episodes, {"student": base, **others}, dict.fromkeys(VIEWS, head))


def _turns(rng: random.Random) -> tuple[Turn, ...]:
    results = []
    for k in range(rng.randint(1, 4)):
        tokens = tuple(rng.randrange(V) for _ in range(rng.randint(1, 5)))
        valid = rng.random() < 0.8
        results.append(
            Turn(
                observation=Observation(text="seen", state=None if k % 2 else rng.choice("ab")),
                prompt=(1, 2),
                text="",
                tokens=tokens,
                logps=tuple(-3 * rng.random() for _ in tokens),
                actor=rng.choice(("student", "teacher")),
                reward=rng.choice((0.0, 1.0, 2.5)),
                penalty=0.0 if valid else 0.1,
                valid=valid,
            )
        )
    return tuple(results)


def total(algorithm: Algorithm, of: World, at: int = 3) -> float:
    """The whole loss of a step, in one slice."""
    return sum(parts(algorithm, of, at).values())


def parts(algorithm: Algorithm, of: World, at: int = 3) -> dict[str, float]:
    step = of.step(at)
    everything = torch.arange(len(step.batch.token))
    actual = bind(algorithm, step)(of.live(step, everything), everything)
    return {name: value.sum().item() for name, value in actual.items()}


def gradient(
    objective: Objective, of: World, step: Step, slices: Sequence[Tensor]
) -> tuple[float, Tensor]:
    """The summed loss over slices, and its gradient for the student's states [N, WIDTH]."""
    leaf = torch.cat(of.hidden["student"]).clone().requires_grad_()
    value = 0.0
    for i in slices:
        loss = torch.stack(
            [p.sum() for p in objective(of.live(step, i, leaf=leaf), i).values()]
        ).sum()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    return value, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
