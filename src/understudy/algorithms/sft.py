"""SFT: imitate what an expert or a teacher does, by letting it take every turn.

L = -mean_t log p(y_t),  y the expert's or the teacher's tokens

With a hint, (1 - hinted) of that and hinted of the same under the prompt that holds the hint: the
policy learns the task and to act on what it is told. Under the hint it imitates the same episodes,
or those of the environment's plan, which only somebody who was told can follow, or how the plan is
taken up again after wrong turns, which a teacher of somebody who does not know it must be able to.
"""

from typing import Literal

from understudy.maths.surrogates import score_function
from understudy.objective import ONE, Algorithm, Reinforce, Term, View
from understudy.schedules import constant
from understudy.signals import acted_by


def sft(
    *,
    source: Literal["expert", "teacher"] = "expert",
    teacher: str = "teacher",
    thoughts: bool = False,
    hint: str = "",
    hinted: float = 0.5,
    told: Literal["same", "plan", "stray"] = "same",
) -> Algorithm:
    """`source` is who demonstrates: the environment's own expert, or the teacher policy; with
    `thoughts` the expert's are imitated too, where the environment has them. With a `hint`,
    `hinted` is the share of the loss that is taken with the hint in the prompt. With `told` =
    "plan" it is the share of episodes that follow the environment's plan, imitated under the hint
    alone; the others are imitated without. "stray" puts wrong turns between the plan's, which are
    not imitated."""
    if not 0 <= hinted <= 1:
        raise ValueError(f"hinted is a share of the loss, from 0 to 1; got {hinted}")
    imitate, views = score_function(), {}
    terms: tuple[Term, ...] = (Reinforce(credit=ONE, surrogate=imitate, name="imitate"),)
    if hint:
        views["hinted"] = View(policy="self", hint=hint)
        plain, with_hint = (1.0 - hinted) * ONE, hinted * ONE
        if told != "same":
            plain, with_hint = acted_by("expert"), acted_by("hinted")
        terms = (
            Reinforce(credit=plain, surrogate=imitate, name="imitate"),
            Reinforce(credit=with_hint, surrogate=imitate, name="imitate_hinted", trains="hinted"),
        )
    planned = {"hinted": hinted} if hint and told != "same" else {}
    if source == "expert":
        return Algorithm(
            terms=terms,
            views=views,
            demonstrated=True,
            planned=planned,
            strays=told == "stray",
            aloud=thoughts,
        )
    if planned:
        raise ValueError(f'told = "{told}" imitates the environment\'s plan; set source = "expert"')
    views["teacher"] = View(policy=teacher)
    return Algorithm(terms=terms, views=views, actors={"teacher": constant(1.0)})
