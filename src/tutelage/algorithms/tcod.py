"""TCOD (arXiv:2604.24005): on-policy distillation over a window of turns that grows with training.

    f2b, front to back   OPD on the first k turns of each episode, k = start + floor(step / every)
    b2f, back to front   an expert plays all but its last k actions, then the student plays; OPD
                         on the student's turns

In one mean over the tokens of those turns; once k reaches an episode's length, this is OPD.
The expert is the environment's own, or the won episodes of `rollout.replay`.
"""

from typing import Literal

from tutelage.algorithms.opd import Vocabulary, graded
from tutelage.objective import STUDENT, Acting, Algorithm, View
from tutelage.signals import acted_by, first_turns, token_mean


def tcod(
    *,
    teacher: str = "teacher",
    direction: Literal["f2b", "b2f"] = "f2b",
    start: int = 1,
    every: int = 2,
    vocabulary: Vocabulary = "sampled",
    k: int = 64,
    clip: float | None = None,
    dual_clip: float | None = None,
    thoughts: bool = False,
) -> Algorithm:
    """Args:
    start: initial number of turns in the window
    every: steps after which the window grows by a turn
    thoughts: the expert that plays the first turns writes its thoughts
    """
    if start < 1 or every < 1:
        raise ValueError(f"start and every are at least 1, got {start} and {every}")
    if thoughts and direction == "f2b":
        raise ValueError('thoughts are those of an expert that opens; set direction = "b2f" too')

    def turns(step: int) -> float:
        return start + step // every

    back = direction == "b2f"
    window = acted_by(STUDENT) if back else first_turns(turns)
    term = graded(window, vocabulary=vocabulary, k=k, clip=clip, dual_clip=dual_clip)
    return Algorithm(
        terms=(term,),
        views={"teacher": View(policy=teacher)},
        token_weight=token_mean(window),
        acting=Acting(student_turns=turns if back else None, with_thoughts=thoughts),
    )
