"""A client for retrieval servers with Search-R1's protocol (see `server`)."""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from tutelage.envs.addresses import address
from tutelage.errors import EnvError
from tutelage_worlds.json_text import parse
from tutelage_worlds.search_qa.passages import passage
from tutelage_worlds.search_qa.retrieval import Hit
from tutelage_worlds.search_qa.rows import DataError

Dialect = Literal["queries", "query"]
"""The key under which a server expects what is searched: Search-R1's, or SkyRL's and verl-agent's,
which takes one query at a time."""
BUSY: Final = (429, 500, 502, 503, 504)


class ServerError(EnvError):
    """A server that cannot be reached or answers something else."""


class Remote:
    """A server's retriever. Connections stay open, one for each thread.

    url      such as http://127.0.0.1:8000/retrieve
    seconds  for each attempt
    retries  how often a request is retried if the server is busy or away

    Raises ConfigError for an invalid address, and ServerError if all retries fail.
    """

    def __init__(
        self, url: str, *, dialect: Dialect = "queries", seconds: float = 30.0, retries: int = 3
    ) -> None:
        # it shows nothing that may be a key, and refuses what cannot be asked
        self._url = address(url, where="env.options.url").shown
        self._parts = urlsplit(url)
        self._dialect, self._seconds, self._retries = dialect, seconds, retries
        self._local = threading.local()

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        if not queries or not k:
            return [[] for _ in queries]
        if self._dialect == "queries":
            return self._ask({"queries": list(queries)}, k, len(queries))
        return [self._ask({"query": query}, k, 1)[0] for query in queries]

    def _ask(self, asked: dict[str, Any], k: int, count: int) -> list[list[Hit]]:
        body = json.dumps({**asked, "topk": k, "return_scores": True}).encode()
        answer = self._fetch(body)
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, list) or len(result) != count:
            raise self._wrong("no `result` with a list for each query")
        return [[self._hit(item) for item in self._items(hits)[:k]] for hits in result]

    def _items(self, hits: object) -> list[object]:
        if not isinstance(hits, list):
            raise self._wrong("a result that is no list")
        return hits

    def _hit(self, item: object) -> Hit:
        if not isinstance(item, dict):
            raise self._wrong("a passage that is no object")
        score = item.get("score", 0.0)
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise self._wrong("a score that is no number")
        # Search-R1's BM25 over an index with texts sends no ids
        document = {"id": "", **self._document(item)}
        try:
            return Hit(passage(document, f"{self._url} answered"), float(score))
        except (DataError, OverflowError) as error:
            raise ServerError(f"{error}; env.options.url must be a Search-R1 retriever") from None

    def _document(self, item: dict[str, Any]) -> dict[str, Any]:
        document = item.get("document")
        if not isinstance(document, dict):
            raise self._wrong("a passage without `document`")
        return document

    def _wrong(self, what: str) -> ServerError:
        return ServerError(
            f"the server at {self._url} answered {what}; env.options.url must be a Search-R1 "
            'retriever, and env.options.dialect "queries" or "query" as it wants it'
        )

    # -- over the wire

    def _fetch(self, body: bytes) -> Any:
        reason = ""
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(min(0.1 * 2.0**attempt, 8.0))
            try:
                status, content = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
                continue
            if status == 200:
                return self._json(content)
            reason = f"HTTP {status}: {content[:200].decode('utf-8', 'replace')}"
            if status not in BUSY:
                break
        raise ServerError(
            f"the retriever at {self._url} did not answer ({reason}); start it, or check "
            "env.options.url and env.options.dialect"
        )

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """One attempt, over the thread's connection or, where the server closed it, a new one."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            try:
                return self._over(connection, body)
            except ConnectionError:
                connection.close()
        return self._over(self._connect(), body)

    def _over(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        path = self._parts.path or "/"
        address = f"{path}?{self._parts.query}" if self._parts.query else path
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            connection.request("POST", address, body, headers)
            response = connection.getresponse()
            content: bytes = response.read()
        except BaseException:
            connection.close()
            raise
        self._local.connection = connection
        return response.status, content

    def _connect(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(str(self._parts.hostname), self._parts.port, timeout=self._seconds)

    def _json(self, content: bytes) -> Any:
        try:
            return parse(content)
        except ValueError:
            raise self._wrong("something that is not JSON") from None
