"""SFT: imitate an expert or a teacher that takes every turn.

L = -mean_t log p(y_t),  y the expert's or the teacher's tokens

With a hint, the loss is (1 - hinted) times that plus hinted times the same under a prompt with the
hint, so that the policy learns both the task and to use the hint. With a mixture, a share of the
episodes is imitated under a hint only, and follows it: the environment's plan, which cannot be
followed without the hint, or the expert's demonstration. Families in hinted_only are imitated under
these hints alone: a start that must read the hint in them, and that leaves the task without it to be
learnt from the reward or the hint. With with_errors these episodes contain
wrong turns and their correction, since a hinted teacher must be able to recover from the errors of
a student without the hint.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from tutelage.maths.surrogates import score_function
from tutelage.objective import ONE, Acting, Algorithm, Reinforce, Term, View
from tutelage.schedules import constant
from tutelage.signals import acted_by


def sft(
    *,
    source: Literal["expert", "teacher"] = "expert",
    teacher: str = "teacher",
    thoughts: bool = False,
    hint: str = "",
    hinted: float = 0.5,
    mixture: Mapping[str, float] | None = None,
    hinted_only: list[str] | None = None,
    with_errors: bool = False,
) -> Algorithm:
    """Args:
    source: who demonstrates: the environment's expert, or the teacher policy
    thoughts: imitate the expert's thoughts too, if the environment has them
    hint: imitate under this hint as well as without
    hinted: with a hint, the share of the loss under the prompt with the hint
    mixture: hint -> share of the episodes that follow it, imitated under it only; the others
        are imitated without a hint
    hinted_only: families of tasks that are only ever imitated under a hint of the mixture
    with_errors: put wrong turns into the mixture's episodes; they are corrected but not
        imitated
    """
    if not 0 <= hinted <= 1:
        raise ValueError(f"hinted is a share of the loss, from 0 to 1; got {hinted}")
    shares = dict(mixture or {})
    families = tuple(hinted_only or ())
    _check(source, hint, shares, with_errors=with_errors, hinted_only=families)
    plain = acted_by("expert") if shares else (1.0 - hinted if hint else 1.0) * ONE
    imitate, name = score_function(), "imitate"
    terms: list[Term] = [Reinforce(advantage=plain, surrogate=imitate, name=name)]
    views = {f"with_{shown}": View(policy="self", hint=shown) for shown in shares}
    for view in views:
        terms.append(
            Reinforce(
                advantage=acted_by(view), surrogate=imitate, name=f"{name}_{view}", trains=view
            )
        )
    if hint:
        views["hinted"] = View(policy="self", hint=hint)
        terms.append(
            Reinforce(
                advantage=hinted * ONE, surrogate=imitate, name="imitate_hinted", trains="hinted"
            )
        )
    if source == "teacher":
        views["teacher"] = View(policy=teacher)
        return Algorithm(terms=tuple(terms), views=views, actors={"teacher": constant(1.0)})
    return Algorithm(
        terms=tuple(terms),
        views=views,
        acting=Acting(
            expert=True,
            hinted_share={f"with_{shown}": share for shown, share in shares.items()},
            hinted_only=families,
            with_errors=with_errors,
            with_thoughts=thoughts,
        ),
    )


def _check(
    source: str,
    hint: str,
    shares: Mapping[str, float],
    *,
    with_errors: bool,
    hinted_only: Sequence[str],
) -> None:
    if min(shares.values(), default=0) < 0 or sum(shares.values()) > 1:
        raise ValueError(f"mixture holds shares of the episodes, at most 1 in all; got {shares}")
    if shares and hint:
        raise ValueError(
            "hint imitates every episode under it too, mixture gives each episode one prompt: set "
            "one of them"
        )
    if shares and source != "expert":
        raise ValueError('mixture imitates what hints tell; set source = "expert"')
    if with_errors and not shares:
        raise ValueError("with_errors are put into the episodes of a mixture; set mixture")
    if hinted_only and not sum(shares.values()):
        raise ValueError(
            "hinted_only names families that are imitated under the hints of a mixture alone; set "
            "mixture, such as { plan = 0.5 }"
        )
