"""What runs on a node of a Ray cluster for one rank: it starts the rank's process, and passes on
what that writes.

The rank is a process of its own, as `torchrun` would start it, because signals, exit codes and
standard output belong to a process, and Ray's worker has its own use for them.
"""

import contextlib
import os
import platform
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Final, NamedTuple

from tutelage import __version__
from tutelage.config.toml_file import load
from tutelage.envs.base import Converses
from tutelage.envs.registry import suite_of, workers_of
from tutelage.errors import TutelageError

STARTED_BY: Final = "TUTELAGE_STARTED_BY"
"""Environment variable: the process that a rank ends with, by its number."""
LOOK: Final = 0.5
"""Seconds between two looks at whether that process is still there."""
PATIENCE: Final = 1.0
"""Seconds that an answer may wait for something to pass on."""
PACKAGES: Final = ("torch", "transformers", "tokenizers")
OF_WORKER: Final = frozenset(("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_CLIENT_MODE"))
"""Variables that Ray sets for its worker, and that would mislead a process of its own."""


class Written(NamedTuple):
    """What a rank has written since it was last asked, and how it ended.

    chunks  pairs of a stream, "stdout" or "stderr", and text
    code    its exit code, negative for a signal; None while it runs
    """

    chunks: list[tuple[str, str]]
    code: int | None


class Launcher:
    """An actor of the cluster that holds the process of one rank."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.written: queue.Queue[tuple[str, str]] = queue.Queue()
        self.readers: list[threading.Thread] = []

    def about(self) -> tuple[dict[str, str], list[str]]:
        """The releases on this node that must be the same on every node, and the rank's GPUs."""
        import ray

        return versions(), list(ray.get_runtime_context().get_accelerator_ids().get("GPU", ()))

    def prove(self, folder: str, file: str, overrides: Sequence[str]) -> tuple[str, int]:
        """Why a run of this file could not start here, empty where nothing speaks against it; and
        the worker processes of its environments that may run on other nodes."""
        try:
            os.chdir(folder)
        except OSError as error:
            reason = f"the folder {folder}, where you start the run, is not there"
            return f"{reason} ({error.strerror})", 0
        try:
            config = load(Path(file), list(overrides), trust=True)
            suite = suite_of(config.env, calls=config.context.calls)
        except TutelageError as error:
            return str(error), 0
        # an agent of its own talks to the rank that plays it
        return "", 0 if isinstance(suite, Converses) else workers_of(config.env, suite)

    def free_port(self) -> int:
        """A port of this node that nothing listens on now."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            return int(listener.getsockname()[1])

    def start(self, arguments: Sequence[str], folder: str, environ: Mapping[str, str]) -> int:
        """Start the rank in a folder with these variables beside the node's own. Its process id."""
        # Ray's workers do not hear Ctrl-C, and what they start would not either
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", *arguments],
            cwd=folder,
            env={**of_node(), **environ, STARTED_BY: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C of a terminal is passed on by whoever started the run
        )
        streams = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        for name, stream in streams.items():
            assert stream is not None
            reader = threading.Thread(target=self._read, args=(name, stream), daemon=True)
            reader.start()
            self.readers.append(reader)
        return self.process.pid

    def _read(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            self.written.put((name, line))

    def read(self) -> Written:
        """What the rank has written by now; waits a moment if that is nothing."""
        assert self.process is not None
        chunks: list[tuple[str, str]] = []
        until = time.monotonic() + PATIENCE
        # a process that ended may have left lines, and one of its own processes may hold the pipe
        while self.process.poll() is None and not chunks and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                chunks.append(self.written.get(timeout=0.1))
        code = self.process.poll()
        if code is not None:
            for reader in self.readers:
                reader.join(timeout=PATIENCE)
        with contextlib.suppress(queue.Empty):
            while True:
                chunks.append(self.written.get_nowait())
        return Written(chunks, code)

    def send(self, number: int) -> None:
        """Send the rank a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


def of_node() -> dict[str, str]:
    """This process's variables, without those that Ray set for it alone."""
    return {name: value for name, value in os.environ.items() if name not in OF_WORKER}


def versions() -> dict[str, str]:
    """The releases that must be the same on every node."""
    return {
        "tutelage": __version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def end_with_launcher(environ: Mapping[str, str] = os.environ) -> None:
    """In a rank or a server that an actor started: end when it ends, however that happens, since nobody would
    hear of this process any more. Elsewhere it does nothing."""
    number = environ.get(STARTED_BY, "")
    if number.isdigit():
        threading.Thread(target=_outlast, args=(int(number),), daemon=True).start()


def _outlast(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(LOOK)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
