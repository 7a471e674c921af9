"""RLOO (arXiv:2402.14740): REINFORCE on whole episodes with a leave-one-out baseline.

R_i = r_i - kl sum_t (log p_old(y_t) - log p_reference(y_t)),  the KL is part of the reward (eq. 3)
A_i = R_i - mean_{j != i} R_j,                                 over the group (section 2.3)
L = -mean_i A_i sum_t log p(y_t)

An episode is one action: its tokens are summed, nothing is clipped and nothing divided by a
standard deviation. A group of one has nothing to compare, and advantage 0.
"""

from tutelage.maths.surrogates import score_function
from tutelage.objective import Algorithm, Reinforce, View
from tutelage.signals import drift, episode_mean, episode_sum, leave_one_out


def rloo(*, kl: float = 0.03) -> Algorithm:
    """Exact for one optimiser step per batch (update.minibatches = 1).

    Args:
        kl: weight of the KL to the initial weights, which is part of the reward
    """
    advantage = leave_one_out(kl * drift() if kl else None)
    return Algorithm(
        terms=(Reinforce(advantage=advantage, surrogate=score_function(), name="rloo"),),
        views={"reference": View(policy="reference")} if kl else {},
        token_weight=episode_sum(),
        minibatch_weight=episode_mean(),
    )
