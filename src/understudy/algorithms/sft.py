"""SFT: imitate what an expert or a teacher does, by letting it take every turn.

L = -mean_t log p(y_t),  y the expert's or the teacher's tokens

With a hint, (1 - hinted) of that and hinted of the same under the prompt that holds the hint: the
policy learns the task and, from the same demonstrations, to act on what it is told.
"""

from typing import Literal

from understudy.maths.surrogates import score_function
from understudy.objective import ONE, Algorithm, Reinforce, Term, View
from understudy.schedules import constant


def sft(
    *,
    source: Literal["expert", "teacher"] = "expert",
    teacher: str = "teacher",
    thoughts: bool = False,
    hint: str = "",
    hinted: float = 0.5,
) -> Algorithm:
    """`source` is who demonstrates: the environment's own expert, or the teacher policy; with
    `thoughts` the expert's are imitated too, where the environment has them. With a `hint`,
    `hinted` is the share of the loss that is taken with the hint in the prompt."""
    if not 0 <= hinted <= 1:
        raise ValueError(f"hinted is a share of the loss, from 0 to 1; got {hinted}")
    imitate, views = score_function(), {}
    terms: tuple[Term, ...] = (Reinforce(credit=ONE, surrogate=imitate, name="imitate"),)
    if hint:
        views["hinted"] = View(policy="self", hint=hint)
        plain, told = (1.0 - hinted) * ONE, hinted * ONE
        terms = (
            Reinforce(credit=plain, surrogate=imitate, name="imitate"),
            Reinforce(credit=told, surrogate=imitate, name="imitate_hinted", trains="hinted"),
        )
    if source == "expert":
        return Algorithm(terms=terms, views=views, demonstrated=True, aloud=thoughts)
    views["teacher"] = View(policy=teacher)
    return Algorithm(terms=terms, views=views, actors={"teacher": constant(1.0)})
