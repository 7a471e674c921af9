"""Steps whose every turn is written by hand, and steps of random numbers read turn by turn."""

from collections.abc import Sequence

import torch
from algorithms.test_formulas import Token, tokens

from support.fake_steps import World
from tutelage.objective import Step
from tutelage.objective.batch import collate
from tutelage.objective.scores import Scores
from tutelage.types import Episode, Observation, Task, Turn

Pair = tuple[float, float]  # log-probabilities of a sampled token: student's, teacher's


def written(episodes: Sequence[Sequence[Sequence[Pair]]], at: int = 0) -> Step:
    """Episodes -> turns -> tokens, the student's log-probability being that of sampling too."""
    results = [
        Episode(
            task=Task(id=f"t{e}"),
            group=f"t{e}",
            turns=tuple(
                Turn(
                    observation=Observation(text=""),
                    prompt=(1,),
                    text="",
                    tokens=tuple(range(len(turn))),
                    logps=tuple(p for p, _ in turn),
                )
                for turn in turns
            ),
        )
        for e, turns in enumerate(episodes)
    ]
    flat = [pair for turns in episodes for turn in turns for pair in turn]
    student, teacher = (torch.tensor([pair[k] for pair in flat]) for k in (0, 1))
    scores = {"student": Scores(logp=student), "teacher": Scores(logp=teacher)}
    return Step(collate(results), scores, at)


def turns_of(of: World) -> list[list[list[Token]]]:
    """Episodes -> turns -> tokens."""
    every = iter(tokens(of))
    return [[[next(every) for _ in turn.tokens] for turn in e.turns] for e in of.episodes]
