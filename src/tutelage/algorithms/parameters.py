"""Descriptions of algorithms' settings, from "Args:" blocks of docstrings and a shared table."""

import inspect
from collections.abc import Callable, Mapping

from tutelage.config.expressions import in_words
from tutelage.config.signature import annotations

SHARED = {
    "teacher": 'the teacher policy: "self", "reference" or a name in [policies]',
    "hint": "the privileged information in the teacher's prompt (docs/hints.md)",
    "hindsight": "text about the finished episode in the teacher's prompt",
    "clip": "PPO's clip range: p / p_old is clipped to [1 - clip, 1 + clip]",
    "clip_high": "the upper clip range, 1 + clip_high; `clip` if unset",
    "dual_clip": "dual clip: bounds the loss of a negative advantage at this multiple; unset for no bound",
    "std": "divide advantages by the group's standard deviation",
    "kl": "weight of the KL to the initial weights",
    "entropy": "weight of the entropy bonus",
    "old": "p_old: as recorded when sampling, or recomputed before the step",
    "coef": "weight of the loss that is added to GRPO's, or a schedule",
    "beta": "sharpness of the gate, or weight of the divergence",
    "gate": "the quantity that opens the gate",
    "gamma": "discount from one turn to the next",
    "vocabulary": "how much of the teacher's distribution is used at each token",
    "k": "number of entries that a top-k divergence keeps",
    "support": "whose likeliest entries a top-k divergence keeps",
    "start": "the value at the first step",
    "end": "the value after the decay",
    "decay": "the share of training over which start changes to end",
    "curriculum": "how the probability of a teacher's turn falls",
    "student_turns": "how much of the teacher's distribution is used on the student's turns",
    "teacher_turns": "the same on the teacher's turns",
    "student_tokens": "how much of the teacher's distribution is used at the student's tokens",
    "teacher_tokens": "the same at the teacher's tokens",
    "student_kl": "the direction of KL on the student's turns",
    "teacher_kl": "the direction of KL on the teacher's turns",
    "flat_groups": "what happens to groups whose returns are all equal",
    "kappa": "initial weight of the teacher's gap",
    "kappa_min": "final weight of the teacher's gap",
    "rho": "initial weight of the group-relative advantage",
    "rho_max": "final weight of the group-relative advantage",
    "anneal_steps": "training steps from the initial to the final weights",
    "reweight": "what is reweighted by the student's disagreement: turns, tokens or nothing",
    "loss": "the token loss: from sampled tokens, or a divergence over the vocabulary",
    "direction": "from an episode's front to its back, or from its back to its front",
    "limit": "largest number of tokens without the full penalty",
    "buffer": "tokens before the limit in which the penalty rises",
    "kl_in": "whether the KL is part of the reward or a loss of its own",
    "strength": "the share of the advantage that the teacher modulates",
    "decay_steps": "training steps until that share is 0",
    "width": "how far a factor may be from 1",
}
"""Settings that mean the same in every algorithm. A function's own "Args:" take precedence."""


def meanings(function: Callable[..., object]) -> Mapping[str, str]:
    """The description of every parameter of a function.

    From the "Args:" block of its docstring, else the shared meaning of that name, else the
    annotation in words, so that every parameter has a description.

    >>> def grow(*, rate: float = 1.0, kl: float = 0.0, days: int = 3) -> None:
    ...     '''Water it.
    ...
    ...     Args:
    ...         rate: litres
    ...             a day
    ...     '''
    >>> dict(meanings(grow))
    {'rate': 'litres a day', 'kl': 'weight of the KL to the initial weights', 'days': 'an integer'}
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
