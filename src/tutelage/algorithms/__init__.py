"""One file per algorithm; this table is the only place that lists them.

An algorithm's keyword arguments are its configuration. `total_steps` is filled in from the length
of the training run.
"""

from collections.abc import Callable

from tutelage.algorithms.adaswitch import adaswitch
from tutelage.algorithms.adrs import adrs
from tutelage.algorithms.agent_opsd import agent_opsd
from tutelage.algorithms.atod import atod
from tutelage.algorithms.compose import compose
from tutelage.algorithms.dapo import dapo
from tutelage.algorithms.dr_grpo import dr_grpo
from tutelage.algorithms.gated_opsd import gated_opsd
from tutelage.algorithms.gigpo import gigpo
from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.grpo_opsd import grpo_opsd
from tutelage.algorithms.guided_opd import guided_opd
from tutelage.algorithms.icsd import icsd
from tutelage.algorithms.ocsd import ocsd
from tutelage.algorithms.opd import opd
from tutelage.algorithms.opid import opid
from tutelage.algorithms.opsd import opsd
from tutelage.algorithms.pcsd import pcsd
from tutelage.algorithms.pi_distill import pi_distill
from tutelage.algorithms.reinforce_pp import reinforce_pp
from tutelage.algorithms.rloo import rloo
from tutelage.algorithms.rlsd import rlsd
from tutelage.algorithms.sdar import sdar
from tutelage.algorithms.sft import sft
from tutelage.algorithms.skill_grpo import skill_grpo
from tutelage.algorithms.skill_sd import skill_sd
from tutelage.algorithms.sod import sod
from tutelage.algorithms.step_opsd import step_opsd
from tutelage.algorithms.tcod import tcod
from tutelage.objective import Algorithm

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
