"""Reading from a server within a deadline, however few bytes come at a time."""

import http.client
import io
import socket
import time
from collections.abc import Callable
from typing import Any


def until(end: float) -> Callable[..., http.client.HTTPResponse]:
    """A `response_class` of a connection, all of whose reading ends at `end` of the monotonic
    clock: the status line and the headers too, which a server may send a byte now and then, and
    each byte of which would begin the timeout of a socket anew. Raises TimeoutError."""

    def answer(sock: socket.socket, **settings: Any) -> http.client.HTTPResponse:
        return _Answer(_Timed(sock, end), **settings)  # type: ignore[arg-type]

    return answer


class _Answer(http.client.HTTPResponse):
    """The final answer: http.client skips "100 Continue" alone of those that come before it, such
    as "103 Early Hints"."""

    def begin(self) -> None:
        super().begin()
        while self.status in range(102, 200):
            self.headers = self.msg = None  # type: ignore[assignment] # what `begin` looks for
            super().begin()
        length = (self.headers.get("content-length") or "0").strip()
        if not self.chunked and not (length.isascii() and length.isdigit()):
            # http.client would take it for none, and wait for the connection's end
            raise UnreadableLength(f"a Content-Length of {length!r:.40}")


class UnreadableLength(http.client.HTTPException):
    """The length of an answer is no number."""


class _Timed:
    """As much of a socket as an answer uses: the file that it reads."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self.sock, self.end = sock, end

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Bytes(self.sock, self.end))


class _Bytes(io.RawIOBase):
    def __init__(self, sock: socket.socket, end: float) -> None:
        # the socket's own file counts as its user, so that it stays open until all is read
        self.sock, self.end, self.file = sock, end, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        return self.file.readinto(buffer)

    def close(self) -> None:
        self.file.close()
        super().close()
