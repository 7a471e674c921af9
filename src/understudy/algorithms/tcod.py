"""TCOD (arXiv:2604.24005): on-policy distillation over a window of turns that grows with training.

    f2b, front to back   OPD on the first k turns of each episode, k = start + floor(step / every)

In one mean over the tokens of those turns; k is at most an episode's length, where this is OPD.
"""

from typing import Literal

from understudy.algorithms.opd import Vocabulary, graded
from understudy.objective import Algorithm, View
from understudy.signals import first_turns, token_mean


def tcod(
    *,
    teacher: str = "teacher",
    direction: Literal["f2b"] = "f2b",
    start: int = 1,
    every: int = 2,
    vocabulary: Vocabulary = "sampled",
    k: int = 64,
    clip: float | None = None,
    dual_clip: float | None = None,
) -> Algorithm:
    """The window holds `start` turns at first and one more after every `every` steps; the other
    settings are those of opd."""
    if start < 1 or every < 1:
        raise ValueError(f"start and every are at least 1, got {start} and {every}")
    window = first_turns(lambda step: start + step // every)
    term = graded(window, vocabulary=vocabulary, k=k, clip=clip, dual_clip=dual_clip)
    return Algorithm(
        terms=(term,), views={"teacher": View(policy=teacher)}, reduction=token_mean(window)
    )
