"""OPD, on-policy distillation: the student acts, a teacher scores every token that it samples.

    sampled   A_t = sum_{u >= t} gamma_kl^(u - t) (log q(y_u) - log p(y_u))
              L = -mean_t A_t p / p_old
    full      L = mean_t KL(p || q) over the vocabulary
    topk      the same KL, of p and q with all entries but k pooled into one

p is the student, q the teacher (GKD, arXiv:2306.13649, with student data only and reverse KL).
With gamma_kl = 0 a token has its own gap as advantage, and full is the same gradient without noise;
`clip` makes sampled PPO's surrogate.
"""

from typing import Literal

from tutelage.maths.divergences import reverse_kl, top_k
from tutelage.maths.surrogates import importance, ppo_clip
from tutelage.objective import ONE, Algorithm, Distill, Reinforce, Signal, Term, View
from tutelage.signals import discounted_gap, gap

Vocabulary = Literal["sampled", "full", "topk"]
Support = Literal["student", "teacher"]


def opd(
    *,
    teacher: str = "teacher",
    vocabulary: Vocabulary = "sampled",
    k: int = 64,
    support: Support = "student",
    gamma_kl: float = 0.0,
    clip: float | None = None,
    dual_clip: float | None = None,
) -> Algorithm:
    """Args:
    k: vocabulary entries that "topk" keeps
    support: whose likeliest entries "topk" keeps
    gamma_kl: discount of later tokens' gaps in a token's advantage, for "sampled"
    clip: clip the ratio of "sampled" to 1 +- clip; unset for plain importance weighting
    dual_clip: dual clip of a negative advantage of "sampled"
    """
    term = graded(
        vocabulary=vocabulary,
        k=k,
        support=support,
        gamma_kl=gamma_kl,
        clip=clip,
        dual_clip=dual_clip,
    )
    return Algorithm(terms=(term,), views={"teacher": View(policy=teacher)})


def graded(
    weight: Signal = ONE,
    *,
    vocabulary: Vocabulary = "sampled",
    k: int = 64,
    support: Support = "student",
    gamma_kl: float = 0.0,
    clip: float | None = None,
    dual_clip: float | None = None,
) -> Term:
    """OPD's loss, times a weight per token."""
    if vocabulary != "sampled":
        if gamma_kl or clip is not None or dual_clip is not None:
            raise ValueError(
                f"gamma_kl, clip and dual_clip shape a policy gradient, but vocabulary = "
                f'"{vocabulary}" has none; leave them out, or set vocabulary = "sampled"'
            )
        divergence = reverse_kl if vocabulary == "full" else top_k(reverse_kl, k, support)
        return Distill(divergence=divergence, weight=weight, name="opd")
    if clip is None and dual_clip is not None:
        raise ValueError("dual_clip bounds a clipped ratio; set clip as well")
    advantage = discounted_gap(gamma_kl) if gamma_kl else gap()
    return Reinforce(
        advantage=advantage if weight is ONE else weight * advantage,
        surrogate=importance() if clip is None else ppo_clip(clip, dual=dual_clip),
        name="opd",
    )
