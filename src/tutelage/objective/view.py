"""A view: a policy together with what its prompt holds besides the transcript."""

from dataclasses import dataclass

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
    """

    policy: str = "self"
    hint: str = ""
    hindsight: Hindsight | None = None
    top_logprobs: int = 0
