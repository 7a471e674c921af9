"""A view: a policy together with what its prompt holds besides the transcript."""

from dataclasses import dataclass

from tutelage.config.python_values import whole
from tutelage.errors import function, kind
from tutelage.hints.hindsight import Hindsight

STUDENT = "student"
TOP_LOGPROBS = 20
"""Likely tokens that chat servers tell at most with each that they write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A policy in a context. Views act, teach and learn: one notion for all three.

    policy     "self" is the policy being trained, "reference" a copy of it from before training,
               other names are the sections [policies.NAME] of the configuration
    hint       the kind of privileged information in its system message (docs/hints.md), "" for none
    hindsight  text about the finished episode, added when it is scored; such a view cannot act
    top_logprobs
               how many likely tokens are recorded with each token that it writes, if its policy is
               asked in messages

    Raises ConfigError for values of another kind.
    """

    policy: str = "self"
    hint: str = ""
    hindsight: Hindsight | None = None
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        kind("policy", self.policy, str, 'the name of a policy, such as "self"')
        kind("hint", self.hint, str, 'the name of a hint, such as "plan", or "" for none')
        if self.hindsight is not None:
            function("hindsight", self.hindsight, "a function of a finished episode, or None")
        whole("top_logprobs", self.top_logprobs, least=0)
