"""Customers: the scripted one's rules, one played by a model, and a model behind a server."""

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tutelage.errors import ConfigError, EnvError
from tutelage.types import Message
from tutelage_worlds.tau_bench import STOP, Scripted, Simulated, TauBench
from tutelage_worlds.tau_bench.customers import BRIEF, GREETING, MORE, NO_EMAIL, customer
from tutelage_worlds.tau_bench.endpoint import endpoint
from tutelage_worlds.tau_bench.scenario import Scenario
from tutelage_worlds.tau_bench.tools import Call

PLOT = Scenario(
    id="t",
    user_id="u",
    instruction="You are Ann from zip code 12345. Be brief.",
    actions=(
        Call(name="look", kwargs={"order_id": "#W1"}),
        Call(name="cancel_pending_order", kwargs={"order_id": "#W1", "reason": "bored"}),
        Call(
            name="x",
            kwargs={
                "order_id": "#W2",
                "payment_method_id": "paypal_1",
                "address1": "1 Road",
                "zip": "54321",
            },
        ),
    ),
    outputs=("12.5", "red"),
    identity="I am Ann from zip code 12345.",
    requests=("Cancel #W1.", "Change #W2."),
)
WHO = PLOT.identity


@pytest.mark.parametrize(
    "talk",
    [
        [("May I have your e-mail address?", f"{NO_EMAIL} {WHO}"), ("Your name?", "Yes.")],
        [("Your email or zip?", WHO), ("What is your name?", WHO)],
        [("Who am I talking to?", WHO), ("Shall I cancel it (yes/no)?", "Yes.")],
        [("Cancelled.", "Change #W2."), ("Changed.", STOP)],
        [("Is there anything else?", "Change #W2."), ("Anything else?", STOP)],
        [("Let me check.", MORE), ("One moment please.", MORE), ("Cancelled.", "Change #W2.")],
        [("Which order?", "#W1, #W2."), ("Why?", "bored."), ("What is the reason?", "bored.")],
        [("How would you like to pay?", "paypal_1."), ("Where to?", "1 Road, 54321.")],
        [("What do you mean?", "Cancel #W1."), ("Are you sure?", "Yes.")],
        [("It is 12.5.", MORE), ("And red?", "Change #W2."), ("It is 12.5.", STOP)],
        [("12.5, red", "Change #W2.")],
        [("", "Change #W2.")],
    ],
)
def test_the_scripted_customer(talk: list[tuple[str, str]]) -> None:
    ann = Scripted()
    for _ in range(2):
        assert ann.open(PLOT) == "Hello! Cancel #W1."
        assert [ann.answer(content) for content, _ in talk] == [answer for _, answer in talk]


def test_a_scripted_customer_without_facts_still_talks() -> None:
    ann = Scripted()
    nobody = Scenario(id="t", user_id="", instruction="", actions=())
    assert ann.open(nobody) == "Hello! Can you help me?"
    assert ann.answer("What is your name?")
    assert ann.answer("What is it about?") == MORE
    assert ann.answer("Done.") == STOP


def test_keys_are_equal_for_conversations_that_go_on_alike() -> None:
    one, two = Scripted(), Scripted()
    one.open(PLOT)
    two.open(PLOT)
    one.answer("Let me check.")
    assert one.key() == two.key()
    for content in ("Your name?", "12.5", "Done."):
        one.answer(content)
        assert one.key() != two.key()
        two.answer(content)
        assert one.key() == two.key()


# -- models


def test_a_model_is_told_the_task_and_sees_the_words_alone() -> None:
    heard: list[Sequence[Message]] = []

    def reply(messages: Sequence[Message]) -> str:
        heard.append(messages)
        return ["<think>who?</think> Hi.", "<think>cut off", "Bye " + STOP][len(heard) - 1]

    ann = Simulated(reply)
    assert [ann.open(PLOT), ann.answer("Well?"), ann.answer("Done.")] == [
        "Hi.",
        MORE,
        "Bye " + STOP,
    ]
    assert heard[0] == (
        Message("system", BRIEF.format(instruction=PLOT.instruction, stop=STOP)),
        Message("user", GREETING),
    )
    assert [m.role for m in heard[-1]] == ["system", *["user", "assistant"] * 2, "user"]
    assert ann.key() == ("Hi.", "Well?", MORE, "Done.", "Bye " + STOP)
    heard.clear()
    assert ann.open(PLOT) == "Hi."
    assert len(heard[0]) == 2


