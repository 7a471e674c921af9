"""A server that speaks Search-R1's protocol, in both dialects that are in use.

    POST /retrieve  {"queries": ["...", ...], "topk": 3, "return_scores": true}    Search-R1
    POST /retrieve  {"query": "...", "topk": 3, "return_scores": true}             SkyRL, verl-agent

Both are answered with {"result": [[{"document": {"id": ..., "contents": ...}, "score": ...}, ...],
...]}, a list for each query; without `return_scores`, documents stand alone. Without `topk`, or
with 0, as many passages are returned as the server was told (arXiv:2503.09516,
`retrieval_server.py`).
"""

import json
import math
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from tutelage.errors import TutelageError
from tutelage_worlds.json_text import parse
from tutelage_worlds.search_qa.retrieval import TOP, Hit, Retriever

PATH: Final = "/retrieve"
PORT: Final = 8000
LARGEST: Final = 16_000_000
"""Bytes of a request."""
DIGITS: Final = 20
"""Of the number that says so; of longer ones none is small."""
MOST: Final = 1000
"""Passages for a query."""


class Asked(NamedTuple):
    queries: list[str]
    k: int
    scores: bool


class Refused(ValueError):
    """A request that is none; the message says why."""


def read(body: bytes, k: int) -> Asked:
    """What a request asks for; k is for those that do not say how many. Raises Refused."""
    try:
        request = parse(body)
    except ValueError as error:
        raise Refused(f"the body is not JSON ({error})") from None
    if not isinstance(request, dict):
        raise Refused("the body must be an object with `queries` or `query`")
    if ("queries" in request) == ("query" in request):
        raise Refused("there must be `queries`, a list of strings, or `query`, one string")
    queries = request["queries"] if "queries" in request else [request["query"]]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise Refused("`queries` must be a list of strings, `query` one string")
    top, scores = request.get("topk"), request.get("return_scores", False)
    if isinstance(top, bool) or not (top is None or isinstance(top, int)) or (top or 0) < 0:
        raise Refused("`topk` must be a whole number, not below 0, or null")
    if not isinstance(scores, bool):
        raise Refused("`return_scores` must be true or false")
    return Asked(queries, min(top or k, MOST), scores)


def answer(found: list[list[Hit]], *, scores: bool) -> dict[str, Any]:
    """
    >>> from tutelage_worlds.search_qa.passages import titled
    >>> answer([[Hit(titled("7", "Oslo", "A town."), 1.5)]], scores=True)
    {'result': [[{'document': {'id': '7', 'contents': '"Oslo"\\nA town.'}, 'score': 1.5}]]}
    """
    result: list[list[dict[str, Any]]] = []
    for hits in found:
        documents = [{"id": p.id, "contents": p.contents} for p, _ in hits]
        if scores:
            # JSON has no number that is infinite or none
            values = (score if math.isfinite(score) else 0.0 for _, score in hits)
            pairs = zip(documents, values, strict=True)
            result.append([{"document": d, "score": score} for d, score in pairs])
        else:
            result.append(documents)
    return {"result": result}


class Server(ThreadingHTTPServer):
    """Serves a retriever. `serve_forever()` runs it; as a context, it runs beside.

    k     passages for a query that does not say how many
    port  0 for any that is free; `address` says which
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, retriever: Retriever, *, host: str = "127.0.0.1", port: int = PORT, k: int = TOP
    ) -> None:
        self.retriever, self.k = retriever, k
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if self.address_family == socket.AF_INET6 else str(host)
        return f"http://{shown}:{port}{PATH}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    # an answer in one packet: else each waits for the acknowledgement of its head
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        if self.path != PATH:
            self._say(404, {"detail": f"there is no {self.path}; POST to {PATH}"})
            return
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or len(size) > DIGITS or int(size) > LARGEST:
            self.close_connection = True
            text = f"Content-Length must say how long the body is, at most {LARGEST} bytes"
            self._say(413 if size.isdecimal() else 411, {"detail": text})
            return
        try:
            asked = read(self.rfile.read(int(size)), self.server.k)
            found = self.server.retriever.search(asked.queries, asked.k)
        except Refused as error:
            self._say(422, {"detail": str(error)})
        except TutelageError as error:
            self._say(500, {"detail": str(error)})
        else:
            self._say(200, answer(found, scores=asked.scores))

    def do_GET(self) -> None:
        self._say(405, {"detail": f"POST to {PATH}"})

    def _say(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: one line for each search of a training run is too much."""
