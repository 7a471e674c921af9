"""What a paper's claim presupposes, and whether this study's set-up meets it."""

from collections.abc import Callable
from dataclasses import dataclass

from studies.analysis import Panel, result, start
from studies.tables import ends, percent, signed

WANTED_GAIN = 0.2
"""Points over its start that GRPO must gain for the reward to count as teaching."""
WANTED_GAP = 0.2
"""Points by which a hint must raise the start's success for it to count as informing."""
WANTED_TEACHER = 0.9
NONE = (103, 86, 85)
HINTED = {
    "names of the expert's actions": (76, 61, 53),
    "the whole plan": (77, 58, 69),
    "skills": (86, 79, 62),
}
"""Tasks of the panel that the start solves with each hint, by seed, and without (NONE):
`tutelage eval RUN eval.hint=plan` in the folder of the start."""
TASKS = 200


@dataclass(frozen=True, slots=True)
class Found:
    """A number in words, and whether it meets the condition."""

    number: str
    met: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What must hold before a claim is tested, and how that is looked up."""

    says: str
    look: Callable[[Panel], Found]


NOT_MEASURED = Found("", "not measured")


def _teaches(panel: Panel) -> Found:
    gain = panel.gap("grpo", "grpo", result, start)
    if gain is None:
        return NOT_MEASURED
    met = gain.mean >= WANTED_GAIN and gain.low > 0
    return Found(f"GRPO {signed(gain)} points", "met" if met else "not met")


def _informs(panel: Panel) -> Found:
    gaps = {
        name: [(a - b) / TASKS for a, b in zip(won, NONE, strict=True)]
        for name, won in HINTED.items()
    }
    met = all(min(each) >= WANTED_GAP for each in gaps.values())
    by_seed = "; ".join(
        f"{name} {', '.join(f'{100 * x:+.0f}' for x in each)}" for name, each in gaps.items()
    )
    return Found(f"points by seed: {by_seed}", "met" if met else "not met")


def _teacher(panel: Panel) -> Found:
    found = panel.rate("teacher")
    if found is None:
        return NOT_MEASURED
    return Found(
        f"{percent(found.mean)} ({ends(found)})",
        "met" if found.mean >= WANTED_TEACHER else "not met",
    )


def _weak(panel: Panel) -> Found:
    found = panel.start()
    return Found(f"one start, {percent(found.mean)}", "in part") if found else NOT_MEASURED


def _teachers(panel: Panel) -> Found:
    found = panel.rate("teacher")
    return Found(f"one teacher, {percent(found.mean)}", "in part") if found else NOT_MEASURED


TEACHES = Condition(says="the reward teaches: GRPO gains 20 points or more", look=_teaches)
INFORMS = Condition(says="the hint informs the start: 20 points or more", look=_informs)
TEACHER = Condition(says="the teacher solves 90 % or more", look=_teacher)
WEAK = Condition(says="students that start at about 5, 20 and 45 %", look=_weak)
TEACHERS = Condition(says="teachers of about 50, 70 and 90 %", look=_teachers)
