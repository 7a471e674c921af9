"""One file per algorithm; this table is the only place that lists them.

An algorithm's keyword arguments are its configuration. `total_steps` is filled in from the length
of the training run.
"""

from collections.abc import Callable

from understudy.algorithms.adaswitch import adaswitch
from understudy.algorithms.adrs import adrs
from understudy.algorithms.agent_opsd import agent_opsd
from understudy.algorithms.atod import atod
from understudy.algorithms.compose import compose
from understudy.algorithms.dapo import dapo
from understudy.algorithms.dr_grpo import dr_grpo
from understudy.algorithms.gated_opsd import gated_opsd
from understudy.algorithms.gigpo import gigpo
from understudy.algorithms.grpo import grpo
from understudy.algorithms.grpo_opsd import grpo_opsd
from understudy.algorithms.guided_opd import guided_opd
from understudy.algorithms.icsd import icsd
from understudy.algorithms.ocsd import ocsd
from understudy.algorithms.opd import opd
from understudy.algorithms.opid import opid
from understudy.algorithms.opsd import opsd
from understudy.algorithms.pcsd import pcsd
from understudy.algorithms.pi_distill import pi_distill
from understudy.algorithms.reinforce_pp import reinforce_pp
from understudy.algorithms.rloo import rloo
from understudy.algorithms.rlsd import rlsd
from understudy.algorithms.sdar import sdar
from understudy.algorithms.sft import sft
from understudy.algorithms.skill_grpo import skill_grpo
from understudy.algorithms.skill_sd import skill_sd
from understudy.algorithms.sod import sod
from understudy.algorithms.step_opsd import step_opsd
from understudy.algorithms.tcod import tcod
from understudy.objective import Algorithm

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    f.__name__: f
    for f in (
        sft,
        grpo,
        rloo,
        dr_grpo,
        dapo,
        reinforce_pp,
        gigpo,
        opd,
        guided_opd,
        adaswitch,
        opsd,
        pi_distill,
        sod,
        atod,
        tcod,
        sdar,
        gated_opsd,
        grpo_opsd,
        skill_grpo,
        skill_sd,
        rlsd,
        step_opsd,
        agent_opsd,
        ocsd,
        adrs,
        opid,
        pcsd,
        icsd,
        compose,
    )
}
