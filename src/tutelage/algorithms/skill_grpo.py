"""Skill-GRPO (arXiv:2605.15155): GRPO on a policy with skills in its prompt.

The loss is that of grpo with p(. | prompt, skills) in place of p(. | prompt): the acting policy, the
trained policy and, with kl, the reference all read the same skills. Evaluated without them and, with
[eval] hint = "skills", once more with them (Skill-GRPO* in the paper's tables).
"""

from dataclasses import replace

from tutelage.algorithms.grpo import Old, grpo
from tutelage.objective import Algorithm, View
from tutelage.schedules import constant

SKILLED = "skilled"


def skill_grpo(
    *,
    hint: str = "skills",
    clip: float = 0.2,
    clip_high: float | None = None,
    dual_clip: float | None = 3.0,
    std: bool = True,
    kl: float = 0.0,
    entropy: float = 0.0,
    old: Old = "sampler",
) -> Algorithm:
    """Args:
    hint: the privileged information in every prompt
    """
    if not hint:
        raise ValueError('hint is empty, which is plain GRPO; name one, or set name = "grpo"')
    plain = grpo(
        clip=clip,
        clip_high=clip_high,
        dual_clip=dual_clip,
        std=std,
        kl=kl,
        entropy=entropy,
        old=old,
    )
    return Algorithm(
        terms=tuple(replace(t, trains=SKILLED) for t in plain.terms),  # type: ignore[type-var]
        views={SKILLED: View(hint=hint)}
        | {name: replace(view, hint=hint) for name, view in plain.views.items()},
        actors={SKILLED: constant(1.0)},
    )
