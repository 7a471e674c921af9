"""An HTTP server for one `HFPolicy` that answers the requests `RemotePolicy` sends to vLLM.

`Endpoints` says what is answered; here is how: one thread for each connection, with limits of size,
time and number, and the key that clients must send.
"""

import hmac
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tutelage.errors import ConfigError
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.serve_api import Endpoints, RequestError

MAX_REQUEST_BYTES = 4 << 20
"""Twice the size of the longest prompts' ids; all clients together may use CONNECTIONS times as
much."""
CONNECTIONS = 256
"""Maximum number of concurrent clients."""
LINGER_SECONDS = 2.0
"""Seconds for which a refused client may continue to send."""
IDLE_SECONDS = 60
"""Seconds after which a silent client is disconnected."""
REQUEST_SECONDS = 120
"""Seconds in which a request must have arrived, however steadily its bytes come."""


class Arriving(io.RawIOBase):
    """The bytes that a client sends, up to a time on the monotonic clock."""

    def __init__(self, connection: socket.socket, idle: float) -> None:
        self.connection, self.idle, self.until = connection, idle, float("inf")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(min(left, self.idle))
        try:
            return self.connection.recv_into(buffer)
        finally:
            self.connection.settimeout(self.idle)


class Server(ThreadingHTTPServer):
    """The HTTP server. `port` is the real one, also if 0 asked for any free port.

    reload  whether clients may load other weights from folders of this machine
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        policy: HFPolicy,
        *,
        name: str,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = "",
        reload: bool = False,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(
                f"cannot listen on {host}:{port} ({why}); choose another --host or --port"
            ) from None
        self.free = threading.Semaphore(CONNECTIONS)
        self.key, self.endpoints = key, Endpoints(policy, name=name, reload=reload)
        self.worker = self.endpoints.worker
        self.worker.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self) -> None:
        """Stop serving; call it from another thread than the one that serves."""
        self.shutdown()
        self.worker.jobs.put(None)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a run sends thousands of requests."""

    def setup(self) -> None:
        super().setup()
        self.arriving = Arriving(self.connection, self.timeout)
        self.rfile = io.BufferedReader(self.arriving)

    def handle_one_request(self) -> None:
        self.arriving.until = time.monotonic() + REQUEST_SECONDS
        super().handle_one_request()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, with a body as all other errors have it."""
        unknown = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if unknown else code
        words = "only GET and POST are answered" if unknown else message or "no HTTP request"
        self.close_connection = True
        self.request_version = self.protocol_version  # whatever the client wrote there
        try:
            self._send(*_refused(RequestError(status, "BadRequestError", words)))
            self._discard()
        except OSError:
            return

    def do_GET(self) -> None:
        self._answer(self.server.endpoints.get)

    def do_POST(self) -> None:
        self._answer(self.server.endpoints.post)

    def _answer(self, paths: Mapping[str, Callable[[Any], Any]]) -> None:
        read = False
        try:
            length = self._length()
            self._check_key()
            # read the body before any other error: unread bytes would be the next request
            body = self._body(length)
            read = True
            wanted = self.path.partition("?")[0]
            if wanted not in paths:
                raise RequestError(404, "NotFoundError", f"there is no {wanted[:100]}")
            if not isinstance(body, dict):
                raise RequestError(400, "BadRequestError", "the body is no JSON object")
            status, answer = 200, paths[wanted](body)
        except RequestError as refused:
            status, answer = _refused(refused)
        except Exception as problem:
            message = str(problem)[:500] or type(problem).__name__
            error = {"message": message, "type": "InternalServerError", "code": 500}
            status, answer = 500, {"error": error}
        self.close_connection = self.close_connection or not read
        try:
            self._send(status, answer)
            if not read:
                self._discard()
        except OSError:
            self.close_connection = True  # the client has gone

    def _send(self, status: int, answer: Any) -> None:
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _discard(self) -> None:
        """Read and discard the rest of a refused request: the client would miss the answer
        otherwise."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        end = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < end and self.connection.recv(1 << 16):
            pass

    def _length(self) -> int:
        """Bytes of the body, before any is read."""
        if self.headers.get("Transfer-Encoding"):
            raise RequestError(411, "BadRequestError", "the body needs a Content-Length")
        lengths = {text.strip() for text in self.headers.get_all("Content-Length") or ["0"]}
        if len(lengths) > 1:
            raise RequestError(400, "BadRequestError", "two Content-Lengths differ")
        text = lengths.pop()
        if not (text.isascii() and text.isdigit()):
            raise RequestError(400, "BadRequestError", "the Content-Length is no number")
        if len(text) > 12 or int(text) > MAX_REQUEST_BYTES:
            message = f"a request has {MAX_REQUEST_BYTES} bytes at most"
            raise RequestError(413, "BadRequestError", message)
        return int(text)

    def _check_key(self) -> None:
        key, given = self.server.key, self.headers.get("Authorization") or ""
        if key and not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise RequestError(401, "AuthenticationError", "the key is missing or wrong")

    def _body(self, length: int) -> Any:
        try:
            raw = self.rfile.read(length)
        except TimeoutError:
            message = "the body did not arrive in time"
            raise RequestError(408, "BadRequestError", message) from None
        try:
            return json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as error:
            reason = str(error)[:200]
            raise RequestError(400, "BadRequestError", f"the body is not JSON ({reason})") from None


def _refused(error: RequestError) -> tuple[int, Any]:
    """The status and the body of an answer that refuses a request."""
    body = {"message": str(error), "type": error.kind, "code": int(error.status)}
    return int(error.status), {"error": body}
