"""The algorithms: one file each, with one function of the file's name.

An algorithm's keyword arguments are its configuration; `total_steps` is filled in from the length of
the training run. A file is imported when its algorithm is first used.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from tutelage.objective import Algorithm

ORDER = (
    "sft",
    "grpo",
    "rloo",
    "dr_grpo",
    "dapo",
    "reinforce_pp",
    "gigpo",
    "opd",
    "guided_opd",
    "adaswitch",
    "opsd",
    "pi_distill",
    "sod",
    "atod",
    "tcod",
    "sdar",
    "gated_opsd",
    "grpo_opsd",
    "skill_grpo",
    "skill_sd",
    "rlsd",
    "step_opsd",
    "agent_opsd",
    "ocsd",
    "adrs",
    "opid",
    "pcsd",
    "icsd",
    "compose",
)
"""The order of tables: rewards, teachers, hints, and last what combines them. A file that is not
named here comes after these."""
HELPERS = ("parameters", "words")
"""Files of this folder that hold no algorithm."""


class _Algorithms(Mapping[str, Callable[..., Algorithm]]):
    """Name -> function, found by the files of this folder."""

    def __init__(self) -> None:
        found = {path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {*HELPERS}
        self._names = sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))

    def __getitem__(self, name: str) -> Callable[..., Algorithm]:
        if name not in self._names:
            raise KeyError(name)
        function: Callable[..., Algorithm] = getattr(import_module(f"{__name__}.{name}"), name)
        return function

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = _Algorithms()
