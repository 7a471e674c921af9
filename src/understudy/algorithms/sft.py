"""SFT: imitate what an expert or a teacher does, by letting it take every turn.

L = -mean_t log p(y_t),  y the expert's or the teacher's tokens
"""

from typing import Literal

from understudy.maths.surrogates import score_function
from understudy.objective import ONE, Algorithm, Reinforce, View
from understudy.schedules import constant


def sft(
    *,
    source: Literal["expert", "teacher"] = "expert",
    teacher: str = "teacher",
    thoughts: bool = False,
) -> Algorithm:
    """`source` is who demonstrates: the environment's own expert, or the teacher policy; with
    `thoughts` the expert's are imitated too, where the environment has them."""
    term = Reinforce(credit=ONE, surrogate=score_function(), name="imitate")
    if source == "expert":
        return Algorithm(terms=(term,), demonstrated=True, aloud=thoughts)
    return Algorithm(
        terms=(term,), views={"teacher": View(policy=teacher)}, actors={"teacher": constant(1.0)}
    )
