"""What the papers claim, as differences that this study can measure."""

from dataclasses import dataclass
from typing import Literal

from studies.analysis import Measure, Panel, could, early, fall, middle, result
from studies.household.conditions import INFORMS, TEACHER, TEACHERS, TEACHES, WEAK, Condition
from tutelage.evaluation.statistics import Estimate

Expected = Literal["more", "less", "not less", "not more"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """`method` minus `baseline` in one measure, and what the claim expects of it."""

    says: str
    method: str
    baseline: str
    measure: Measure = result
    of_baseline: Measure | None = None
    expected: Expected = "more"

    def found(self, panel: Panel) -> Estimate | None:
        return panel.gap(self.method, self.baseline, self.measure, self.of_baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence of a paper, what it presupposes, and the tests that it stands or falls with."""

    name: str
    says: str
    source: str
    needs: tuple[Condition, ...]
    tests: tuple[Test, ...]


CLAIMS = (
    Claim(
        name="guided",
        says="Guided-OPD is ahead of OPD when the student is weak.",
        source="arXiv:2606.15912",
        needs=(TEACHER, WEAK),
        tests=(
            Test(says="Guided-OPD minus OPD", method="guided_opd", baseline="opd"),
            Test(
                says="the same in the first third of training",
                method="guided_opd",
                baseline="opd",
                measure=early,
            ),
        ),
    ),
    Claim(
        name="saturation",
        says="OPD is fast but saturates near its teacher, and ATOD passes it.",
        source="arXiv:2606.27814",
        needs=(TEACHES, TEACHERS),
        tests=(
            Test(
                says="OPD minus GRPO in the first third of training",
                method="opd",
                baseline="grpo",
                measure=early,
            ),
            Test(
                says="OPD minus the teacher",
                method="opd",
                baseline="teacher",
                expected="not less",
            ),
            Test(
                says="OPD's result minus its mean in the second third of training",
                method="opd",
                baseline="opd",
                of_baseline=middle,
                expected="not more",
            ),
            Test(says="ATOD minus OPD", method="atod", baseline="opd"),
            Test(says="ATOD minus the teacher", method="atod", baseline="teacher"),
        ),
    ),
    Claim(
        name="stability",
        says="GRPO with OPSD added is unstable, SDAR's gate makes it stable.",
        source="arXiv:2605.15155",
        needs=(TEACHES, INFORMS),
        tests=(
            Test(
                says="fall from the best evaluation to the result: GRPO + OPSD (score form) "
                "minus SDAR",
                method="grpo_opsd",
                baseline="sdar",
                measure=fall,
            ),
            Test(
                says="the same for GRPO + OPSD as published",
                method="grpo_opsd_published",
                baseline="sdar",
                measure=fall,
            ),
            Test(says="SDAR minus GRPO + OPSD (score form)", method="sdar", baseline="grpo_opsd"),
            Test(
                says="SDAR minus GRPO + OPSD as published",
                method="sdar",
                baseline="grpo_opsd_published",
            ),
        ),
    ),
    Claim(
        name="robust",
        says="pi-Distill is robust at alpha 0.5: not behind either end.",
        source="arXiv:2602.04942",
        needs=(TEACHES, INFORMS),
        tests=(
            Test(
                says="alpha 0.5 minus alpha 0 (student only)",
                method="pi_distill",
                baseline="pi_distill_student",
                expected="not less",
            ),
            Test(
                says="alpha 0.5 minus alpha 1 (teacher only)",
                method="pi_distill",
                baseline="pi_distill_teacher",
                expected="not less",
            ),
            Test(
                says="fall from the best evaluation to the result: alpha 0.5 minus GRPO",
                method="pi_distill",
                baseline="grpo",
                measure=fall,
                expected="not more",
            ),
        ),
    ),
    Claim(
        name="information",
        says="OPSD depends on how informative the privileged information is.",
        source="arXiv:2602.04942",
        needs=(TEACHES, INFORMS),
        tests=(
            Test(says="OPSD: action names minus no hint", method="opsd", baseline="opsd_none"),
            Test(says="OPSD: whole plan minus no hint", method="opsd_plan", baseline="opsd_none"),
            Test(says="OPSD: action names minus whole plan", method="opsd", baseline="opsd_plan"),
            Test(
                says="pi-Distill: action names minus whole plan",
                method="pi_distill",
                baseline="pi_distill_plan",
            ),
        ),
    ),
    Claim(
        name="runaway",
        says="OPSD falls because its teacher shares the weights it pulls; a frozen one holds.",
        source="asked here",
        needs=(INFORMS,),
        tests=(
            Test(
                says="fall from the best evaluation to the result: teacher of now minus teacher "
                "frozen at the start",
                method="opsd",
                baseline="opsd_frozen",
                measure=fall,
            ),
            Test(
                says="teacher frozen at the start minus teacher of now",
                method="opsd_frozen",
                baseline="opsd",
            ),
        ),
    ),
)


def judged(test: Test, found: Estimate | None) -> str:
    """Whether a test shows what the claim expects, in the words that the interval allows."""
    if found is None:
        return "not run"
    one = ", with one seed" if found.seeds == 1 else ""
    if not found.distinguishable:
        return f"not distinguishable{one}; {could(found)}"
    up = found.mean > 0
    as_claimed = not up if test.expected in ("less", "not more") else up
    return f"{'as claimed' if as_claimed else 'the reverse'}{one}"


def summary(claim: Claim, panel: Panel) -> str:
    """A claim's tests in one sentence."""
    verdicts = [judged(t, t.found(panel)) for t in claim.tests]
    missing = verdicts.count("not run")
    if missing == len(verdicts):
        return "Not run."
    count = {
        word: sum(s.startswith(word) for s in verdicts) for word in ("as claimed", "the reverse")
    }
    open_ = sum(s.startswith("not distinguishable") for s in verdicts)
    parts = [
        f"{number} of {len(verdicts)} {words}"
        for number, words in (
            (count["as claimed"], "as claimed"),
            (count["the reverse"], "the reverse"),
            (open_, "not distinguishable"),
            (missing, "not run"),
        )
        if number
    ]
    return "; ".join(parts).capitalize() + "."
