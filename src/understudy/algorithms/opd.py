"""OPD, on-policy distillation: the student acts, a teacher grades every token it samples.

    sampled   A_t = log q(y_t) - log p_old(y_t), importance-weighted policy gradient
    full      L = mean_t KL(p || q) over the vocabulary, the same gradient without its noise

p is the student, q the teacher (GKD, arXiv:2306.13649, with student data only and reverse KL).
"""

from typing import Literal

from understudy.maths.divergences import reverse_kl
from understudy.maths.surrogates import importance
from understudy.objective import Algorithm, Distill, Reinforce, Term, View
from understudy.signals import gap


def opd(
    *, teacher: str = "teacher", vocabulary: Literal["sampled", "full"] = "sampled"
) -> Algorithm:
    """`vocabulary` says how much of the teacher's distribution is read at each token."""
    terms: dict[str, Term] = {
        "sampled": Reinforce(credit=gap(), surrogate=importance(), name="opd"),
        "full": Distill(divergence=reverse_kl, name="opd"),
    }
    return Algorithm(terms=(terms[vocabulary],), views={"teacher": View(policy=teacher)})
