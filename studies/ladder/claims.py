"""The papers' claims on household tasks: which two entries of the study each compares."""

from collections.abc import Sequence

from studies import tables
from studies.analysis import Panel, after, verdict
from studies.plan import Study

CLAIMS: Sequence[tuple[str, str, str]] = (
    ("pi-Distill is ahead of GRPO", "pi_distill_actions", "grpo"),
    ("pi-Distill is ahead of SFT on actions", "pi_distill_actions", "sft_actions"),
    (
        "pi-Distill is ahead of SFT on actions, then GRPO",
        "pi_distill_actions",
        "sft_actions_then_grpo",
    ),
    ("pi-Distill gains from more information", "pi_distill", "pi_distill_actions"),
    ("pi-Distill gains less from skills", "pi_distill_actions", "pi_distill_skills"),
    ("alpha 0.5 is not behind 0", "pi_distill_actions", "pi_distill_student"),
    ("alpha 0.5 is not behind 1", "pi_distill_actions", "pi_distill_teacher"),
    ("its KL, of weight 0.25, helps pi-Distill", "pi_distill_actions", "pi_distill_beta_0.0"),
    ("a weight of 0.5 helps more", "pi_distill_beta_0.5", "pi_distill_actions"),
    ("OPSD is ahead of GRPO", "opsd_actions", "grpo"),
    ("OPSD is ahead of SFT on actions", "opsd_actions", "sft_actions"),
    ("OPSD is ahead of SFT on actions, then GRPO", "opsd_actions", "sft_actions_then_grpo"),
    ("OPSD gains from its hint", "opsd_actions", "opsd_no_hint"),
    ("OPSD gains from its hint, its KL at 0.1", "opsd_beta_0.1", "opsd_no_hint"),
    ("OPSD gains from more information", "opsd", "opsd_actions"),
    ("OPSD gains less from skills", "opsd_actions", "opsd_skills"),
    ("OPSD's teacher should move with it", "opsd_actions", "opsd_reference"),
    ("OPSD is better with its KL at 0.1 than at 0.5", "opsd_beta_0.1", "opsd_actions"),
    ("OPSD is better with its KL at 0.25 than at 0.5", "opsd_beta_0.25", "opsd_actions"),
    ("OPSD is better where its KL falls to 0", "opsd_beta_falls", "opsd_actions"),
    ("OPSD gains from its hint, its KL falling to 0", "opsd_beta_falls", "opsd_no_hint"),
    ("SDAR is ahead of GRPO", "sdar", "grpo"),
    ("SDAR's gate is ahead of no gate", "sdar", "grpo_opsd"),
    ("SDAR's gate is ahead of no gate at ten times the weight", "sdar_0.1", "grpo_opsd_0.1"),
    (
        "SDAR's gate is ahead of no gate with 60 % wrong plans",
        "sdar_0.1_wrong_0.6",
        "grpo_opsd_0.1_wrong_0.6",
    ),
    (
        "SDAR's gate is ahead of no gate with 30 % wrong plans",
        "sdar_0.1_wrong_0.3",
        "grpo_opsd_0.1_wrong_0.3",
    ),
    ("SDAR loses with 30 % wrong plans", "sdar_0.1", "sdar_0.1_wrong_0.3"),
    ("SDAR loses with 60 % wrong plans", "sdar_0.1", "sdar_0.1_wrong_0.6"),
    ("ATOD is ahead of OPD", "atod", "opd"),
    ("ATOD is ahead of OPD, teacher of 86 %", "atod_86", "opd_86"),
    ("ATOD is ahead of OPD, teacher of 64 %", "atod_64", "opd_64"),
    ("ATOD is ahead of GRPO", "atod", "grpo"),
    ("ATOD is ahead of GRPO, teacher of 86 %", "atod_86", "grpo"),
    ("ATOD is ahead of GRPO, teacher of 64 %", "atod_64", "grpo"),
    ("annealing helps ATOD", "atod_86", "atod_86_constant"),
    ("turns are better reweighted than tokens", "atod_86", "atod_86_token"),
    ("turns are better reweighted than nothing", "atod_86", "atod_86_plain"),
    ("SFT with thoughts is behind GRPO", "grpo", "sft"),
)
"""A claim, and the entries whose difference it says is above zero."""


def table(study: Study, panel: Panel) -> str:
    """Differences between methods, paired by seed and task, of the claims that both sides were run for."""
    rows = []
    for claim, one, other in CLAIMS:
        found = panel.gap(one, other)
        if found is None:
            continue
        both = sorted(set(panel.values(one)) & set(panel.values(other)))
        rows.append(
            [
                claim,
                f"{study.titles[one]} minus {study.titles[other]}",
                ", ".join(map(str, both)),
                tables.signed(found),
                verdict(found, "as claimed", "the reverse"),
            ]
        )
    head = ["claim", "difference", "seeds", "points (95 %)", ""]
    return tables.table(head, rows)


HINTED = (
    "opsd",
    "opsd_actions",
    "opsd_beta_0.25",
    "opsd_beta_0.1",
    "opsd_beta_falls",
    "opsd_skills",
)
NO_HINT = "opsd_no_hint"


def hint_speed_table(study: Study, panel: Panel) -> str:
    """OPSD with each hint minus OPSD without one, after each evaluation."""
    steps = [e.step for e in panel.results.of(NO_HINT)[0].evaluations if e.step]
    rows = []
    for name in (name for name in HINTED if panel.values(name)):
        both = sorted(set(panel.values(name)) & set(panel.values(NO_HINT)))
        gaps = [panel.gap(name, NO_HINT, after(k), of_baseline=after(k)) for k in steps]
        cells = [tables.signed(gap) for gap in gaps if gap]
        rows.append([study.titles[name], ", ".join(map(str, both)), *cells])
    return tables.table(["minus no hint", "seeds", *(f"{step} steps" for step in steps)], rows)
