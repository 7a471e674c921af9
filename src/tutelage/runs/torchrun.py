"""What `torchrun` tells the processes that it starts, and how long a rank may be silent."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tutelage.errors import ConfigError

DEADLINE = 120.0
"""Seconds without a beat after which a rank counts as lost; TUTELAGE_RANK_DEADLINE replaces them. A
process that is killed is noticed at once, by its closed connections; this is for one that hangs,
and for a machine that is gone."""
AGAIN = "continue with --resume, on as many ranks as you like"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What `torchrun` tells each process in its environment."""

    rank: int
    size: int
    local_rank: int  # among the ranks of this machine
    local_size: int
    address: str  # where ranks meet
    port: int
    agent: bool  # torchrun listens there; else rank 0 does
    attempt: str = "0"  # of torchrun, with --max-restarts


def launch_of(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """The launch of this process; None where there is one process alone.

    Raises ConfigError for values that torchrun would not set.
    """
    if environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in environ:
        return None
    try:
        numbers = {name: int(environ[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
        local = int(environ.get("LOCAL_RANK", "0")), int(environ.get("LOCAL_WORLD_SIZE", "1"))
        address = environ["MASTER_ADDR"]
    except (KeyError, ValueError):
        raise ConfigError(
            "the environment has RANK and WORLD_SIZE, as `torchrun` sets them, but not whole "
            "numbers in RANK, WORLD_SIZE and MASTER_PORT and an address in MASTER_ADDR; start with "
            "`torchrun --nproc-per-node N -m tutelage train FILE`, or unset WORLD_SIZE to train in "
            "one process"
        ) from None
    rank, size = numbers["RANK"], numbers["WORLD_SIZE"]
    if not 0 <= rank < size:
        raise ConfigError(
            f"RANK = {rank} and WORLD_SIZE = {size} do not go together: ranks count from 0 to "
            "WORLD_SIZE - 1; start with torchrun, or unset WORLD_SIZE to train in one process"
        )
    return Launch(
        rank=rank,
        size=size,
        local_rank=local[0],
        local_size=local[1],
        address=address,
        port=numbers["MASTER_PORT"],
        agent=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def deadline(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds after which a silent rank counts as lost. Raises ConfigError for a wrong setting."""
    text = environ.get("TUTELAGE_RANK_DEADLINE", "")
    try:
        seconds = float(text or DEADLINE)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(
            f"the environment variable TUTELAGE_RANK_DEADLINE is {text!r}, but must be the seconds "
            f"after which a silent rank counts as lost; unset it for {DEADLINE:g}"
        )
    return seconds
