"""Every algorithm, in the forms that differ most."""

from collections.abc import Callable

from tutelage.algorithms import ALGORITHMS
from tutelage.maths.divergences import jensen_shannon
from tutelage.maths.estimators import k3
from tutelage.objective import ONE, Algorithm, Distill, DistillSampled, Reinforce, View
from tutelage.schedules import linear
from tutelage.signals import acted_by, episode_mean, gap, group_relative

MAKE: dict[str, Callable[[], Algorithm]] = {
    "sft": ALGORITHMS["sft"],
    "grpo": ALGORITHMS["grpo"],
    "grpo everything": lambda: ALGORITHMS["grpo"](
        kl=0.1, entropy=0.01, clip_high=0.3, std=False, old="recomputed"
    ),
    "grpo turns": lambda: ALGORITHMS["grpo"](statistics="turn"),
    "rloo": ALGORITHMS["rloo"],
    "dr_grpo": ALGORITHMS["dr_grpo"],
    "dapo": ALGORITHMS["dapo"],
    "reinforce_pp": ALGORITHMS["reinforce_pp"],
    "reinforce_pp baseline": lambda: ALGORITHMS["reinforce_pp"](
        baseline=True, kl_in="loss", estimate="k2"
    ),
    "gigpo": ALGORITHMS["gigpo"],
    "opd": ALGORITHMS["opd"],
    "vopd": ALGORITHMS["vopd"],
    "opd full": lambda: ALGORITHMS["opd"](vocabulary="full"),
    "guided": lambda: ALGORITHMS["guided_opd"](total_steps=10),
    "guided sampled": lambda: ALGORITHMS["guided_opd"](
        total_steps=10, student_turns="sampled", teacher_turns="sampled"
    ),
    "adaswitch": ALGORITHMS["adaswitch"],
    "adaswitch sampled": lambda: ALGORITHMS["adaswitch"](
        student_tokens="sampled", teacher_tokens="sampled"
    ),
    "tcod b2f": lambda: ALGORITHMS["tcod"](direction="b2f"),
    "opsd": ALGORITHMS["opsd"],
    "pi_distill": lambda: ALGORITHMS["pi_distill"](total_steps=10),
    "opd topk": lambda: ALGORITHMS["opd"](vocabulary="topk", k=2),
    "opd discounted": lambda: ALGORITHMS["opd"](gamma_kl=0.9, clip=0.2),
    "guided topk": lambda: ALGORITHMS["guided_opd"](
        total_steps=10, student_turns="topk", k=3, student_kl="forward", teacher_kl="reverse"
    ),
    "sod": ALGORITHMS["sod"],
    "atod": ALGORITHMS["atod"],
    "atod token": lambda: ALGORITHMS["atod"](reweight="token", balanced=True, anneal=False),
    "tcod": ALGORITHMS["tcod"],
    "tcod full": lambda: ALGORITHMS["tcod"](vocabulary="full"),
    "sdar": ALGORITHMS["sdar"],
    "sdar reverse": lambda: ALGORITHMS["sdar"](gate="soft_or", loss="reverse", entropy=0.01),
    "gated_opsd": lambda: ALGORITHMS["gated_opsd"](gate="entropy"),
    "grpo_opsd": ALGORITHMS["grpo_opsd"],
    "grpo_opsd published": lambda: ALGORITHMS["grpo_opsd"](form="published"),
    "skill_sd": ALGORITHMS["skill_sd"],
    "rlsd": ALGORITHMS["rlsd"],
    "step_opsd": ALGORITHMS["step_opsd"],
    "agent_opsd": ALGORITHMS["agent_opsd"],
    "ocsd": ALGORITHMS["ocsd"],
    "adrs": ALGORITHMS["adrs"],
    "adrs state": lambda: ALGORITHMS["adrs"](units="state", scale="episode"),
    "opid": lambda: ALGORITHMS["opid"](hindsight="peer_success"),
    "pcsd": ALGORITHMS["pcsd"],
    "icsd": ALGORITHMS["icsd"],
    "compose": lambda: ALGORITHMS["compose"](
        total_steps=10,
        views={"teacher": {"policy": "teacher"}},
        terms={
            "reinforce": {"advantage": "linear(1, 0, 9) * t_dur() * gap() + group_relative()"},
            "distill": {"divergence": "forward_kl", "gate": "gap_gate()"},
        },
    ),
    "all terms": lambda: Algorithm(
        terms=(
            Reinforce(advantage=linear(1.0, 0.0, 9) * group_relative() + 0.5 * gap()),
            Distill(divergence=jensen_shannon, weight=acted_by("teacher"), name="js"),
            DistillSampled(estimate=k3, corrected=True, weight=0.1 * ONE),
        ),
        views={"teacher": View(policy="teacher")},
        token_weight=episode_mean(),
    ),
}
