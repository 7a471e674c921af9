"""The CPU: its threads and memory, and how float32 matrices are multiplied on it."""

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
SHAPES: Final = "64"  # of products whose kernels stay compiled


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user chose otherwise: spinning threads
    take the CPU from the thread they wait for as soon as anything else runs on the machine. OpenMP
    reads this when torch is imported, so it must be set before."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def forget_shapes() -> None:
    """Let oneDNN cache kernels for the last 64 shapes of products only, unless the user chose
    otherwise. Its default is 1,024, and torch's too, and sequences of every length are a new shape.
    Both read this when they first multiply."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, SHAPES)


def share() -> float:
    """CPUs that a container may use at a time; 0 where nothing limits it."""
    try:
        quota, period = QUOTA.read_text().split()
    except (OSError, ValueError):
        return 0.0
    return int(quota) / int(period) if quota.isdigit() else 0.0


def memory() -> int:
    """Bytes that a process may use: the machine's, or a container's limit where that is less, shared
    with the other ranks that torchrun started here; 0 where neither is known."""
    known = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in LIMITS:
        with contextlib.suppress(ValueError, OSError):
            known.append(int(path.read_text()))  # "max" is none
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return min(known, default=0) // max(1, int(ranks) if ranks.isdigit() else 1)


def threads() -> int:
    """How many threads a run takes: torch's own choice, but no more than a container's quota of
    CPUs, which torch does not know: threads beyond it are throttled."""
    import torch

    own, quota = torch.get_num_threads(), share()
    if "OMP_NUM_THREADS" in os.environ or not quota:
        return own
    return min(own, max(1, math.floor(quota)))


def matmul() -> Matmul:
    """How float32 matrices are multiplied: "float32", unless TUTELAGE_MATMUL names another way.

    Raises ConfigError for any other.
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
    """Inside the context, float32 matrices are multiplied on the CPU as `kind` says.

    float32   in float32: by oneDNN where that is `exact`, else by the BLAS of torch
    bfloat16  by oneDNN, which may round entries to bfloat16
    blas      in float32, by the BLAS of torch everywhere
    """
    with _may_round(kind == "bfloat16" or (kind == "float32" and exact())):
        yield


@functools.cache
def exact() -> bool:
    """Whether oneDNN computes in float32 even where it may round to bfloat16, without which torch
    gives it no float32 product. It does on CPUs without units for bfloat16 matrices."""
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    with _may_round(True):
        return all(_unrounded(rows) for rows in PROBES)


def _unrounded(rows: int) -> bool:
    """Whether a product keeps entries apart from 1 that bfloat16 would round to 1."""
    import torch

    a, b = torch.full((rows, DEPTH), 1 + 2**-12), torch.full((DEPTH, DEPTH), 1 + 2**-12)
    return bool(((a @ b) / DEPTH > 1 + 2**-12).all())


def onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices now, where torch has it."""
    return bool(_settings().fp32_precision == ROUNDED)


@contextlib.contextmanager
def _may_round(allowed: bool) -> Iterator[None]:
    if allowed:
        forget_shapes()
    settings = _settings()
    before = settings.fp32_precision
    settings.fp32_precision = ROUNDED if allowed else EXACT
    try:
        yield
    finally:
        settings.fp32_precision = before


def _settings() -> Any:
    import torch

    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
