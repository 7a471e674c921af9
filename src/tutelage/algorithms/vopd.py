"""vOPD, on-policy distillation with a control variate (arXiv:2605.07865).

    b_t = -KL(p || q) at token t, without gradient
    L   = -mean_t (log q(y_t) - log p(y_t) - b_t) p / p_old

p is the student, q the teacher. A token's gap has -KL(p || q) as its expectation, so subtracting it
leaves the expected gradient as it is, that of reverse KL, and takes away most of the noise. `topk`
computes the baseline from the student's k likeliest entries and the pooled rest: a little more noise,
still no bias. The loss that is shown is noise around 0.
"""

from typing import Literal

from tutelage.maths.divergences import reverse_kl, top_k
from tutelage.maths.estimators import detached_k1
from tutelage.objective import Algorithm, DistillSampled, View


def vopd(
    *, teacher: str = "teacher", baseline: Literal["full", "topk"] = "full", k: int = 64
) -> Algorithm:
    """Args:
    baseline: the divergence over the whole vocabulary, or over k entries and the rest
    k: vocabulary entries that "topk" keeps
    """
    of = reverse_kl if baseline == "full" else top_k(reverse_kl, k)
    term = DistillSampled(estimate=detached_k1, corrected=True, baseline=of, name="vopd")
    return Algorithm(terms=(term,), views={"teacher": View(policy=teacher)})
