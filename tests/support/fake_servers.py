"""Servers on this machine: ours over a small model, and one that answers as a list says."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import Client, RequestOptions
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.serve import Server
from tutelage.prompts.chat_template import Chat

NAME = "policies.teacher"
HASTY = RequestOptions(concurrent=4, deadline=20.0, retries=3, pause=0.01)


@contextmanager
def serving(policy: HFPolicy, **settings: Any) -> Iterator[Server]:
    server = Server(policy, name=settings.pop("name", "small"), **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def client(port: int, *, options: RequestOptions = HASTY, key: str = "", path: str = "") -> Client:
    return Client(f"http://127.0.0.1:{port}{path}", name=NAME, key=key, options=options)


def remote(port: int, chat: Chat, **settings: Any) -> RemotePolicy:
    options = settings.pop("options", HASTY)
    result = RemotePolicy(client(port, options=options), chat, **settings)
    result.connect()
    return result


class Listed(ThreadingHTTPServer):
    """Answers the k-th request with the k-th thing of a list, then always with the last.

    a number          that status; (number, headers) with those, (number, headers, body) with a body
    "drop"            closes the line
    "stall"           answers after a second
    "drip"            a byte every tenth of a second
    "half"            announces more than it sends, and closes the line
    anything else     200 and this as JSON; bytes as they are
    """

    daemon_threads = True

    def __init__(self, answers: Sequence[Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Lists)
        self.answers, self.asked = list(answers), list[tuple[str, Any, Mapping[str, str]]]()
        self.at: list[float] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def next(self, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        with self.lock:
            self.asked.append((path, body, headers))
            self.at.append(time.monotonic())
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Lists(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listed

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        answer = self.server.next(self.path, body, dict(self.headers))
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self._give(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.now -= 1

    def _give(self, answer: Any) -> None:
        status, headers = 200, {}
        if answer == "drop":
            self.close_connection = True
            return
        if answer == "stall":
            time.sleep(1.0)
        if isinstance(answer, int):
            status, answer = answer, {"error": {"message": f"no {answer}."}}
        if isinstance(answer, tuple):
            status, headers, *body = answer
            answer = body[0] if body else {"detail": "busy"}
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        half = answer == "half"
        self.close_connection = self.close_connection or half
        self.send_header("Content-Length", str(len(raw) * 2 if half else len(raw)))
        self.end_headers()
        for k in range(len(raw)) if answer == "drip" else [slice(None)]:
            self.wfile.write(raw[k : k + 1] if isinstance(k, int) else raw)
            self.wfile.flush()
            if isinstance(k, int):
                time.sleep(0.2)


@contextmanager
def listed(*answers: Any) -> Iterator[Listed]:
    server = Listed(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
