"""The part of a checkpoint that all ranks write together, through torch.distributed.checkpoint (DCP).

Each rank writes its rows of weights and moments to a file of its own; rank 0 then joins them into
ordinary safetensors files, tensor by tensor, and drops the parts. The files that stay have the same
bytes for any number of ranks, so a run goes on with any other number, and every other command reads
them. No process holds more than its own part and one file's mapping.
"""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tutelage.errors import RunError, first_line
from tutelage.rollout.ranks import Ranks

INDEX = "model.safetensors.index.json"
LARGEST = 1 << 34
"""Bytes of a file of weights, 16 GB."""
WEIGHTS = "model.safetensors"
APPEARS = 60.0
"""Seconds in which a folder of rank 0 is seen by the others."""


def see_the_same(folder: Path, ranks: Ranks) -> None:
    """Raises RunError on every rank where one does not see the folder that rank 0 has made."""
    mark = folder / f".{ranks.first(uuid.uuid4().hex)}"
    if ranks.rank == 0:
        mark.touch()
    ranks.gather(None)
    until = time.monotonic() + (APPEARS if ranks.rank else 0)
    while not mark.exists() and time.monotonic() < until:
        with contextlib.suppress(OSError):
            os.scandir(folder.parent).close()  # file systems over a network look again at this
        time.sleep(0.1)
    blind = [str(rank) for rank, sees in enumerate(ranks.gather(mark.exists())) if not sees]
    if ranks.rank == 0:
        mark.unlink()
    if blind:
        raise RunError(
            f"{folder.parent} is not the same folder on rank {', '.join(blind)} as on rank 0, and "
            "ranks that divide weights write a checkpoint together; put run.folder on a file system "
            "that every machine sees under the same name, then continue with --resume"
        )


def write(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks, *, name: str) -> None:
    """Write the tensors of all ranks, who call this together, into a folder that all of them see:
    DTensors by their rows, any other from one rank. Raises RunError on every rank.

    name  of the file; that of weights is split into several, with an index, where it is too large
    """
    # imported here, since a run in one process needs none of it
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    from tutelage.runs.distributed import Lost, is_lost

    parts = folder / f".{name}"
    # joining the parts leaves numbers without a dimension at 0 (torch 2.13)
    tensors = {key: x[None] if x.dim() == 0 else x for key, x in tensors.items()}
    places = files(tensors, LARGEST if name == WEIGHTS else 0)
    try:
        writer = HuggingFaceStorageWriter(
            str(parts),
            fqn_to_index_mapping=places,
            save_distributed=True,
            enable_consolidation=True,
        )
        save(tensors, storage_writer=writer)
    except (CheckpointException, OSError, RuntimeError) as error:
        cause = _cause(error)
        if is_lost(cause):
            raise Lost(first_line(cause)) from error
        raise RunError(
            f"{folder / name} could not be written by all ranks ({first_line(cause)}); see "
            "that every rank's machine sees run.folder under the same name and has room, then "
            "continue with --resume"
        ) from error
    ranks.gather(None)  # no rank goes on before the parts are joined
    if ranks.rank:
        return
    single = max(places.values()) == 1
    for path in sorted(parts.glob("model-*.safetensors")):
        path.rename(folder / (name if single else path.name))
    if not single:
        (parts / INDEX).rename(folder / INDEX)
    shutil.rmtree(parts)


def files(tensors: Mapping[str, Tensor], largest: int) -> dict[str, int]:
    """The number of the file of each tensor, from 1, in their order; one file where `largest` is 0.

    >>> import torch
    >>> a, b = torch.zeros(8), torch.zeros(4)
    >>> files({"a": a, "b": b, "c": b}, 48)
    {'a': 1, 'b': 1, 'c': 2}
    """
    found, number, size = {}, 1, 0
    for name, tensor in tensors.items():
        own = tensor.numel() * tensor.element_size()
        if largest and size and size + own > largest:
            number, size = number + 1, 0
        size += own
        found[name] = number
    return found


def _cause(error: BaseException) -> BaseException:
    """What went wrong on the first rank that says so: DCP gathers the exceptions of all."""
    failures: dict[int, Any] = getattr(error, "failures", None) or {}
    found: BaseException = next((failure[0] for _, failure in sorted(failures.items())), error)
    return found


class Reader:
    """Reads rows of the tensors in a file, and no others."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, "pt")

    def names(self) -> Sequence[str]:
        return sorted(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def rows(self, name: str, rows: slice) -> Tensor:
        if not self.shape(name):
            whole: Tensor = self._file.get_tensor(name)
            return whole
        found: Tensor = self._file.get_slice(name)[rows]
        # in the file's mapping they lie at other addresses than in a run that never stopped, and
        # kernels may round by address
        return found.clone()


def finite(ranks: Ranks, tensors: Sequence[Tensor]) -> bool:
    """Whether the numbers of all ranks' tensors are finite."""
    return all(ranks.gather(all(bool(x.isfinite().all()) for x in tensors)))
