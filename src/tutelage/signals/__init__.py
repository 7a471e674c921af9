"""The signals that algorithms are built from: advantages and weights, one value per token.

advantages  group-relative and other baselines, the gap to a teacher, masks by actor
reductions  token weights: means over tokens or episodes, of all or of some groups
gates       how much a teacher pulls at each token
turns       weights by turn, and advantages that look ahead
followups   factors and weights of the methods that came after SDAR
"""

from tutelage.signals.advantages import (
    acted_by,
    batch_normalised,
    drift,
    episode_return,
    gap,
    group_relative,
    leave_one_out,
    state_relative,
    to_come,
    turn_relative,
)
from tutelage.signals.followups import (
    belief_weight,
    equal_turns,
    influence_weight,
    persistent_weight,
    relative_support,
    reliability,
    residual_weight,
    support,
    whitened,
)
from tutelage.signals.gates import GATES, entropy_gate, evidence, gap_gate, soft_or_gate
from tutelage.signals.reductions import episode_mean, episode_sum, token_mean, varied
from tutelage.signals.turns import (
    discounted_gap,
    first_turns,
    sod_weight,
    t_dur,
    token_dur,
)

__all__ = [
    "GATES",
    "acted_by",
    "batch_normalised",
    "belief_weight",
    "discounted_gap",
    "drift",
    "entropy_gate",
    "episode_mean",
    "episode_return",
    "episode_sum",
    "equal_turns",
    "evidence",
    "first_turns",
    "gap",
    "gap_gate",
    "group_relative",
    "influence_weight",
    "leave_one_out",
    "persistent_weight",
    "relative_support",
    "reliability",
    "residual_weight",
    "sod_weight",
    "soft_or_gate",
    "state_relative",
    "support",
    "t_dur",
    "to_come",
    "token_dur",
    "token_mean",
    "turn_relative",
    "varied",
    "whitened",
]
