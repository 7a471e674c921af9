"""A view: a policy in a context. Views act, teach and learn."""

from dataclasses import dataclass

from tutelage.hints.hindsight import Hindsight

STUDENT = "student"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A policy in a context. Views act, teach and learn: one notion for all three.

    policy     "self" is the policy being trained, other names are those of the configuration
    hint       the kind of privileged information put into its system message (see `hints`), or none
    hindsight  what else goes there when finished episodes are scored; such a view cannot act
    """

    policy: str = "self"
    hint: str = ""
    hindsight: Hindsight | None = None
