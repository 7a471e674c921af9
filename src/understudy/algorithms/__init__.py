"""One file per algorithm; this table is the only place that lists them.

An algorithm's keyword arguments are its configuration. `total_steps` is filled in from the length
of the training run.
"""

from collections.abc import Callable

from understudy.algorithms.grpo import grpo
from understudy.algorithms.guided_opd import guided_opd
from understudy.algorithms.opd import opd
from understudy.algorithms.sft import sft
from understudy.objective import Algorithm

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    f.__name__: f for f in (sft, grpo, opd, guided_opd)
}
