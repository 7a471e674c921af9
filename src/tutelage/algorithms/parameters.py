"""What the settings of algorithms mean: shared meanings, and the "Args:" block of a docstring."""

import inspect
from collections.abc import Callable, Mapping

from tutelage.config.expressions import in_words
from tutelage.config.signature import annotations

SHARED = {
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
"""Settings that mean the same in every algorithm. A function's own "Args:" come first."""


def meanings(function: Callable[..., object]) -> Mapping[str, str]:
    """Every parameter of a function, and what it means.

    From the "Args:" block of its docstring, else the shared meaning of that name, else the
    annotation in words, so that no parameter is ever without an explanation.

    >>> def grow(*, rate: float = 1.0, kl: float = 0.0, days: int = 3) -> None:
    ...     '''Water it.
    ...
    ...     Args:
    ...         rate: litres
    ...             a day
    ...     '''
    >>> dict(meanings(grow))
    {'rate': 'litres a day', 'kl': 'weight of a pull to the weights of the start', 'days': 'a whole number'}
    """
    written, hints = _args(inspect.getdoc(function) or ""), annotations(function)
    return {
        name: written.get(name) or SHARED.get(name) or in_words(hints.get(name, object))
        for name in inspect.signature(function).parameters
    }


def _args(docstring: str) -> dict[str, str]:
    """The entries of an "Args:" block: `name: meaning`, continued on lines indented further."""
    # entries are not indented where "Args:" is the docstring's first line: `inspect.getdoc` takes
    # the indent off all lines but the first
    lines = docstring.splitlines()
    if "Args:" not in lines:
        return {}
    entries: dict[str, str] = {}
    name = ""
    block = lines[lines.index("Args:") + 1 :]
    indent = _indent(block[0]) if block else 0
    for line in block:
        if not line.strip() or _indent(line) < indent:
            break  # the block ends
        key, colon, text = line.strip().partition(": ")
        if _indent(line) == indent and colon:
            name = key
            entries[name] = text
        elif name:
            entries[name] += " " + line.strip()
    return entries


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
