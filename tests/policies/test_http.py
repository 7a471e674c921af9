"""Requests to a server that fails in every way one can: tried again where that helps, a few at a
time, never longer than was said, and one sentence in the end."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from support.fake_servers import HASTY, client, listed

from tutelage.errors import PolicyError
from tutelage.policies.server.http import Client, RequestOptions

GOOD = {"well": 1}


@pytest.mark.parametrize("bad", [408, 425, 429, 500, 502, 503, 504, 520, 529, "drop", "half"])
def test_what_may_pass_is_tried_again(bad: object) -> None:
    with listed(bad, bad, GOOD) as server:
        assert client(server.port).ask("/x", {"a": 1}).result(20) == GOOD
        # a line that breaks on its first request is tried again like any failure
        assert [(path, body) for path, body, _ in server.asked] == [("/x", {"a": 1})] * 3


@pytest.mark.parametrize("bad", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not(bad: int) -> None:
    with listed(bad, GOOD) as server:
        error = client(server.port).ask("/x").exception(20)
        assert isinstance(error, PolicyError)
        assert f"answered {bad} (no {bad})" in str(error)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("bad", "fix"),
    [
        (401, "policies.teacher.key"),
        (404, "fix the address in policies.teacher.model"),
        (429, "lower rollout.concurrency"),
        (500, "--resume"),
        ("drop", "start it or fix the address in policies.teacher.model"),
        (b"<html>", "fix the address in policies.teacher.model"),
    ],
)
def test_an_error_is_a_sentence_with_a_cure(bad: object, fix: str) -> None:
    with listed(bad) as server:
        message = str(client(server.port).ask("/x").exception(20))
        assert message.startswith(
            f"the server of policies.teacher at http://127.0.0.1:{server.port} "
        )
        assert fix in message
        assert "\n" not in message


def test_attempts_are_counted_and_end() -> None:
    with listed(503) as server:
        message = str(
            client(server.port, options=replace(HASTY, retries=2)).ask("/x").exception(20)
        )
        assert len(server.asked) == 3
        assert "answered 503 (no 503), 3 times" in message


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        message = str(client(free.getsockname()[1]).ask("/x").exception(20))
    assert "refused the connection, 4 times" in message


@pytest.mark.parametrize("slow", ["stall", "drip"])
def test_an_attempt_has_a_deadline_even_where_an_answer_comes_in_drops(slow: str) -> None:
    options = replace(HASTY, deadline=0.3, retries=1)
    with listed(slow) as server:
        since = time.monotonic()
        message = str(client(server.port, options=options).ask("/x").exception(60))
        took = time.monotonic() - since
        assert "did not answer within 0.3 s, 2 times" in message
        assert "use a faster server" in message
        assert took >= 0.6


def test_every_request_on_a_line_has_the_whole_deadline() -> None:
    options = replace(HASTY, deadline=1.9, retries=0, concurrent=1)
    with listed("stall") as server:  # a second
        of = client(server.port, options=options)
        assert [of.ask("/x").result(20) for _ in range(2)] == ["stall", "stall"]


def test_a_deadline_that_passed_once_may_be_met_the_next_time() -> None:
    with listed("stall", GOOD) as server:
        asked = client(server.port, options=replace(HASTY, deadline=0.8)).ask("/x")
        assert asked.result(20) == GOOD


def test_pauses_grow_with_jitter_that_a_seed_fixes(monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(HASTY, retries=9, pause=0.5)
    slept: list[float] = []
    monkeypatch.setattr("tutelage.policies.server.http.time.sleep", slept.append)

    def pauses(seed: int) -> list[float]:
        slept.clear()
        with listed(500) as server:
            client(server.port, options=replace(options, seed=seed)).ask("/x").exception(20)
        return [*slept]

    one, again, other = pauses(1), pauses(1), pauses(2)
    assert one == again != other
    assert len(one) == 9
    for k, pause in enumerate(one):
        assert min(30, 0.25 * 2**k) <= pause <= min(30, 0.5 * 2**k)
    assert len({pause / 2**k for k, pause in enumerate(one[:6])}) == 6


def test_a_server_says_how_long_it_wants_to_be_left_alone() -> None:
    with listed((429, {"Retry-After": "1"}), GOOD) as server:
        assert client(server.port).ask("/x").result(20) == GOOD
        assert server.at[1] - server.at[0] >= 1.0


def test_only_so_many_are_under_way() -> None:
    with listed("stall") as server:
        of = client(server.port, options=replace(HASTY, concurrent=3))
        for answer in [of.ask("/x", {"k": k}) for k in range(5)]:
            assert answer.result(20) == "stall"
        assert server.most == 3
        assert len(of.workers) == 3


def test_what_may_come_later_is_sent_last() -> None:
    with listed("stall", GOOD) as server:
        of = client(server.port, options=replace(HASTY, concurrent=1))
        first = of.ask("/first")
        while not server.asked:
            time.sleep(0.001)
        later = [of.ask(f"/later{k}", low_priority=True) for k in range(2)]
        now = [of.ask(f"/now{k}") for k in range(2)]
        for answer in (first, *later, *now):
            answer.result(20)
        paths = [path for path, _, _ in server.asked]
        assert paths == ["/first", "/now0", "/now1", "/later0", "/later1"]


def test_lines_are_kept_and_renewed() -> None:
    with listed(GOOD, "drop", GOOD) as server:
        of = client(server.port, options=replace(HASTY, retries=0, concurrent=1))
        for _ in range(3):  # the second finds its line closed, and takes a new one at once
            assert of.ask("/x").result(20) == GOOD


def test_requests_that_nobody_waits_for_are_not_made() -> None:
    with listed("stall", GOOD) as server:
        of = client(server.port, options=replace(HASTY, concurrent=1))
        first, second, third = of.ask("/1"), of.ask("/2"), of.ask("/3")
        second.cancel()
        assert first.result(20) == "stall"
        assert third.result(20) == GOOD
        assert [path for path, _, _ in server.asked] == ["/1", "/3"]


def test_the_key_is_sent_and_a_path_before_v1_is_kept() -> None:
    with listed(GOOD) as server:
        client(server.port, key="s3cret", path="/proxy/v1/").ask("/v1/models").result(20)
        path, _, headers = server.asked[0]
        assert path == "/proxy/v1/models"
        assert headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "nonsense"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(PolicyError, match=r"policies\.teacher\.model is not the address"):
        Client(url, name="policies.teacher")


@contextmanager
def raw_answers(first: bytes, then: bytes) -> Iterator[int]:
    """The port of a server that sends `first`, then `then` byte by byte without end."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(first)
            while then and not over.wait(0.01):
                connection.sendall(then)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.close()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"HTTP/1.1 200 ", b"O"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n[", b" "),
    ],
    ids=["status", "header", "continue", "body"],
)
def test_the_deadline_holds_for_every_part_of_an_answer(first: bytes, then: bytes) -> None:
    """A byte now and then begins a socket's own timeout anew, so that it never ends."""
    with raw_answers(first, then) as port:
        asking = client(port, options=RequestOptions(deadline=0.3, retries=0)).ask("/v1/models")
        with pytest.raises(PolicyError, match=r"did not answer within 0\.3 s"):
            asking.result(timeout=20)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "sent something that is not HTTP; start it or fix"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "sent something that is not HTTP; start it or fix"),
        (
            b"HTTP/1.1 307 T\r\nLocation: https://other.example/sk-1234567890\r\n\r\n",
            "answered 307 (it points to https://other.example/***); write its final address into",
        ),
        (
            b"HTTP/1.1 302 T\r\nLocation: /login?key=sk-1234567890\r\n\r\n",
            "answered 302 (it points elsewhere); write its final address into",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00",
            "in the encoding gzip, for which it was not asked; turn off compression there",
        ),
        (
            b'HTTP/1.1 400 B\r\n\r\n{"error": "\\u001b[2J\\u001b]0;x\\u0007no\\u202e"}',
            "answered 400 ([2J ]0;x no); look at its log",
        ),
    ],
    ids=["ssh", "tls", "elsewhere", "login", "gzip", "control characters"],
)
def test_an_odd_answer_is_one_sentence(answer: bytes, sentence: str) -> None:
    with raw_answers(answer, b"") as port:
        asking = client(port, options=RequestOptions(deadline=5.0, retries=0)).ask("/v1/models")
        with pytest.raises(PolicyError) as refused:
            asking.result(timeout=20)
    assert sentence in str(refused.value)
    assert "sk-1234567890" not in str(refused.value)
    assert str(refused.value).isprintable()
