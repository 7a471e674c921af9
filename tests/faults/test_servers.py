"""Servers that answer anything, keys that anybody could repeat, and clients that send anything."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fake_servers import client, listed, serving
from support.tiny_models import policy, small_chat

from tutelage.cli.main import main
from tutelage.envs.addresses import address, key_in
from tutelage.errors import ConfigError, PolicyError, TutelageError
from tutelage.policies.server import http
from tutelage.policies.server.http import Client, RequestOptions
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.serve import MAX_REQUEST_BYTES, Server
from tutelage.policies.server.vllm import write
from tutelage.runs.models import client_of, locate

KEY = "sk-SECRET-9f8e7d"
ONCE = RequestOptions(concurrent=2, deadline=5.0, retries=0, pause=0.01)


def error_of(asker: Client, path: str = "/v1/models") -> str:
    """What a request that fails says: one line, without the key, in time."""
    error = asker.ask(path).exception(30)
    assert isinstance(error, PolicyError), error
    message = str(error)
    assert "\n" not in message
    assert KEY not in message
    return message


# -- keys


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "  {}", "\t{}\n\n"])
def test_line_ends_around_a_key_are_stripped(around: str) -> None:
    assert key_in("K", where="key", environment={"K": around.format(KEY)}) == KEY


@pytest.mark.parametrize(
    "key", [KEY + "\r\nX-Evil: 1", KEY + "\u20ac", KEY + "\udcff", KEY + " a", "\n", ""]
)
def test_a_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        key_in("VARIABLE", where="policies.teacher.key", environment={"VARIABLE": key})
    assert KEY not in str(refusal.value)
    assert "policies.teacher.key" in str(refusal.value)


@pytest.mark.parametrize("name", [KEY, "hf_SECRET9f8e7d", "AKIASECRET", "A=B", "\0"])
def test_a_key_in_the_place_of_its_variable_is_not_shown(name: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        client_of(name, "http://127.0.0.1:1", where="policies.teacher", seed=0)
    assert name not in str(refusal.value)
    assert "policies.teacher.key" in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{KEY}@127.0.0.1:1",
        f"http://{KEY}@127.0.0.1:1",
        f"http://127.0.0.1:1/?key={KEY}",
        f"http://127.0.0.1:1/v1#{KEY}",
        f"http://127.0.0.1:{KEY}",
        f"ftp://{KEY}@x",
        f"http://[{KEY}",
        f"http://{KEY}..x",
    ],
)
def test_a_key_in_the_address_is_not_shown(url: str) -> None:
    with pytest.raises(TutelageError) as refusal:
        Client(url, name="policies.teacher", key=KEY)
    assert KEY not in str(refusal.value)
    assert KEY.lower() not in str(refusal.value)


@pytest.mark.parametrize(
    "model",
    [
        f"ftp://u:{KEY}@x",
        f"ws://127.0.0.1/{KEY}",
        f"u:{KEY}@127.0.0.1:9/v1",
        f"http:/u:{KEY}@x",
        f"http:\\\\u:{KEY}@x",
        f" http://u:{KEY}@x/v1",
    ],
)
def test_a_key_in_what_is_almost_an_address_is_not_shown(model: str) -> None:
    with pytest.raises(ConfigError, match="looks like a server's address, but does not") as refusal:
        locate(model, where="policies.teacher")
    assert KEY not in str(refusal.value)


@pytest.mark.parametrize("path", [f"/{KEY}/v1", f"/v1;key={KEY}"])
def test_a_key_in_the_path_of_an_address_is_used_and_not_shown(path: str) -> None:
    found = address(f"http://127.0.0.1:9{path}", where="policies.teacher")
    assert (found.path, KEY in found.shown) == (path, False)
    assert address("http://x:9/api/v1", where="").shown == "http://x:9/api/v1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "body", [{"error": f"bad key Bearer {KEY}"}, {"error": {"message": KEY * 30}}, [KEY], KEY]
)
def test_a_key_that_a_server_repeats_is_not_shown(status: int, body: Any) -> None:
    with listed((status, {"X-Key": KEY}, body)) as server:
        message = error_of(client(server.port, options=ONCE, key=KEY))
    assert str(status) in message


def test_a_model_s_name_that_holds_the_key_is_not_shown() -> None:
    with listed({"data": [{"id": f"model-{KEY}", "max_model_len": 512}]}) as server:
        asker = Client(f"http://127.0.0.1:{server.port}", name="policies.teacher", key=KEY)
        with pytest.raises(PolicyError) as refusal:
            RemotePolicy(asker, small_chat(), model="other").connect()
    assert KEY not in str(refusal.value)


# -- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:65536",
        "http://127.0.0.1:-1",
        "http://127.0.0.1:abc",
        "http://[::1",
        "http://[zz]",
        "http://" + "a" * 70,
        "http://a..b",
        "http://127.0.0.1:9/\u20ac",
        "http://",
        "127.0.0.1:8000",
        "http:///x",
        "http://127.0.0.1:9/a b",
    ],
)
def test_an_address_that_is_none_is_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        address(url, where="policies.teacher.model")
    assert str(refusal.value).startswith("policies.teacher.model")
    assert "\n" not in str(refusal.value)


# -- answers


NESTED = b"[" * 200_000
ANSWERS: dict[str, Any] = {
    "an array, nested": NESTED,
    "objects, nested": b'{"error":' * 200_000,
    "an error, nested": (400, {}, NESTED),
    "no JSON": b"<html>",
    "no UTF-8": b'"\xff"',
    "a long number": b"1" * 5000,
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_none_ends_the_request(case: str) -> None:
    with listed(ANSWERS[case]) as server:
        began = time.monotonic()
        error_of(client(server.port, options=ONCE))
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "header", ["\u00b2", "-1", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 400, "nan", "0x10", ""]
)
def test_an_odd_retry_after_is_no_wait(header: str) -> None:
    assert http._seconds(header) in (0.0, http.MAX_PAUSE)


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1 << 20)
    with listed(b"x" * (3 << 20)) as server:
        assert "sent more than 1 MB" in error_of(client(server.port, options=ONCE))


NO_LENGTHS = {
    "-1": "sent a Content-Length of '-1', which is no number of bytes",
    "two": "sent a Content-Length of 'two', which is no number of bytes",
    "1e1": "sent a Content-Length of '1e1', which is no number of bytes",
}


def raw_answer(head: str, body: bytes = b'{"data": []}', host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server that answers one connection with these bytes, and leaves it open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        done = threading.Event()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(head.encode() + body)
                done.wait(30)

        thread = threading.Thread(target=answer)
        thread.start()
        yield int(server.getsockname()[1])
        done.set()
        thread.join()


@pytest.mark.parametrize("length", NO_LENGTHS)
def test_a_length_that_is_none_is_not_waited_for(length: str) -> None:
    once = RequestOptions(concurrent=1, deadline=20.0, retries=0)
    with contextmanager(raw_answer)(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n") as port:
        began = time.monotonic()
        assert NO_LENGTHS[length] in error_of(client(port, options=once))
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("early", ["103 Early Hints", "102 Processing", "199 Later"])
def test_an_answer_before_the_answer_is_skipped(early: str) -> None:
    head = (
        f"HTTP/1.1 {early}\r\nLink: </x>\r\n\r\n" * 3
        + "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"
    )
    with contextmanager(raw_answer)(head) as port:
        assert client(port, options=ONCE).ask("/v1/models").result(30) == {"data": []}


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_not_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listed({"data": []}) as server:
        monkeypatch.setenv(name, f"http://user:{KEY}@127.0.0.1:1")
        assert client(server.port, options=ONCE).ask("/v1/models").result(30) == {"data": []}


def test_a_server_at_an_address_of_ipv6_is_asked() -> None:
    with contextmanager(raw_answer)(
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", host="::1"
    ) as port:
        asker = Client(f"http://[::1]:{port}/v1", name="policies.teacher", options=ONCE)
        assert asker.ask("/v1/models").result(30) == {"data": []}
        assert asker.url == f"http://[::1]:{port}/v1"
    with serving(policy(), host="::1") as server:
        asker = Client(f"http://[::1]:{server.port}", name="policies.teacher", options=ONCE)
        assert asker.ask("/v1/models").result(30)["data"][0]["id"] == "small"


def test_no_request_waits_for_a_thread_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised inside, the future has it, and the next request is answered."""
    with listed({"data": []}) as server:
        asker = client(server.port, options=RequestOptions(concurrent=1, retries=0))
        exchange = asker._exchange

        def broken(*_: Any) -> Any:
            raise RecursionError("inside")

        monkeypatch.setattr(asker, "_exchange", broken)
        assert "could not be asked" in error_of(asker)
        monkeypatch.setattr(asker, "_exchange", exchange)
        assert asker.ask("/v1/models").result(10) == {"data": []}


