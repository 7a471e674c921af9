"""A policy engine as a third party writes one: the table of `fake_policy`, opened by a run.

`model = "support.table_engine:Engine#2.5"` opens a table that knows the right digits by a logit of
2.5 more than the wrong ones.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from support.fake_policy import Table
from tutelage.policies.base import Dtype
from tutelage.policies.registry import Opening

WEIGHTS = "table.safetensors"


class Engine(Table):
    device = "cpu"
    dtype: Dtype = "float32"

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        super().__init__(knows=float(opening.model or 0))
        if opening.folder:
            self.load_state_dict(load_file(Path(opening.folder) / WEIGHTS))

    def save(self, folder: Path) -> None:
        save_file({"logits": self.logits.detach()}, folder / WEIGHTS)

    def copied(self) -> "Engine":
        copy = Engine(self.opening)
        with torch.no_grad():
            copy.logits.copy_(self.logits)
        copy.freeze()
        return copy

    def freeze(self) -> None:
        self.requires_grad_(False)


class Frozen(Table):
    """Plays and scores, and cannot be trained."""

    dtype: Dtype = "float32"

    def __init__(self, opening: Opening) -> None:
        super().__init__(knows=float(opening.model or 0))


class Half(Frozen):
    dtype = "float16"  # type: ignore[assignment]


def nothing(opening: Opening) -> object:
    """Opens what is no policy."""
    return opening.model


def fails(opening: Opening) -> object:
    raise RuntimeError(f"there is no table at {opening.model}")
