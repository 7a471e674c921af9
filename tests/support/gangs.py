"""Several ranks of one run: forked processes that gloo connects, as `torchrun` would start them."""

import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.errors import Elsewhere, TutelageError
from tutelage.rollout.ranks import Ranks
from tutelage.runs.launch import joined

Job = Callable[[Ranks], Any]
DEADLINE = 600.0
"""Seconds that a gang may take: what hangs is killed, and the test fails."""


class Ended(NamedTuple):
    """How a rank ended: its result, what it wrote to stderr, its exit code, and seconds until then."""

    value: Any
    message: str
    code: int
    seconds: float


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Gang:
    """Ranks that run a job in a folder, each in a process of its own. Exit code 2 is an error in a
    sentence.

    prepare  called with the rank in its process, before the ranks join
    """

    def __init__(
        self,
        size: int,
        job: Job,
        folder: Path,
        *,
        port: int = 0,
        prepare: Callable[[int], object] = lambda rank: None,
    ) -> None:
        self.folder, self.begun, self.prepare = folder, time.monotonic(), prepare
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        self.children = [self._start(rank, size, job, port) for rank in range(size)]

    def _start(self, rank: int, size: int, job: Job, port: int) -> int:
        child = os.fork()
        if child:
            return child
        try:
            # the test's own handlers and output belong to the parent
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            log = os.open(self.folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 2)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            os._exit(self._run(rank, size, job, port))
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _run(self, rank: int, size: int, job: Job, port: int) -> int:
        torch.set_num_threads(1)
        os.chdir(self.folder)
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(size),
            LOCAL_WORLD_SIZE=str(size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        self.prepare(rank)
        try:
            with joined() as ranks:
                value = job(ranks)
        except Elsewhere:
            return 2
        except KeyboardInterrupt:
            return 130
        except TutelageError as error:
            sys.stderr.write(f"tutelage: {error}\n")
            sys.stderr.flush()
            return 2
        (self.folder / f"value-{rank}").write_bytes(pickle.dumps(value))
        return 0

    def kill(self, rank: int, by: int = signal.SIGKILL) -> None:
        os.kill(self.children[rank], by)

    def wait(self, seconds: float = DEADLINE) -> list[Ended]:
        """Every rank's end. Raises AssertionError where one is still there after so many seconds."""
        ends: dict[int, tuple[int, float]] = {}
        until = time.monotonic() + seconds
        while len(ends) < len(self.children):
            for rank, child in enumerate(self.children):
                if rank not in ends and (found := os.waitpid(child, os.WNOHANG))[0]:
                    code = os.waitstatus_to_exitcode(found[1])
                    ends[rank] = code, time.monotonic() - self.begun
            if time.monotonic() > until:
                left = [rank for rank in range(len(self.children)) if rank not in ends]
                for rank in left:
                    self.kill(rank)
                raise AssertionError(f"ranks {left} did not end: {self._messages()}")
            time.sleep(0.01)
        messages = self._messages()
        return [
            Ended(self._value(rank), messages[rank], *ends[rank])
            for rank in range(len(self.children))
        ]

    def _messages(self) -> list[str]:
        names = [self.folder / f"stderr-{rank}" for rank in range(len(self.children))]
        return [name.read_text() if name.exists() else "" for name in names]

    def _value(self, rank: int) -> Any:
        path = self.folder / f"value-{rank}"
        return pickle.loads(path.read_bytes()) if path.exists() else None


def run(size: int, job: Job, folder: Path) -> list[Any]:
    """What the ranks of a job return; it must end well in each."""
    ends = Gang(size, job, folder).wait()
    assert not any(end.code for end in ends), [end.message for end in ends]
    return [end.value for end in ends]