LENGTHS = ["long", ["long"], 3, 2, -1, 0, float("nan"), float("inf"), None, True, 1e300, {}]


@pytest.mark.parametrize("length", LENGTHS, ids=repr)
def test_a_context_that_is_none_is_one_sentence(length: object) -> None:
    models = {"data": [{"id": "small", "max_model_len": length}]}
    with listed(models) as server, pytest.raises(PolicyError, match="max_model_len") as refusal:
        RemotePolicy(client(server.port, options=ONCE), small_chat()).connect()
    assert "\n" not in str(refusal.value)


# -- our server, and its clients


def sent(server: Server, raw: bytes, seconds: float = 10.0) -> bytes:
    """What it answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(raw)
        with contextlib.suppress(OSError):  # it has answered and closed already
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def post(path: str, body: bytes, headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


BODIES: dict[str, tuple[str, bytes]] = {
    "a list": ("/v1/completions", b"[]"),
    "a text": ("/v1/completions", b'"x"'),
    "null": ("/tokenize", b"null"),
    "a list to tokenize": ("/tokenize", b"[1]"),
    "a number to tokenize": ("/tokenize", b'{"prompt": 3}'),
    "half a surrogate pair": ("/tokenize", b'{"prompt": "\\ud800"}'),
    "nested": ("/v1/completions", b"[" * 100_000),
    "no JSON": ("/v1/completions", b"{"),
    "no UTF-8": ("/v1/completions", b"\xff"),
    "kwargs a list": ("/collective_rpc", b'{"method": "reload_weights", "kwargs": [1]}'),
    "kwargs a text": ("/collective_rpc", b'{"method": "reload_weights", "kwargs": "x"}'),
    "a path that is a number": (
        "/collective_rpc",
        b'{"method": "reload_weights", "kwargs": {"weights_path": 3}}',
    ),
    "a path that is a list": (
        "/collective_rpc",
        b'{"method": "reload_weights", "kwargs": {"weights_path": [1]}}',
    ),
    "a path with NUL": (
        "/collective_rpc",
        b'{"method": "reload_weights", "kwargs": {"weights_path": "a\\u0000"}}',
    ),
    "a huge seed": ("/v1/completions", b'{"prompt": [3], "seed": ' + b"9" * 300 + b"}"),
    "a tiny temperature": ("/v1/completions", b'{"prompt": [3], "temperature": 1e-300}'),
    "a huge token": ("/v1/completions", b'{"prompt": [' + b"9" * 100 + b"]}"),
    "nothing to tokenize": ("/tokenize", b"{}"),
    "no body": ("/v1/completions", b""),
    "NaN": ("/v1/completions", b'{"prompt": [3], "temperature": NaN}'),
    "an endless number": ("/v1/completions", b'{"prompt": [3], "max_tokens": 1e400}'),
    "a number of 5,000 digits": (
        "/v1/completions",
        b'{"prompt": [3], "max_tokens": ' + b"9" * 5000 + b"}",
    ),
    "no tokens at all": ("/v1/completions", b'{"prompt": [3], "max_tokens": -1}'),
    "a boolean token": ("/v1/completions", b'{"prompt": [true]}'),
    "a text as number": ("/v1/completions", b'{"prompt": [3], "max_tokens": "5"}'),
    "an empty prompt": ("/v1/completions", b'{"prompt": []}'),
    "another model": ("/v1/completions", b'{"prompt": [3], "model": "nope"}'),
    "a long text": ("/v1/completions", json.dumps({"prompt": "word " * 400_000}).encode()),
    "two objects": ("/v1/completions", b"{}{}"),
    "compressed": ("/v1/completions", b"\x1f\x8b\x08"),
    "no messages": ("/v1/chat/completions", b'{"messages": []}'),
    "messages null": ("/v1/chat/completions", b'{"messages": null}'),
    "content null": ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": null}]}'),
    "another role": ("/v1/chat/completions", b'{"messages": [{"role": "tool", "content": "a"}]}'),
    "a system message alone": (
        "/v1/chat/completions",
        b'{"messages": [{"role": "system", "content": "a"}]}',
    ),
    "a stream": (
        "/v1/chat/completions",
        b'{"messages": [{"role": "user", "content": "a"}], "stream": true}',
    ),
    **{
        f"half a surrogate pair of the {role}": (
            "/v1/chat/completions",
            json.dumps(
                {
                    "messages": [
                        {"role": "system", "content": "\ud800" if role == "system" else "a"},
                        {"role": "user", "content": "a"},
                        {"role": "assistant", "content": "\ud800" if role == "assistant" else "a"},
                        {"role": "user", "content": "\ud800" if role == "user" else "a"},
                    ]
                }
            ).encode(),
        )
        for role in ("system", "user", "assistant")
    },
    "a long message": (
        "/v1/chat/completions",
        json.dumps({"messages": [{"role": "user", "content": "word " * 400_000}]}).encode(),
    ),
    "many messages": (
        "/v1/chat/completions",
        json.dumps(
            {
                "messages": [
                    {"role": ("user", "assistant")[k % 2], "content": "a"} for k in range(40_001)
                ]
            }
        ).encode(),
    ),
}
MOST_SECONDS = 5.0
"""Of this process for the answer to any of them."""
HEADS: dict[str, bytes] = {
    "HEAD": b"HEAD /health HTTP/1.1\r\n\r\n",
    "OPTIONS": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "PUT": b"PUT /tokenize HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "no method": b"NONSENSE /tokenize HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"DELETE /tokenize\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00 \x01 \x02 \r\n\r\n",
    "a long address": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "10,000 headers": b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    "two lengths": b"POST /tokenize HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "a body that is cut": b"POST /tokenize HTTP/1.1\r\nContent-Length: 40\r\n\r\n{}",
    "no length": b'POST /v1/completions HTTP/1.1\r\n\r\n{"prompt": [3]}',
    "a length in other digits": "POST /tokenize HTTP/1.1\r\nContent-Length: \u0663\r\n\r\n".encode(),
    "a signed length": b"POST /tokenize HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}",
    "chunks": b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "nothing there": b"GET /nope HTTP/1.1\r\n\r\n",
}


def test_every_malformed_body_gets_a_4xx_and_the_model_goes_on() -> None:
    with serving(policy(), reload=True) as server:
        for case, (path, body) in BODIES.items():
            began = time.process_time()
            answer = sent(server, post(path, body))
            assert answer.startswith(b"HTTP/1.1 4"), (case, answer[:200])
            assert time.process_time() - began < MOST_SECONDS, case
        for case, raw in HEADS.items():
            head, _, body = sent(server, raw).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 4"), (case, head[:200])
            if case != "HEAD":
                assert json.JSONDecoder().raw_decode(body.decode())[0]["error"]["message"], case
        both = b'POST /tokenize HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"prompt": "a"}'
        assert sent(server, both + both).count(b"HTTP/1.1 200") == 2  # one after the other
        for head in ("Content-Length: x", "Content-Length: -5", "Transfer-Encoding: chunked"):
            answer = sent(server, f"POST /tokenize HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 4"), (head, answer[:200])
        answer = sent(server, post("/v1/completions", b'{"prompt": [3, 4], "max_tokens": 2}'))
        assert answer.startswith(b"HTTP/1.1 200")
        assert sent(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_body_that_is_too_long_or_without_the_key_is_not_read() -> None:
    with serving(policy(), key=KEY) as server:
        head = f"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_REQUEST_BYTES}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head.encode())  # and nothing of its body
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401")
        long = f"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {10**11}\r\n\r\n"
        assert sent(server, long.encode()).startswith(b"HTTP/1.1 413")


def test_clients_that_send_nothing_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.policies.server.serve import Handler

    monkeypatch.setattr(Handler, "timeout", 0.5)
    with serving(policy()) as server:
        before = threading.active_count()
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for each in held:
            each.sendall(b"POST /tokenize HTTP/1.1\r\n")
        until = time.monotonic() + 20
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.1)
        assert threading.active_count() <= before
        for each in held:
            each.close()


@pytest.mark.parametrize("place", ["headers", "body"])
def test_a_client_that_sends_for_ever_is_let_go(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.policies.server import serve

    monkeypatch.setattr(serve, "REQUEST_SECONDS", 1.0)
    length = "Content-Length: 4000\r\n\r\n" if place == "body" else ""
    with (
        serving(policy()) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        connection.sendall(f"POST /tokenize HTTP/1.1\r\n{length}".encode())

        def send_on() -> None:
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.1)

        with pytest.raises(ConnectionError):
            send_on()


@pytest.mark.parametrize("damage", [b"garbage", b"", None], ids=["garbage", "empty", "cut"])
def test_weights_that_are_damaged_leave_the_old_ones(damage: bytes | None, tmp_path: Path) -> None:
    write(policy(seed=1), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    wanted = post(
        "/v1/completions",
        b'{"prompt": [3, 4], "max_tokens": 4, "seed": 1, "return_token_ids": true}',
    )
    order = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}

    def tokens(server: Server) -> object:
        body = sent(server, wanted).partition(b"\r\n\r\n")[2]
        return json.loads(body)["choices"][0]["token_ids"]

    with serving(policy(), reload=True) as server:
        before = tokens(server)
        answer = sent(server, post("/collective_rpc", json.dumps(order).encode()))
        assert answer.startswith(b"HTTP/1.1 4"), answer[:300]
        assert tokens(server) == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host", "0.0.0.0"], "a key is needed"),
        (["--host", "::"], "a key is needed"),
        (["--port", "99999"], "--port must be"),
        (["--port", "-1"], "--port must be"),
        (["--key", KEY], "environment variable that is not set"),
    ],
)
def test_a_server_that_nobody_should_start(
    options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "builtin:household-teacher", *options]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert KEY not in message
