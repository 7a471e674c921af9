"""What an algorithm's settings mean: from its docstring, or as it is for all of them."""

import inspect
import re
from collections.abc import Callable

COMMON = {
    "teacher": 'who teaches: "self", "reference" or one of [policies]',
    "hint": "the kind of privileged information that the teacher is shown (docs/hints.md)",
    "hindsight": "what the teacher is told of finished episodes",
    "clip": "how far p / p_old may be from 1 before a gain is cut off",
    "clip_high": "the same above 1; `clip` where there is none",
    "dual_clip": "a negative advantage costs at most so many times itself; none is no bound",
    "std": "divide advantages by the group's standard deviation",
    "kl": "weight of a pull to the weights of the start",
    "entropy": "weight of a bonus for entropy",
    "old": "what p_old is: as sampled, or scored again before the step",
    "coef": "weight of the loss beside GRPO's, or a schedule",
    "beta": "sharpness of the gate, or weight of the divergence",
    "gate": "what opens the gate",
    "gamma": "discount from one turn to the next",
    "vocabulary": "how much of the teacher's distribution is read at each token",
    "k": "how many entries a top-k divergence keeps",
    "support": "whose likeliest entries a top-k divergence keeps",
    "start": "the value at the first step",
    "end": "the value after the decay",
    "decay": "the share of training in which the start turns into the end",
    "curriculum": "how the chance of a teacher's turn falls",
    "student_turns": "how much of the teacher is read at tokens of the student's turns",
    "teacher_turns": "the same at tokens of the teacher's turns",
    "student_tokens": "how much of the teacher is read at the student's tokens",
    "teacher_tokens": "the same at the teacher's tokens",
    "student_kl": "the direction of KL on the student's turns",
    "teacher_kl": "the direction of KL on the teacher's turns",
    "flat_groups": "what becomes of groups whose returns are equal",
    "kappa": "weight of the teacher's gap at first",
    "kappa_min": "weight of the teacher's gap at the end",
    "rho": "weight of the group-relative advantage at first",
    "rho_max": "weight of the group-relative advantage at the end",
    "anneal_steps": "training steps from the first weights to the last",
    "reweight": "what is weighed by how the student did: turns, tokens or nothing",
    "loss": "the token loss: from sampled tokens, or a divergence over the vocabulary",
    "direction": "from an episode's front to its back, or from its back to its front",
    "limit": "tokens that a turn may have",
    "buffer": "tokens before the limit in which the penalty rises",
    "kl_in": "whether the pull is part of the reward or a loss of its own",
    "strength": "the share of the advantage that the teacher moves",
    "decay_steps": "training steps until that share is gone",
    "width": "how far a factor may be from 1",
}
"""Settings that mean the same everywhere. A docstring's own words come first."""


def meaning(function: Callable[..., object], name: str) -> str:
    """The clauses of a function's docstring that have `name` in backticks, else the common words.

    >>> def grow(*, rate: float = 1.0, kl: float = 0.0) -> None:
    ...     '''Water it; `rate` is how much, in litres. `rate` and `kl` are grpo's.'''
    >>> meaning(grow, "rate"), meaning(grow, "kl")
    ('how much, in litres', 'weight of a pull to the weights of the start')
    """
    text = " ".join((inspect.getdoc(function) or "").split())
    clauses = re.split(r";\s|\.(?:\s(?=[A-Z`])|$)", text)
    own = [
        re.sub(rf"^`{name}` (is|are|says|say) ", "", clause.strip())
        for clause in clauses
        if f"`{name}`" in clause and not _elsewhere(clause)
    ]
    return "; ".join(own) or COMMON.get(name, "")


def _elsewhere(clause: str) -> bool:
    """Whether it only says that settings are another algorithm's."""
    return re.search(r"grpo's|of grpo|settings after", clause) is not None
