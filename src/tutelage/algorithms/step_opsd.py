"""StepOPSD (arXiv:2605.27140): GRPO that moves the advantage to tokens supported by hindsight.

    w_t = clip(2 sigmoid(sign(A) D_t), 1 - bound, 1 + bound)
    D_t = log q(y_t) - log p(y_t),  q: the same weights, shown the first attempt that won
    A_t = A_GRPO ((1 - s) + s w_t),  s falls from mix to 0 over mix_steps

Then each turn's A_t is scaled so that mean |A_t| is the same in all turns of an episode; won
episodes are shown nothing.

    L = mean_t of PPO's clipped surrogate on A_t
"""

from dataclasses import replace

from tutelage.algorithms.grpo import policy_gradient
from tutelage.hints.hindsight import peer_success
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, View
from tutelage.schedules import linear
from tutelage.signals import equal_turns, group_relative, support


def step_opsd(
    *,
    hint: str = "",
    teacher: str = "self",
    mix: float = 0.2,
    mix_steps: int = 50,
    bound: float = 0.2,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    hint: privileged information in the teacher's prompt, besides the hindsight
    mix: the share of the advantage that hindsight modulates at first
    mix_steps: training steps until that share is 0
    bound: how far a token's weight may be from 1
    """
    if not 0 <= mix <= 1 or not 0 <= bound < 1:
        raise ValueError(f"mix lies in [0, 1] and bound in [0, 1), got {mix} and {bound}")
    reward = group_relative(std=std)
    share = linear(mix, 0.0, mix_steps)
    weight = ONE + share * (support(reward, bound=bound) + -1.0 * ONE)
    advantage = equal_turns(reward * weight)
    plain = policy_gradient(advantage, ppo_clip(clip, dual=dual_clip), name="step_opsd", kl=kl)
    hinted = View(policy=teacher, hint=hint, hindsight=peer_success())
    return replace(plain, views={**plain.views, "teacher": hinted})
