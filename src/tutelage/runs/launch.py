"""The ranks of this run: of one process, unless `torchrun` or a cluster started several.
torch.distributed is imported only then."""

import contextlib
import os
from collections.abc import Iterator

from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.runs.launcher import end_with_launcher
from tutelage.runs.torchrun import launch_of


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this run, joined until the block ends. What goes wrong in one of them ends all,
    with its sentence from rank 0."""
    end_with_launcher()
    launch = launch_of()
    if launch is None:
        yield ALONE
        return
    # torch writes the stack of every connection that breaks; the run says it in a sentence
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from tutelage.runs import distributed

    with distributed.joined(launch) as ranks:
        yield ranks
