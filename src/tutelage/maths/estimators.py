"""Sampled-token estimators of reverse KL: log-probabilities [N] -> [N]."""

from torch import Tensor


def k1(student: Tensor, teacher: Tensor) -> Tensor:
    """log student - log teacher at sampled tokens [N]: the plain estimate of reverse KL. Unbiased as
    a value; as a loss, differentiated on the student's own samples, its expected gradient is 0."""
    return student - teacher.detach()


def detached_k1(student: Tensor, teacher: Tensor) -> Tensor:
    """`k1` without gradient: what a policy gradient of reverse KL multiplies the ratio p / p_old
    with."""
    return k1(student.detach(), teacher)


def k2(student: Tensor, teacher: Tensor) -> Tensor:
    """(log student - log teacher)^2 / 2 at sampled tokens [N]: a biased estimate of reverse KL, whose
    gradient on the student's own samples is exactly reverse KL's."""
    return (student - teacher.detach()).square() / 2


def k3(student: Tensor, teacher: Tensor) -> Tensor:
    """Schulman's estimate of reverse KL from the log-probabilities [N] of the sampled tokens:
    exp(gap) - 1 - gap with gap = min(log teacher - log student, 20). Beyond 20 it is constant;
    with only the exponential bounded, its gradient would push away from the teacher there."""
    gap = (teacher.detach() - student).clamp(max=20)
    return gap.exp() - 1 - gap


def log_ratio(student: Tensor, teacher: Tensor) -> Tensor:
    """log teacher - log student at sampled tokens [N], differentiable: SDAR's ungated loss.

    Not a divergence: it is signed, and unweighted its expected gradient on-policy is zero. Only
    with a weight that depends on the token does it train.
    """
    return teacher.detach() - student
