"""A JSON client for one server: concurrent requests with deadlines and retries, as futures."""

import http.client
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from tutelage.envs.addresses import HIDDEN, SHORTEST, Address, address, without_key
from tutelage.envs.guard import one_line
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.server.timed import UnreadableLength, until

RETRY_STATUSES = (408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529)
"""HTTP statuses after which the same request may succeed a little later; from 520 on they are those
of common proxies and of servers that are overloaded."""
PACKED = 406
"""Stands for an answer that cannot be read since it is compressed."""
MAX_ANSWER_BYTES = 64 << 20
"""Of one answer: 20 times what the scores of the longest prompts take."""
MAX_PAUSE = 30.0
"""Seconds between two attempts at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """Concurrency, deadline and retries of the requests to one server.

    concurrent  requests under way at a time
    deadline    seconds that one attempt may take
    retries     attempts after the first
    pause       seconds before the second attempt; doubled before each later one
    seed        of the jitter, a factor between 1/2 and 1 of every pause
    """

    concurrent: int = 16
    deadline: float = 120.0
    retries: int = 5
    pause: float = 0.5
    seed: int = 0


class Failure(Exception):
    """One attempt that failed. `wait` is the server's Retry-After in seconds."""

    def __init__(self, reason: str, *, retry: bool, wait: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.retry, self.wait, self.status = retry, wait, status


class Target(NamedTuple):
    """Where requests go: a server's address, what its paths begin with, and its key."""

    address: Address
    base: str
    key: str


class Client:
    """Sends requests to one server from its own threads; answers are futures.

    name     the server's name in error messages, such as "policies.teacher"
    setting  the setting that holds its address; that name's `model` if empty
    key      sent as a bearer token if not empty
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        setting: str = "",
        key: str = "",
        options: RequestOptions | None = None,
    ) -> None:
        self.setting = setting or f"{name}.model"
        try:
            found = address(url, where=self.setting)
        except ConfigError as error:
            raise PolicyError(str(error)) from None
        # other clients take "http://host:8000/v1" for the same server
        self.target = Target(found, found.path.rstrip("/").removesuffix("/v1"), key)
        self.name = name
        # the student's sampler has the student's key
        self.key_setting = f"{name.removesuffix('.sampler')}.key"
        self.options = options or RequestOptions()
        self.jobs: queue.PriorityQueue[tuple[bool, int, Future[Any], str, Any]] = (
            queue.PriorityQueue()
        )
        self.workers: list[threading.Thread] = []
        self.count = 0
        self.local = threading.local()

    @property
    def url(self) -> str:
        """The server's address, without what could be secret."""
        return self.target.address.shown

    @property
    def key(self) -> str:
        return self.target.key

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, low_priority: bool = False
    ) -> "Future[Any]":
        """POST `body` as JSON, or GET without one; the future holds the JSON answer or raises
        PolicyError. Requests of low priority are sent after all others that wait."""
        future: Future[Any] = Future()
        self.count += 1
        self.jobs.put((low_priority, self.count, future, path, body))
        if len(self.workers) < min(self.options.concurrent, self.count):
            # daemon threads: a process that is done does not wait for open requests
            worker = threading.Thread(target=self._work, daemon=True)
            self.workers.append(worker)
            worker.start()
        return future

    def ask_once(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        deadline: float,
        read: Callable[[bytes], Any] = json.loads,
    ) -> Any:
        """The answer of one attempt, which this thread waits for, in seconds. Raises PolicyError.

        read  what is made of the bytes of an answer; ValueError if they are none
        """
        try:
            return self._once(path, body, deadline, read)
        except Failure as failure:
            raise PolicyError(self._message(failure, 1)) from failure

    def _work(self) -> None:
        while True:
            _, number, future, path, body = self.jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                answer = self._with_retries(number, path, body)
            except PolicyError as error:
                future.set_exception(error)
            except Exception as error:
                # if this thread died, its request would wait forever
                reason = f"could not be asked ({type(error).__name__})"
                message = f"the server of {self.name} at {self.url} {reason}"
                failed = PolicyError(f"{message}; fix the address in {self.setting}")
                failed.__cause__ = error if not self.key else None
                future.set_exception(failed)
            else:
                future.set_result(answer)

    def _with_retries(self, number: int, path: str, body: Mapping[str, Any] | None) -> Any:
        """The answer of the first attempt that succeeds."""
        jitter = random.Random(f"{self.options.seed} {number}")
        attempt = 0
        while True:
            target = self.target
            try:
                return self._once(path, body)
            except Failure as failure:
                if failure.retry and self._moved(target):
                    continue
                if not failure.retry or attempt == self.options.retries:
                    raise PolicyError(self._message(failure, attempt + 1)) from failure
                pause = self.options.pause * 2**attempt * jitter.uniform(0.5, 1.0)
                time.sleep(min(MAX_PAUSE, max(pause, failure.wait)))
                attempt += 1

    def _moved(self, target: Target) -> bool:
        """Whether the server is somewhere else by now, so that a request that failed is sent again
        at once. One that a user named stays where it is."""
        return False

    def _message(self, failure: Failure, attempts: int) -> str:
        problem = f"the server of {self.name} at {self.url} {failure}"
        if attempts > 1:
            problem += f", {attempts} times"
        fixes = {
            401: f"set {self.key_setting} to the environment variable that holds its key",
            403: f"set {self.key_setting} to the environment variable that holds its key",
            404: f"fix the address in {self.setting}, or its name on the server",
            408: "lower rollout.concurrency, or use a faster server",
            429: "lower rollout.concurrency, or raise the server's limit of requests",
            **dict.fromkeys(range(300, 400), f"write its final address into {self.setting}"),
            PACKED: "turn off compression there, or in the proxy before it",
            0: f"start it or fix the address in {self.setting}, then start the run again or --resume it",
        }
        fix = fixes.get(failure.status)
        if fix is None:
            fix = "look at its log, then start the run again or --resume it"
        return f"{problem}; {fix}"

    # -- one attempt

    def _once(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        deadline: float | None = None,
        read: Callable[[bytes], Any] = json.loads,
    ) -> Any:
        deadline = self.options.deadline if deadline is None else deadline
        end = time.monotonic() + deadline
        try:
            status, headers, raw = self._exchange(path, body, end)
        except TimeoutError:
            self._disconnect()
            reason = f"did not answer within {deadline:g} s"
            raise Failure(reason, retry=True, status=408) from None
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise Failure(_connection_error(error), retry=True) from None
        if len(self.key) >= SHORTEST:
            raw = raw.replace(self.key.encode(), HIDDEN.encode())
        if status != 200:
            message = _error_text(raw) or _elsewhere(status, headers.get("location"))
            raise Failure(
                without_key(f"answered {status}{message}", self.key),
                retry=status in RETRY_STATUSES,
                wait=_seconds(headers.get("retry-after")),
                status=status,
            )
        try:
            return read(raw)
        except (ValueError, RecursionError):
            packed = one_line(headers.get("content-encoding", "identity").strip().lower(), 20)
            if packed != "identity":
                reason = f"sent an answer in the encoding {packed}, for which it was not asked"
                raise Failure(reason, retry=False, status=PACKED) from None
            reason = "sent something that is not JSON"
            raise Failure(reason, retry=False, status=404) from None

    def _exchange(
        self, path: str, body: Mapping[str, Any] | None, end: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        target = self.target
        if getattr(self.local, "target", target) is not target:
            self._disconnect()
        fresh = getattr(self.local, "connection", None) is None
        if fresh:
            to = target.address
            kind = http.client.HTTPSConnection if to.secure else http.client.HTTPConnection
            self.local.connection, self.local.target = kind(to.host, to.port), target
        connection: http.client.HTTPConnection = self.local.connection
        _set_timeout(connection, end)
        connection.response_class = until(end)  # type: ignore[assignment]
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if target.key:
            headers["Authorization"] = f"Bearer {target.key}"
        text = None if body is None else json.dumps(body).encode()
        try:
            connection.request("GET" if body is None else "POST", target.base + path, text, headers)
            answer = connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # the server may have closed a connection kept from an earlier request
            self._disconnect()
            if fresh:
                raise
            return self._exchange(path, body, end)
        return answer.status, answer.headers, _read_body(connection, answer, end)

    def _disconnect(self) -> None:
        connection, self.local.connection = getattr(self.local, "connection", None), None
        if connection is not None:
            connection.close()


def _set_timeout(connection: http.client.HTTPConnection, end: float) -> None:
    """Let a connection wait until the deadline, `end` on the monotonic clock."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.timeout = left
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _read_body(
    connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, end: float
) -> bytes:
    """The body. The deadline holds for all of it, also where it arrives a few bytes at a time."""
    parts: list[bytes] = []
    size = 0
    while True:
        _set_timeout(connection, end)
        part = answer.read1(1 << 16)
        if not part:
            if answer.length:
                raise http.client.IncompleteRead(b"".join(parts), answer.length)
            answer.close()  # read1 does not, and the connection could not be used again
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            connection.close()
            reason = f"sent more than {MAX_ANSWER_BYTES >> 20} MB in one answer"
            raise Failure(reason, retry=False, status=404)


def _connection_error(error: Exception) -> str:
    if isinstance(error, UnreadableLength):
        return f"sent {error}, which is no number of bytes"
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"cannot be reached ({error.strerror or error})"
    if isinstance(error, http.client.HTTPException) and not isinstance(
        error, http.client.IncompleteRead | http.client.RemoteDisconnected
    ):
        # such as a server that speaks TLS only, or another protocol
        return "sent something that is not HTTP"
    return "closed the connection"


def _error_text(raw: bytes) -> str:
    """The message in the body of an error answer, on one line."""
    try:
        found = json.loads(raw)
        while isinstance(found, dict):
            found = found.get("error") or found.get("message") or found.get("detail") or ""
        text = str(found)
    except (ValueError, RecursionError):
        text = ""
    line = " ".join(one_line(text, 1000).split())[:200].rstrip(".;")
    return f" ({line})" if line else ""


def _elsewhere(status: int, location: str | None) -> str:
    """Where a redirection points to: requests are not sent on, since a key would be sent along."""
    if not 300 <= status < 400 or not location:
        return ""
    try:
        return f" (it points to {address(location, where='').shown})"
    except ConfigError:
        return " (it points elsewhere)"


def _seconds(header: str | None) -> float:
    """What Retry-After asks for; 0 where it is a date or anything else."""
    text = (header or "").strip()
    number = text.isascii() and text.isdigit() and len(text) < 10
    return min(MAX_PAUSE, float(text)) if number else 0.0
