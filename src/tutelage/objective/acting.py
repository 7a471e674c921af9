"""Acting: which of student, expert and other views takes the turns of an episode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tutelage.config.python_values import number, whole
from tutelage.errors import ConfigError, function, kind
from tutelage.objective.takeover import Takeover
from tutelage.schedules import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """Who takes turns besides the student and `Algorithm.actors`, and which groups are kept.

    expert         the environment's expert takes every turn (imitation)
    student_turns  step -> how many of an episode's last turns are left to the student (and to the
                   actors); the expert takes all turns before those (TCOD, back to front)
    hinted_share   view -> share of the expert's episodes that follow what this view's hint tells:
                   the environment's plan where the hint holds one, else the expert's trace. The
                   turns are recorded under the view's name
    hinted_only    families of tasks whose demonstrations all follow a hint of `hinted_share`, in
                   the proportions of its shares: what such a family wants done is never shown
                   without the hint
    with_errors    those episodes hold wrong turns and the turns that correct them; the wrong ones
                   are recorded under the name "astray" and no view imitates them
    with_thoughts  the expert writes its thoughts before each action
    takeover       another view may finish a turn that the student began (AdaSwitch)
    max_batches    dynamic sampling: learn only from groups whose returns differ, and play at most
                   this many batches of tasks to find enough of them; 0 learns from every group

    Raises ConfigError for values of another kind, and for shares of more than 1 in all.
    """

    expert: bool = False
    student_turns: Schedule | None = None
    hinted_share: Mapping[str, float] = field(default_factory=dict)
    hinted_only: Sequence[str] = ()
    with_errors: bool = False
    with_thoughts: bool = False
    takeover: Takeover | None = None
    max_batches: int = 0

    def __post_init__(self) -> None:
        for name in ("expert", "with_errors", "with_thoughts"):
            kind(name, getattr(self, name), bool, "True or False")
        if self.student_turns is not None:
            function("student_turns", self.student_turns, "a schedule, or None")
        kind("hinted_share", self.hinted_share, Mapping, "a dict of shares by view")
        for view, share in self.hinted_share.items():
            number(f"hinted_share[{view!r:.40}]", share, most=1.0)
        kind("hinted_only", self.hinted_only, tuple | list, "a tuple of families")
        kind("takeover", self.takeover, Takeover | None, "a Takeover, or None")
        whole("max_batches", self.max_batches, least=0)
        shares = self.hinted_share.values()
        if sum(shares) > 1:
            raise ConfigError(
                f"hinted_share holds shares of the episodes, at most 1 in all, got "
                f"{dict(self.hinted_share)}"
            )
        if self.hinted_only and not sum(shares):
            raise ConfigError(
                "hinted_only names families that are demonstrated under a hint alone, and "
                "hinted_share names no hint for them: give a view a share, or name no family"
            )

    @property
    def uses_expert(self) -> bool:
        """Whether the environment's expert, or a file of its episodes, is needed."""
        return self.expert or self.student_turns is not None
