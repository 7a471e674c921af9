"""OPID (arXiv:2606.26790): GRPO plus the log-prob gap to the same policy with a hint.

    A_t = A_GRPO + strength D_t,  D_t = log q(y_t) - log p(y_t) before the step
    L   = mean_t of PPO's clipped surrogate on A_t

q is the same weights with a hint or hindsight in the prompt. In the paper a large model writes
the hint of every episode; here it can be of any kind.
"""

from dataclasses import replace
from typing import Literal

from tutelage.algorithms.grpo import policy_gradient
from tutelage.hints.hindsight import KINDS
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import Algorithm, View
from tutelage.signals import gap, group_relative


def opid(
    *,
    hint: str = "skills",
    hindsight: Literal["none", "peer_success", "next_observations"] = "none",
    teacher: str = "self",
    strength: float = 0.001,
    std: bool = True,
    clip: float = 0.2,
    dual_clip: float | None = 3.0,
    kl: float = 0.01,
) -> Algorithm:
    """Args:
    hindsight: text about the finished episode in the teacher's prompt, besides its hint
    strength: weight of the gap beside the reward
    """
    advantage = group_relative(std=std) + strength * gap()
    plain = policy_gradient(advantage, ppo_clip(clip, dual=dual_clip), name="opid", kl=kl)
    kind = None if hindsight == "none" else KINDS[hindsight]()
    hinted = View(policy=teacher, hint=hint, hindsight=kind)
    return replace(plain, views={**plain.views, "teacher": hinted})