def echo(word: str = "Yes.") -> Any:
    return lambda messages: word


def test_customers_of_your_own_are_named_by_path() -> None:
    path = f"{__name__}:echo"
    suite = TauBench(size="small", user=path, user_options={"word": "No. " + STOP})
    env = suite.make()
    assert env.reset(suite.tasks("train")[0]).done is False
    assert env.step("Hello").done
    assert isinstance(customer("scripted", {}), Scripted)
    with pytest.raises(ConfigError, match=r"user_options does not fit .*:echo"):
        customer(path, {"x": 1})
    with pytest.raises(ConfigError, match="nowhere could not be imported"):
        customer("nowhere:f", {})
    with pytest.raises(ConfigError, match="has no function 'f'"):
        customer(f"{__name__}:f", {})


# -- a server


CUT = 201  # with fewer bytes than it says


class Handler(BaseHTTPRequestHandler):
    answers: list[tuple[int, bytes]] = []  # noqa: RUF012
    asked: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers.get("Authorization"), json.loads(body)))
        status, answer = self.answers.pop(0)
        self.send_response(status)
        if status == CUT:
            self.send_header("Content-Length", str(len(answer) + 100))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.answers, Handler.asked = [], []
    result = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=result.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{result.server_port}/v1/"
    result.shutdown()
    result.server_close()


def answer(content: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def test_a_server_is_asked_as_openai_is(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sesame")
    reply = endpoint(url=server, model="m", key_variable="A_KEY", temperature=0.5, max_tokens=9)
    Handler.answers = [(200, answer("Hé.")), (200, answer(None))]
    assert reply([Message("system", "s"), Message("user", "ü")]) == "Hé."
    assert reply([Message("user", "u")]) == ""
    assert Handler.asked[0] == (
        "/v1/chat/completions",
        "Bearer sesame",
        {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ü"}],
            "temperature": 0.5,
            "max_tokens": 9,
        },
    )


def test_a_busy_server_is_asked_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    reply = endpoint(url=server, model="m")
    Handler.answers = [(503, b""), (429, b""), (200, answer("Yes."))]
    assert reply([Message("user", "u")]) == "Yes."
    assert waited == [1.0, 2.0]
    waited.clear()
    Handler.answers = [(500, b"")] * 3
    with pytest.raises(EnvError, match=r"did not answer \(HTTP 500\)"):
        reply([Message("user", "u")])
    assert waited == [1.0, 2.0], "after the last there is nothing to wait for"
    Handler.answers = [(401, b""), (200, answer("no"))]
    with pytest.raises(EnvError, match=r"did not answer \(HTTP 401\); check user_options.url"):
        reply([Message("user", "u")])
    assert len(Handler.answers) == 1, "a key that is wrong is not tried again"


def test_an_answer_that_breaks_off_is_asked_for_again(server: str) -> None:
    Handler.answers = [(CUT, answer("Y")), (200, answer("Yes."))]
    assert endpoint(url=server, model="m", retries=1)([Message("user", "u")]) == "Yes."
    Handler.answers = [(CUT, answer("Y"))]
    with pytest.raises(EnvError, match=r"did not answer \(IncompleteRead"):
        endpoint(url=server, model="m", retries=0)([Message("user", "u")])


@pytest.mark.parametrize(
    "answer", [b"<html>", b"{}", b"[]", b'{"choices": []}', b"[" * 100_000, b"\xff"]
)
def test_a_server_that_is_no_such_server(server: str, answer: bytes) -> None:
    Handler.answers = [(200, answer)]
    with pytest.raises(EnvError, match="something else than a chat completion"):
        endpoint(url=server, model="m")([Message("user", "u")])


def test_settings_of_a_server_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(ConfigError, match="is not the address of a server"):
        endpoint(url="localhost", model="m")
    with pytest.raises(
        ConfigError, match="key_variable names an environment variable that is not set"
    ):
        endpoint(url="http://localhost", model="m", key_variable="A_KEY")
    for name, value in (
        ("retries", -1),
        ("retries", "2"),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("seconds", 0),
        ("seconds", float("inf")),
        ("seconds", "60"),
    ):
        with pytest.raises(ConfigError, match=rf"env.options.user_options.{name} must be"):
            endpoint(url="http://localhost", model="m", **{name: value})  # type: ignore[arg-type]
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(EnvError, match="did not answer"):
        endpoint(url="http://127.0.0.1:9", model="m", retries=1)([Message("user", "u")])
