"""How a processor is used: how many threads, how they wait, how float32 matrices are multiplied;
and how much memory it has."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # of older systems
)
Matmul = Literal["float32", "bfloat16"]
PRECISIONS: Final = {"float32": "ieee", "bfloat16": "bf16"}  # torch's names


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user chose otherwise: threads that
    spin take the processor from the thread they wait for as soon as anything else runs beside
    them. OpenMP reads this when torch is imported, so it must be said before."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def share() -> float:
    """Processors that a container may use at a time; 0 where nothing limits it."""
    try:
        quota, period = QUOTA.read_text().split()
    except (OSError, ValueError):
        return 0.0
    return int(quota) / int(period) if quota.isdigit() else 0.0


def memory() -> int:
    """Bytes that a process may use: the machine's, or a container's limit where that is less; 0
    where neither is told."""
    known = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in LIMITS:
        with contextlib.suppress(ValueError, OSError):
            known.append(int(path.read_text()))  # "max" is none
    return min(known, default=0)


def threads(wanted: int) -> int:
    """How many a run takes: `wanted`, or where that is 0 torch's own choice. That knows
    OMP_NUM_THREADS and the processors a process may run on, but no container's quota: threads
    beyond it are put to sleep in the middle of their work."""
    import torch

    if wanted:
        return wanted
    own, quota = torch.get_num_threads(), share()
    if "OMP_NUM_THREADS" in os.environ or not quota:
        return own
    return min(own, max(1, math.floor(quota)))


@contextlib.contextmanager
def products(kind: Matmul) -> Iterator[None]:
    """Multiply float32 matrices on a processor in float32, or with leave to round their entries to
    bfloat16: oneDNN then takes such products over from the BLAS that torch was built with. Where a
    processor has no units for bfloat16 it may go on in float32, and only be faster."""
    settings = _settings()
    before = settings.fp32_precision
    settings.fp32_precision = PRECISIONS[kind]
    try:
        yield
    finally:
        settings.fp32_precision = before


def rounds() -> bool:
    """Whether float32 matrices are multiplied with leave to round now."""
    return bool(_settings().fp32_precision == PRECISIONS["bfloat16"])


def _settings() -> Any:
    import torch

    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
