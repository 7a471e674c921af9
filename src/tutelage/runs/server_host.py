"""What runs on a node of a Ray cluster for one server: it holds the process of `tutelage serve`,
starts it again where it died, and says where it listens.

The key is drawn here for every start. It goes to the process in a variable and to the ranks in an
answer, so neither a list of processes nor Ray's dashboard shows it.
"""

import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Final

from tutelage.errors import PolicyError
from tutelage.policies.server.hosted import RESTARTS, STARTED, NotServed, Where
from tutelage.policies.server.http import Client
from tutelage.runs.launcher import STARTED_BY, of_node, versions

KEY: Final = "TUTELAGE_SERVER_KEY"
"""Environment variable of the server's process: the key that clients must send."""
SERVING: Final = "serving "
"""How the line begins with which `tutelage serve` says its address."""
LAST: Final = 20
"""Lines of a server that are kept, to say why it ended."""
OWN_SENTENCE: Final = "tutelage: "


class ServerHost:
    """An actor of the cluster that holds the process of one server."""

    def __init__(self, folder: str, environ: Mapping[str, str]) -> None:
        """The folder in which the run was started, and the variables that go along."""
        os.environ.update(environ)
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.where: Where | None = None

    def about(self) -> tuple[dict[str, str], list[str]]:
        """The releases on this node that must be the same on every node, and the server's GPUs."""
        import ray

        return versions(), list(ray.get_runtime_context().get_accelerator_ids().get("GPU", ()))

    def serve(self, arguments: Sequence[str]) -> Where:
        """Where the server with these arguments answers; it is started where it does not run.

        Raises NotServed where it ends before it answers.
        """
        if self.where is not None and self.process is not None and self.process.poll() is None:
            return self.where
        for left in reversed(range(RESTARTS + 1)):
            lines: queue.SimpleQueue[str] = queue.SimpleQueue()
            key = secrets.token_urlsafe(24)
            process = self.process = self._start(arguments, key, lines)
            url, words = _heard(process, lines)
            if url:
                self.where = Where(url=url, key=key, start=secrets.token_hex(4))
                _wait_for_health(self.where)
                return self.where
            # killed by a signal, for lack of memory perhaps, it is tried again
            if process.returncode >= 0 or not left:
                break
        raise NotServed(_reason(process.returncode, words))

    def _start(
        self, arguments: Sequence[str], key: str, lines: "queue.SimpleQueue[str]"
    ) -> subprocess.Popen[str]:
        import ray

        # this node's, which other nodes reach; the system finds a port that is free
        place = ["--host", ray.util.get_node_ip_address(), "--port", "0", "--key", KEY]
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", "serve", *arguments, *place],
            cwd=self.folder,
            env={**of_node(), KEY: key, STARTED_BY: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        return process


def _read(stream: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _heard(process: subprocess.Popen[str], lines: "queue.SimpleQueue[str]") -> tuple[str, str]:
    """The address that a server says, or nothing and its last lines instead before it ended."""
    heard: deque[str] = deque(maxlen=LAST)
    until = time.monotonic() + STARTED
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            process.kill()
            process.wait()
            raise NotServed(f"it does not answer {STARTED:g} seconds after its start") from None
        if line.startswith(SERVING):
            return line.split()[-1], ""
        if not line:  # its end
            process.wait()
            return "", "".join(heard)
        heard.append(line)


def _wait_for_health(where: Where) -> None:
    try:
        Client(where.url, name="the cluster", key=where.key).ask("/health").result()
    except PolicyError as error:
        raise NotServed(str(error)) from None


def _reason(code: int, words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith(OWN_SENTENCE)]
    text = (own or lines or ["it said nothing"])[-1].removeprefix(OWN_SENTENCE)[:300]
    return f"it ended with exit code {code}: {text}"
