"""Many requests to one server: a few at a time, tried again where that can help, each in time."""

import http.client
import json
import queue
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tutelage.errors import PolicyError

AGAIN = (408, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed a little later."""
LONGEST = 30.0
"""Seconds between two attempts at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a server is asked.

    concurrent  requests under way at a time
    deadline    seconds that one attempt may take
    retries     attempts after the first
    pause       seconds before the second attempt; doubled before each one after it
    seed        of the jitter, a factor between 1/2 and 1 of every pause
    """

    concurrent: int = 16
    deadline: float = 120.0
    retries: int = 5
    pause: float = 0.5
    seed: int = 0


class Failure(Exception):
    """One attempt that failed. `wait` is how long the server asks to be left alone."""

    def __init__(self, said: str, *, again: bool, wait: float = 0.0, status: int = 0) -> None:
        super().__init__(said)
        self.again, self.wait, self.status = again, wait, status


class Client:
    """Asks one server from threads of its own; answers come as futures.

    name  what errors call it, such as "policies.teacher"
    key   sent as a bearer token where not empty
    """

    def __init__(
        self, url: str, *, name: str, key: str = "", manners: Manners | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PolicyError(
                f"{name}.url = {url!r} is no address of a server; write it as "
                '"http://127.0.0.1:8000"'
            )
        self.secure, self.host, self.port = parts.scheme == "https", parts.hostname, parts.port
        # "http://host:8000/v1", as other clients want it, means the same server
        self.base = parts.path.rstrip("/").removesuffix("/v1")
        self.url, self.name, self.key = url, name, key
        self.manners = manners or Manners()
        self.jobs: queue.PriorityQueue[tuple[bool, int, Future[Any], str, Any]] = (
            queue.PriorityQueue()
        )
        self.workers: list[threading.Thread] = []
        self.count = 0
        self.local = threading.local()

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, later: bool = False
    ) -> "Future[Any]":
        """Post JSON, or get where there is no body; the future holds the JSON that came back, or a
        PolicyError. What may come `later` is sent after everything that may not."""
        made: Future[Any] = Future()
        self.count += 1
        self.jobs.put((later, self.count, made, path, body))
        if len(self.workers) < min(self.manners.concurrent, self.count):
            # threads that do not keep a process alive which nobody waits for any more
            worker = threading.Thread(target=self._work, daemon=True)
            self.workers.append(worker)
            worker.start()
        return made

    def _work(self) -> None:
        while True:
            _, number, made, path, body = self.jobs.get()
            if not made.set_running_or_notify_cancel():
                continue
            try:
                answer = self._patiently(number, path, body)
            except PolicyError as error:
                made.set_exception(error)
            else:
                made.set_result(answer)

    def _patiently(self, number: int, path: str, body: Mapping[str, Any] | None) -> Any:
        """Attempts until one succeeds or no other may."""
        jitter = random.Random(f"{self.manners.seed} {number}")
        attempt = 0
        while True:
            try:
                return self._once(path, body)
            except Failure as failure:
                if not failure.again or attempt == self.manners.retries:
                    raise PolicyError(self._sentence(failure, attempt + 1)) from failure
                pause = self.manners.pause * 2**attempt * jitter.uniform(0.5, 1.0)
                time.sleep(min(LONGEST, max(pause, failure.wait)))
                attempt += 1

    def _sentence(self, failure: Failure, attempts: int) -> str:
        said = f"the server of {self.name} at {self.url} {failure}"
        if attempts > 1:
            said += f", {attempts} times"
        fixes = {
            401: f"set {self.name}.server.key to the environment variable that holds its key",
            403: f"set {self.name}.server.key to the environment variable that holds its key",
            404: f"mend {self.name}.url, or {self.name}.model",
            408: f"raise {self.name}.server.deadline, or lower {self.name}.server.concurrent",
            429: f"lower {self.name}.server.concurrent, or raise {self.name}.server.retries",
            0: f"start it or mend {self.name}.url, then start the run again or --resume it",
        }
        fix = fixes.get(failure.status)
        if fix is None:
            fix = "look into its log, then start the run again or --resume it"
        return f"{said}; {fix}"

    # -- one attempt

    def _once(self, path: str, body: Mapping[str, Any] | None) -> Any:
        end = time.monotonic() + self.manners.deadline
        try:
            status, headers, raw = self._exchange(path, body, end)
        except TimeoutError:
            self._hang_up()
            late = f"did not answer within {self.manners.deadline:g} s"
            raise Failure(late, again=True, status=408) from None
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            raise Failure(_why(error), again=True) from None
        if status != 200:
            raise Failure(
                f"answered {status}{_said(raw)}",
                again=status in AGAIN,
                wait=_seconds(headers.get("retry-after")),
                status=status,
            )
        try:
            return json.loads(raw)
        except ValueError:
            text = "sent something that is not JSON"
            raise Failure(text, again=False, status=404) from None

    def _exchange(
        self, path: str, body: Mapping[str, Any] | None, end: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        fresh = getattr(self.local, "line", None) is None
        if fresh:
            kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
            self.local.line = kind(self.host, self.port)
        line: http.client.HTTPConnection = self.local.line
        _allow(line, end)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        text = None if body is None else json.dumps(body).encode()
        try:
            line.request("GET" if body is None else "POST", self.base + path, text, headers)
            answer = line.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # a line kept from an earlier request may have been closed since
            self._hang_up()
            if fresh:
                raise
            return self._exchange(path, body, end)
        return answer.status, answer.headers, _whole(line, answer, end)

    def _hang_up(self) -> None:
        line, self.local.line = getattr(self.local, "line", None), None
        if line is not None:
            line.close()


def _allow(line: http.client.HTTPConnection, end: float) -> None:
    """Let a line wait until the deadline, whatever an earlier request has left of its own."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    line.timeout = left
    if line.sock is not None:
        line.sock.settimeout(left)


def _whole(line: http.client.HTTPConnection, answer: http.client.HTTPResponse, end: float) -> bytes:
    """The body, by the deadline even where it comes in drops."""
    parts: list[bytes] = []
    while True:
        _allow(line, end)
        part = answer.read1(1 << 16)
        if not part:
            if answer.length:
                raise http.client.IncompleteRead(b"".join(parts), answer.length)
            answer.close()  # which read1 leaves to others, and without which the line is not free
            return b"".join(parts)
        parts.append(part)


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"cannot be reached ({error.strerror or error})"
    return "broke off the connection"


def _said(raw: bytes) -> str:
    """What an error's body says, in one line."""
    try:
        found = json.loads(raw)
        while isinstance(found, dict):
            found = found.get("error") or found.get("message") or found.get("detail") or ""
        text = str(found)
    except ValueError:
        text = ""
    line = " ".join(text.split())[:200].rstrip(".;")
    return f" ({line})" if line else ""


def _seconds(header: str | None) -> float:
    return min(LONGEST, float(header)) if header and header.strip().isdigit() else 0.0
