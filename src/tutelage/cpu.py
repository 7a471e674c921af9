"""How a processor is used: how many threads, how they wait, how float32 matrices are multiplied;
and how much memory it has."""

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from tutelage.errors import ConfigError

QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # of older systems
)
Matmul = Literal["float32", "bfloat16", "blas"]
EXACT, ROUNDED = "ieee", "bf16"  # torch's names
PROBES: Final = (4, 64, 1024)  # rows of products: what multiplies them may depend on how many
DEPTH: Final = 256
SHAPES: Final = "64"  # of products that are kept compiled


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user chose otherwise: threads that
    spin take the processor from the thread they wait for as soon as anything else runs beside
    them. OpenMP reads this when torch is imported, so it must be said before."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def forget_shapes() -> None:
    """Let oneDNN keep what it compiled for the last few shapes of products, unless the user chose
    otherwise: by itself it keeps 1,024, and torch as many, for each of which the length of a row
    makes others. Read when it first multiplies."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, SHAPES)


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


def threads() -> int:
    """How many threads a run takes: torch's own choice. That knows
    OMP_NUM_THREADS and the processors a process may run on, but no container's quota: threads
    beyond it are put to sleep in the middle of their work."""
    import torch

    own, quota = torch.get_num_threads(), share()
    if "OMP_NUM_THREADS" in os.environ or not quota:
        return own
    return min(own, max(1, math.floor(quota)))


def matmul() -> Matmul:
    """How float32 matrices are multiplied: "float32", unless TUTELAGE_MATMUL names another way.

    Raises ConfigError for a way that there is not.
    """
    wanted = os.environ.get("TUTELAGE_MATMUL", "") or "float32"
    if wanted not in get_args(Matmul):
        raise ConfigError(
            f"the environment variable TUTELAGE_MATMUL is {wanted!r}, but must be one of "
            f"{', '.join(get_args(Matmul))}; unset it for float32"
        )
    return cast(Matmul, wanted)


@contextlib.contextmanager
def products(kind: Matmul) -> Iterator[None]:
    """How float32 matrices are multiplied on a processor.

    float32   in float32: by oneDNN where that is `exact`, else by the BLAS torch was built with
    bfloat16  by oneDNN, with leave to round entries to bfloat16
    blas      in float32, by that BLAS everywhere
    """
    with _leave(kind == "bfloat16" or (kind == "float32" and exact())):
        yield


@functools.cache
def exact() -> bool:
    """Whether oneDNN, which torch hands no product in float32 without leave to round it, stays in
    float32 all the same: so it does on processors without units for bfloat16 matrices."""
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    with _leave(True):
        return all(_kept(rows) for rows in PROBES)


def _kept(rows: int) -> bool:
    """Whether entries that bfloat16 cannot tell from 1 are told from it in a product."""
    import torch

    a, b = torch.full((rows, DEPTH), 1 + 2**-12), torch.full((DEPTH, DEPTH), 1 + 2**-12)
    return bool(((a @ b) / DEPTH > 1 + 2**-12).all())


def onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices now, where torch has it."""
    return bool(_settings().fp32_precision == ROUNDED)


@contextlib.contextmanager
def _leave(given: bool) -> Iterator[None]:
    if given:
        forget_shapes()
    settings = _settings()
    before = settings.fp32_precision
    settings.fp32_precision = ROUNDED if given else EXACT
    try:
        yield
    finally:
        settings.fp32_precision = before


def _settings() -> Any:
    import torch

    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
