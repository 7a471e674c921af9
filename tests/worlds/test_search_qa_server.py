"""Search-R1's protocol over a real loopback connection, in both dialects."""

import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from support.search_qa_corpora import TOWNS, small, towns

from tutelage.errors import ConfigError, EnvError
from tutelage_worlds.search_qa import SearchQA
from tutelage_worlds.search_qa.client import Remote, ServerError
from tutelage_worlds.search_qa.retrieval import Hit, Local, build
from tutelage_worlds.search_qa.server import Server


@pytest.fixture(scope="module")
def local() -> Local:
    return build(towns(), "lucene")


@pytest.fixture(scope="module")
def server(local: Local) -> Iterator[Server]:
    with Server(local, port=0, k=2) as result:
        yield result


def post(
    url: str,
    body: object,
    *,
    raw: bytes | None = None,
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    text = json.dumps(body).encode() if raw is None else raw
    connection.request(method, parts.path, text, headers or {})
    response = connection.getresponse()
    result = response.status, json.loads(response.read())
    connection.close()
    return result


def test_both_dialects_are_answered_alike(server: Server) -> None:
    status, many = post(
        server.address, {"queries": ["oslo", "ada bo"], "topk": 1, "return_scores": True}
    )
    assert status == 200
    assert [row[0]["document"] for row in many["result"]] == [
        {"id": "7", "contents": '"Oslo"\nA town on the river Alna.'},
        {"id": "9", "contents": '"Ada Bo"\nShe wrote about the river of Lima.'},
    ]
    assert all(row[0]["score"] > 0 for row in many["result"])
    one = post(server.address, {"query": "oslo", "topk": 1, "return_scores": True})
    assert one == (200, {"result": many["result"][:1]})


def test_what_is_left_out_has_a_default(server: Server) -> None:
    for body in (
        {"queries": ["river"]},
        {"queries": ["river"], "topk": None},
        {"query": "river", "topk": 0, "return_scores": False},
    ):
        status, result = post(server.address, body)
        assert status == 200
        (row,) = result["result"]
        assert [set(document) for document in row] == [{"id", "contents"}] * 2
    assert post(server.address, {"queries": []}) == (200, {"result": []})
    assert post(server.address, {"query": "", "topk": 10**9}) == (200, {"result": [[]]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "`queries`"),
        ([], "an object"),
        ({"queries": "oslo"}, "a list of strings"),
        ({"query": ["oslo"]}, "one string"),
        ({"queries": ["a"], "query": "a"}, "there must be"),
        ({"queries": [1]}, "a list of strings"),
        ({"query": "a", "topk": -1}, "`topk`"),
        ({"query": "a", "topk": True}, "`topk`"),
        ({"query": "a", "topk": "3"}, "`topk`"),
        ({"query": "a", "return_scores": 1}, "`return_scores`"),
    ],
)
def test_a_wrong_request_is_refused_with_a_sentence(
    server: Server, body: Any, message: str
) -> None:
    status, result = post(server.address, body)
    assert status == 422
    assert message in result["detail"]


def test_other_addresses_methods_and_bodies(server: Server) -> None:
    assert post(server.address + "s", {})[0] == 404
    assert post(server.address, None, raw=b"{")[0] == 422
    assert post(server.address, None, raw=b"\xff\xfe")[0] == 422
    assert post(server.address, None, raw=b"[" * 100_000)[0] == 422
    assert post(server.address, None, method="GET")[0] == 405
    status, result = post(server.address, None, raw=b"", headers={"Content-Length": str(10**9)})
    assert (status, "at most" in result["detail"]) == (413, True)
    assert post(server.address, None, raw=b"", headers={"Content-Length": "x"})[0] == 411
    assert post(server.address, None, raw=b"", headers={"Content-Length": "9" * 5000})[0] == 413


