"""The algorithms: one file each, which holds a function of the same name.

An algorithm's keyword arguments are its settings; `total_steps` is filled in with the number of
training steps. A file is imported when its algorithm is first used.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tutelage.errors import did_you_mean
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
    "vopd",
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
"""The order in tables: methods with rewards, with teachers, with hints, then combinations. A file
that is not listed comes last."""
HELPERS = ("functions", "parameters")
"""Files of this folder that hold no algorithm."""


class _Algorithms(Mapping[str, Callable[..., Algorithm]]):
    """Name -> function, discovered from the files of this folder."""

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


class _Room(ModuleType):
    """This package, whose attribute `grpo` is the function and not the file of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in ALGORITHMS:
            value = getattr(value, name)  # the import system sets a submodule as an attribute
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Callable[..., Algorithm]:
        if name.startswith("_") or name not in ALGORITHMS:
            raise AttributeError(
                f"there is no algorithm {name!r}{did_you_mean(name, list(ALGORITHMS))}"
            )
        return ALGORITHMS[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *ALGORITHMS]


sys.modules[__name__].__class__ = _Room