def test_a_client_that_goes_away_is_no_error(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither before its request is whole nor before it has the answer."""
    body = json.dumps({"queries": ["river"] * 100, "topk": 100}).encode()
    before = set(threading.enumerate())  # such as those of other tests' servers
    for sent in (b"", body):
        gone = socket.create_connection(server.server_address[:2])
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        head = f"POST /retrieve HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        gone.sendall(head.encode() + sent)
        time.sleep(0.1)  # so that the server reads
        gone.close()
    deadline = time.monotonic() + 60
    while any("process_request_thread" in t.name for t in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert post(server.address, {"query": "river"})[0] == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dialect", ["queries", "query"])
def test_the_client_gets_what_the_retriever_finds(server: Server, dialect: Any) -> None:
    local = build(small(), "lucene")
    with Server(local, port=0) as own:
        remote = Remote(own.address, dialect=dialect)
        queries = [small()[n].title for n in range(0, 240, 30)] + ["", "\ud800 é 🚪", "zzz"]
        assert remote.search(queries, 4) == local.search(queries, 4)
        assert remote.search([], 3) == []
        assert remote.search(["a"], 0) == [[]]


def test_many_threads_ask_at_once(server: Server, local: Local) -> None:
    remote, wrong = Remote(server.address), []
    expected = local.search(["river of oslo", "lima"], 3)

    def ask() -> None:
        for _ in range(20):
            if remote.search(["river of oslo", "lima"], 3) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Odd(BaseHTTPRequestHandler):
    """Answers what it is told, and counts."""

    protocol_version = "HTTP/1.1"
    timeout = 3  # a test that fails keeps its connection open
    answers: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[dict[str, Any]]] = []
    keep = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(json.loads(body))
        status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
        self.close_connection = not self.keep

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Odd.asked.clear()
    yield f"http://127.0.0.1:{server.server_address[1]}/retrieve"
    server.shutdown()
    thread.join()
    server.server_close()


GOOD = json.dumps(
    {"result": [[{"document": {"title": "x", "contents": '"Oslo"\nA.'}, "score": 2}]]}
)


def test_the_body_is_that_of_the_dialect(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "answers", [(200, GOOD)])
    (hits,) = Remote(odd).search(["oslo"], 3)
    Remote(odd, dialect="query").search(["oslo"], 3)
    assert Odd.asked == [
        {"queries": ["oslo"], "topk": 3, "return_scores": True},
        {"query": "oslo", "topk": 3, "return_scores": True},
    ]
    assert (hits[0].passage.title, hits[0].score) == ("Oslo", 2.0)
    assert isinstance(hits[0], Hit)


def test_a_server_that_is_busy_or_hangs_up_is_asked_again(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(Odd, "answers", [(503, "busy"), (429, "busy"), (200, GOOD)])
    assert len(Remote(odd, retries=2).search(["a"], 3)[0]) == 1
    monkeypatch.setattr(Odd, "answers", [(503, "busy")])
    with pytest.raises(ServerError, match="HTTP 503: busy"):
        Remote(odd, retries=2).search(["a"], 3)
    assert len(Odd.asked) == 6
    monkeypatch.setattr(Odd, "answers", [(200, GOOD)])
    monkeypatch.setattr(Odd, "keep", False)
    remote = Remote(odd, retries=0)
    for _ in range(3):
        assert len(remote.search(["a"], 3)[0]) == 1


@pytest.mark.parametrize(
    "message",
    [
        "no",
        "[]",
        "{}",
        '{"result": []}',
        '{"result": [3]}',
        '{"result": [[3]]}',
        '{"result": [[{"score": 1}]]}',
        '{"result": [[{"document": {"id": 3}, "score": 1}]]}',
        '{"result": [[{"document": {"id": "a", "contents": "b"}, "score": "x"}]]}',
        '{"result": [[{"document": {"id": "a", "contents": "b"}, "score": 1%s}]]}' % ("0" * 400),
        '{"result": [[{"id": "a", "contents": "b"}]]}',
    ],
)
def test_another_answer_is_an_error(
    odd: str, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setattr(Odd, "answers", [(200, message)])
    with pytest.raises(ServerError, match=r"answered|Search-R1 retriever"):
        Remote(odd).search(["a"], 3)


def test_a_wrong_dialect_or_address_is_reported(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "answers", [(422, '{"detail": "field required: query"}')])
    with pytest.raises(EnvError, match=r"HTTP 422.*field required: query.*dialect"):
        Remote(odd).search(["a"], 3)
    assert len(Odd.asked) == 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/retrieve"
    with pytest.raises(ServerError, match="did not answer"):
        Remote(url, retries=0).search(["a"], 3)
    for wrong in ("", "localhost:8000", "ftp://x/y", "http:///retrieve"):
        with pytest.raises(ConfigError, match=r"env\.options\.url is not the address of a server"):
            Remote(wrong)


def test_a_server_listens_on_ipv6(local: Local) -> None:
    try:
        with socket.socket(socket.AF_INET6) as free:
            free.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Server(local, host="::1", port=0) as server:
        assert server.address.startswith("http://[::1]:")
        found = Remote(server.address, retries=0).search(["oslo"], 2)
    assert [hit.passage for hit in found[0]] == [h.passage for h in local.search(["oslo"], 2)[0]]


def test_questions_can_be_played_against_a_server() -> None:
    own = SearchQA(size="small", train=40, dev=0, test=0, retriever="lucene")
    with Server(build(small(), "lucene"), port=0) as result:
        suite = SearchQA(size="small", train=40, dev=0, test=0, url=result.address, dialect="query")
        for task in suite.tasks("train")[:8]:
            assert suite.demonstrate(task) == own.demonstrate(task)
            env, other = suite.make(), own.make()
            assert env.reset(task) == other.reset(task)
            for action in own.plan(task):
                assert env.step(action) == other.step(action)


def test_the_command_serves() -> None:
    command = [
        sys.executable,
        "-m",
        "tutelage_worlds.search_qa",
        "serve",
        "--port",
        "0",
        "--retriever",
        "lucene",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        address, _, rest = line.partition(": ")
        assert rest == "2400 passages, lucene\n"
        status, result = post(address, {"query": TOWNS[0].title})
        process.terminate()
    assert (status, len(result["result"])) == (200, 1)
