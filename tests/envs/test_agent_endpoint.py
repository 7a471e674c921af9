"""The endpoint that agents talk to, and the pool that runs them."""

import asyncio
import concurrent.futures
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import agents

from tutelage.config import trust
from tutelage.envs.agents import tools
from tutelage.envs.agents.pool import AgentPool
from tutelage.envs.agents.suite import Agents
from tutelage.envs.pool import Failure, Reply
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Observation, Stop, Task

pytest.importorskip("starlette")
TASK = agents.tasks("train")[0]


@contextmanager
def pool(run: Any, **options: Any) -> Iterator[AgentPool]:
    agent_pool = AgentPool(run, **options)
    try:
        yield agent_pool
    finally:
        agent_pool.shutdown()


def episode(
    run: Any, answer: Callable[[str], str] = lambda asked: "fine", **options: Any
) -> tuple[list[Observation], Observation | Failure]:
    """What an agent asked, and how it ended."""
    with pool(run, **options) as agents_pool:
        agents_pool.open("k", TASK)
        seen = []
        while True:
            ((key, got),) = agents_pool.poll(block=True)
            assert key == "k"
            if isinstance(got, Failure) or got.done:
                agents_pool.close("k")
                return seen, got
            seen.append(got)
            agents_pool.answer("k", Reply(text=answer(got.text), tokens=(5, 2), version=3))


@pytest.mark.parametrize("run", [agents.solve, agents.solve_async])
def test_an_agent_asks_and_is_paid(run: Any) -> None:
    seen, end = episode(run, lambda asked: "a" if "letter" in asked else "b")
    assert [o.text for o in seen] == ["[system]\nAnswer.\n\n[user]\nletter 0", "again", "again"]
    assert seen[0].call is not None
    assert [m.role for m in seen[0].call.messages] == ["system", "user"]
    assert isinstance(end, Observation)
    assert (end.reward, end.won, end.counts) == (1 / 3, True, ())


def test_what_is_refused_is_answered_and_counted() -> None:
    seen, end = episode(agents.lies)
    assert len(seen) == 1
    assert isinstance(end, Observation)
    assert end.won
    counts = {"malformed": 5, "other_model": 1, "refused": 2, "wrong_key": 1}
    assert dict(end.counts) == counts


@pytest.mark.parametrize(
    ("run", "stop", "words"),
    [
        (agents.crashes, Stop.ERROR, "the agent raised KeyError: 'a mistake of the agent'"),
        (agents.hangs, Stop.TIMEOUT, "neither asked nor ended within its deadline of 0.3 s"),
        (agents.nothing, Stop.ERROR, "returned None and posted no reward"),
        (lambda *given: "much", Stop.ERROR, "the agent's reward is str"),
        (lambda *given: float("nan"), Stop.ERROR, "must be finite"),
        (lambda *given: {"rewrad": 1}, Stop.ERROR, "rewrad"),
        (lambda *given: sys.exit(4), Stop.ERROR, "SystemExit"),
    ],
)
def test_an_agent_that_fails_ends_its_episode_alone(run: Any, stop: Stop, words: str) -> None:
    _, end = episode(run, seconds=0.3)
    assert isinstance(end, Failure)
    assert end.stop is stop
    assert words in end.reason


def test_rewards_are_posted_for_calls_and_for_all() -> None:
    _, end = episode(agents.posts)
    assert isinstance(end, Observation)
    assert (end.reward, end.paid, end.won) == (0.5, ((0, 0.25),), True)
    assert dict(end.counts) == {"malformed": 1}


def test_calls_beside_each_other_are_a_round_in_the_order_of_what_they_ask() -> None:
    orders = []
    for _ in range(2):
        seen, end = episode(agents.beside, quiet=0.5)
        assert isinstance(end, Observation)
        assert end.done
        orders.append([o.state for o in seen])
        texts = [(o.call.messages[0].content if o.call else "") for o in seen]
        assert [sorted(texts[:3]), sorted(texts[3:])] == [
            ["x 0", "y 0", "z 0"],
            ["x 1", "y 1", "z 1"],
        ]
    assert orders[0] == orders[1]


def test_calls_that_come_later_join_a_round_under_way() -> None:
    def late(base_url: str, api_key: str, task: Task) -> float:
        def ask(name: str, after: float) -> float:
            time.sleep(after)
            agents.chat(base_url, api_key, [agents.user(name)])
            return time.monotonic()

        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            first, second = threads.map(ask, ("first", "second"), (0.0, 0.2))
        return float(abs(second - first) < 0.15)

    def slowly(asked: str) -> str:
        time.sleep(0.4)
        return "fine"

    seen, end = episode(late, slowly)
    assert [o.text for o in seen] == ["first", "second"]
    assert isinstance(end, Observation)
    assert end.won, "the first answer did not wait for the second"


def test_a_stream_says_the_same() -> None:
    texts = []

    def streams(base_url: str, api_key: str, task: Task) -> float:
        body = {
            "model": "student",
            "messages": [agents.user("one")],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        path = f"{agents.path_of(base_url)}/chat/completions"
        status, text = agents.request(base_url, path, api_key, body)
        assert status == 200
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events.pop() == "[DONE]"
        read = [json.loads(event) for event in events]
        assert read[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        assert {r["system_fingerprint"] for r in read} == {"step-3"}
        texts.append("".join(r["choices"][0]["delta"].get("content", "") for r in read[:-1]))
        return 1.0

    long = "é" * 500
    _, end = episode(streams, lambda asked: long)
    assert isinstance(end, Observation), end
    assert texts == [long]


def test_a_client_that_breaks_off_and_sends_again_gets_the_answer_it_lost() -> None:
    def breaks_off(base_url: str, api_key: str, task: Task) -> float:
        parts = urlsplit(base_url)
        body = json.dumps({"model": "student", "messages": [agents.user("one")]})
        with socket.create_connection((parts.hostname, parts.port)) as line:
            head = f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: x\r\n"
            key = f"Authorization: Bearer {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
            line.sendall((head + key + body).encode())
            time.sleep(0.2)
        time.sleep(0.2)
        return float(agents.chat(base_url, api_key, [agents.user("one")]) == "1")

    numbers = iter("123")

    def slowly(asked: str) -> str:
        time.sleep(0.3)
        return next(numbers)

    seen, end = episode(breaks_off, slowly)
    assert isinstance(end, Observation)
    assert len(seen) == 1  # one call, sampled once
    assert end.reward == 1.0
    assert dict(end.counts) == {"broken_off": 1, "repeated": 1}


def deep(times: int) -> bytes:
    return b'{"a": ' * times + b"1" + b"}" * times


TALK = b'"model": "student", "messages": [{"role": "user", "content": "a"}]'
ITEMS = b'"model": "student", "input": "a"'
CHAT, RESPONSES, REWARD = "/v1/chat/completions", "/v1/responses", "/reward"
BODIES: dict[str, tuple[str, bytes]] = {
    "a list": (CHAT, b"[]"),
    "null": (CHAT, b"null"),
    "nothing": (CHAT, b""),
    "no UTF-8": (CHAT, b"\xff"),
    "two objects": (CHAT, b"{" + TALK + b"}{}"),
    "nested": (CHAT, b"[" * 100_000),
    "messages null": (CHAT, b'{"model": "student", "messages": null}'),
    "a message that is a text": (CHAT, b'{"model": "student", "messages": ["a"]}'),
    "content that is a number": (
        CHAT,
        b'{"model": "student", "messages": [{"role": "user", "content": 3}]}',
    ),
    "a picture": (
        CHAT,
        b'{"model": "student", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
    ),
    "half a surrogate pair": (
        CHAT,
        b'{"model": "student", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ),
    "many messages": (
        CHAT,
        b'{"model": "student", "messages": ['
        + b",".join([b'{"role": "user", "content": "a"}'] * 10_001)
        + b"]}",
    ),
    "a tool without a name": (CHAT, b"{" + TALK + b', "tools": [{"function": {"name": ""}}]}'),
    "a tool that is a text": (CHAT, b"{" + TALK + b', "tools": ["f"]}'),
    "another kind of tool": (
        CHAT,
        b"{" + TALK + b', "tools": [{"type": "shell", "function": {"name": "f"}}]}',
    ),
    "half a surrogate pair in a tool": (
        CHAT,
        b"{" + TALK + b', "tools": [{"function": {"name": "f", "description": "\\ud800"}}]}',
    ),
    "NaN in a tool": (
        CHAT,
        b"{" + TALK + b', "tools": [{"function": {"name": "f", "parameters": {"a": NaN}}}]}',
    ),
    "a nested tool": (
        CHAT,
        b"{"
        + TALK
        + b', "tools": [{"function": {"name": "f", "parameters": '
        + deep(900)
        + b"}}]}",
    ),
    "a stream that is a text": (CHAT, b"{" + TALK + b', "stream": "perhaps"}'),
    "many answers": (CHAT, b"{" + TALK + b', "n": ' + b"9" * 400 + b"}"),
    "items null": (RESPONSES, b'{"model": "student", "input": null}'),
    "no items": (RESPONSES, b'{"model": "student", "input": []}'),
    "an unknown item": (RESPONSES, b'{"model": "student", "input": [{"type": "computer_call"}]}'),
    "what came before": (RESPONSES, b"{" + ITEMS + b', "previous_response_id": "resp_1"}'),
    "a tool of theirs": (RESPONSES, b"{" + ITEMS + b', "tools": [{"type": "web_search"}]}'),
    "half a surrogate pair in an item": (
        RESPONSES,
        b'{"model": "student", "input": [{"role": "user", "content": "\\ud800"}]}',
    ),
    "half a surrogate pair in instructions": (
        RESPONSES,
        b"{" + ITEMS + b', "instructions": "\\ud800"}',
    ),
    "no reward": (REWARD, b"{}"),
    "a reward that is true": (REWARD, b'{"reward": true}'),
    "an endless reward": (REWARD, b'{"reward": 1e400}'),
    "no number": (REWARD, b'{"reward": NaN}'),
    "400 digits": (REWARD, b'{"reward": ' + b"9" * 400 + b"}"),
    "5,000 digits": (REWARD, b'{"reward": ' + b"9" * 5000 + b"}"),
    "a turn that was never": (REWARD, b'{"reward": 1, "id": "chatcmpl-7"}'),
    "a turn of 5,000 digits": (REWARD, b'{"reward": 1, "id": "chatcmpl-' + b"9" * 5000 + b'"}'),
    "a turn in other digits": (
        REWARD,
        '{"reward": 1, "id": "chatcmpl-\u0663"}'.encode(),
    ),
    "a turn that is a list": (REWARD, b'{"reward": 1, "id": [0]}'),
}


def test_every_malformed_body_gets_a_4xx_and_the_episode_goes_on() -> None:
    statuses: dict[str, tuple[int, Any]] = {}

    def sends(base_url: str, api_key: str, task: Task) -> float:
        start = agents.path_of(base_url).removesuffix("/v1")
        for case, (path, body) in BODIES.items():
            statuses[case] = agents.request(base_url, start + path, api_key, body)
        odd = (
            b'{"model": "student", "messages": [{"role": "assistant", "tool_calls": [{"id": "call_'
        )
        odd += b"9" * 5000 + b'", "function": {"name": "f"}}]}, {"role": "user", "content": "a"}]}'
        for headers in ({}, {"x-stainless-retry-count": "\u00b2"}):
            status, _ = agents.request(base_url, start + CHAT, api_key, odd, **headers)
            assert status == 200
        return 1.0

    seen, end = episode(sends)
    assert isinstance(end, Observation), end
    assert end.won
    assert len(seen) == 2
    for case, (status, answer) in statuses.items():
        assert 400 <= status < 500, (case, status, answer)
        assert answer["error"]["message"], case
    assert dict(end.counts) == {"malformed": len(BODIES)}


def test_a_request_that_never_ends_holds_up_nobody() -> None:
    def half(base_url: str, api_key: str, task: Task) -> float:
        parts = urlsplit(base_url)
        line = socket.create_connection((parts.hostname, parts.port))
        head = f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: x\r\n"
        line.sendall(
            f"{head}Authorization: Bearer {api_key}\r\nContent-Length: 99\r\n\r\n{{".encode()
        )
        agents.chat(base_url, api_key, [agents.user("one")])
        line.close()
        return 1.0

    _, end = episode(half)
    assert isinstance(end, Observation)
    assert end.won


def test_after_its_episode_an_agent_is_told_that_it_is_over() -> None:
    answered = threading.Event()

    def asks_on(base_url: str, api_key: str, task: Task) -> float:
        try:
            agents.chat(base_url, api_key, [agents.user("one")])
        except RuntimeError as error:
            if "410" in str(error) and "this episode is over" in str(error):
                answered.set()
        return 1.0

    with pool(asks_on) as agent_pool:
        agent_pool.open("k", TASK)
        agent_pool.poll(block=True)
        agent_pool.close("k")
        assert answered.wait(5)
        assert agent_pool.poll(block=True) == []


def test_an_async_agent_is_cancelled() -> None:
    ended = threading.Event()

    async def sleeps(base_url: str, api_key: str, task: Task) -> float:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return 1.0

    _, end = episode(sleeps, seconds=0.2)
    assert isinstance(end, Failure)
    assert ended.wait(5)


COMMAND = """
import json, os, sys, urllib.request
task = json.loads(os.environ["TUTELAGE_TASK"])
body = {"model": os.environ["OPENAI_MODEL"], "messages": [{"role": "user", "content": task["id"]}]}
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
answer = json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), key)))
if answer["choices"][0]["message"]["content"] == "fail":
    sys.exit("it failed")
print("talk", answer["usage"]["total_tokens"])
print(0.75)
"""


def test_a_command_line_is_an_agent(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(COMMAND)
    seen, end = episode([sys.executable, str(script)])
    assert [o.text for o in seen] == [TASK.id]
    assert isinstance(end, Observation)
    assert end.reward == 0.75
    _, end = episode(f"{sys.executable} {script}", lambda asked: "fail")
    assert isinstance(end, Failure)
    assert "exit code 1: it failed" in end.reason


def test_a_command_that_hangs_is_ended() -> None:
    with pool([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.5) as agent_pool:
        agent_pool.open("k", TASK)
        ((_, end),) = agent_pool.poll(block=True)
        assert isinstance(end, Failure)
        assert end.stop is Stop.TIMEOUT
        runner = agent_pool.runner
        agent_pool.close("k")
        until = time.monotonic() + 5
        while runner.live and time.monotonic() < until:  # type: ignore[attr-defined]
            time.sleep(0.01)
        assert not runner.live  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_process_that_dies_costs_the_episodes_in_it_and_is_replaced() -> None:
    with pool("support.agents:leaves", workers=1) as agent_pool:
        for key, task in (("dies", TASK), ("beside", agents.tasks("train")[1])):
            agent_pool.open(key, task)
        asked = agent_pool.poll(block=True)
        assert [key for key, _ in asked] == ["dies", "beside"]
        for key, _ in asked:
            agent_pool.answer(key, Reply(text="go"))
        for key, end in agent_pool.poll(block=True):
            assert isinstance(end, Failure)
            assert "the process that ran the agent ended (exit code 3)" in end.reason
            agent_pool.close(key)
        agent_pool.open("again", agents.tasks("train")[1])
        ((_, seen),) = agent_pool.poll(block=True)
        assert isinstance(seen, Observation)
        agent_pool.answer("again", Reply(text="go"))
        ((_, end),) = agent_pool.poll(block=True)
        assert isinstance(end, Observation)
        assert end.won


# -- calls of functions

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def test_calls_of_functions_reach_the_agent_and_come_back_as_they_were_sampled() -> None:
    text = 'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'

    def calls(base_url: str, api_key: str, task: Task) -> float:
        path = f"{agents.path_of(base_url)}/chat/completions"
        body: dict[str, Any] = {
            "model": "student",
            "tools": [ADD],
            "messages": [agents.user("1+1")],
        }
        _, answer = agents.request(base_url, path, api_key, body)
        message = answer["choices"][0]["message"]
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        assert message["content"] == "Let me see."
        (call,) = message["tool_calls"]
        assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "2"}
        body["messages"] += [{**message, "content": None}, result]
        status, _ = agents.request(base_url, path, api_key, body)
        return float(status == 200)

    seen, end = episode(calls, lambda asked: text)
    assert isinstance(end, Observation)
    assert end.won
    call = seen[1].call
    assert call is not None
    assert call.messages[1].content == text
    assert call.messages[2].content == "<tool_response>\n2\n</tool_response>"
    assert json.loads(call.tools)[0]["function"]["name"] == "add"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<tool_call>add(1)</tool_call>", "arguments of a call have no names"),
        ("<tool_call>1 + 1 = 2</tool_call>", "a call is not JSON"),
        ('<tool_call>{"name": "sub", "arguments": {}}</tool_call>', "there is no function 'sub'"),
        ('<tool_call>{"name": "add", "arguments": 3}', "the arguments of a call are not an object"),
        ("<tool_call>[]</tool_call>", "a call names no function"),
    ],
)
def test_calls_that_cannot_be_read_are_text_and_invalid(text: str, problem: str) -> None:
    assert tools.read(text, ["add"]) == tools.Read(text, problem=problem)
    assert tools.read(text, []) == tools.Read(text)

    def calls(base_url: str, api_key: str, task: Task) -> float:
        return float(agents.chat(base_url, api_key, [agents.user("1+1")], tools=[ADD]) == text)

    _, end = episode(calls, lambda asked: text)
    assert isinstance(end, Observation)
    assert (end.won, end.valid) == (True, False)


def test_plain_json_is_a_call_and_other_json_is_not() -> None:
    (call,) = tools.read('```json\n{"name": "add", "parameters": {"a": 1}}\n```', ["add"]).calls
    assert call == tools.FunctionCall("add", '{"a": 1}')
    assert tools.read('{"answer": 3}', ["add"]) == tools.Read('{"answer": 3}')


# -- the suite


def test_tasks_come_from_a_function_a_file_or_seeds(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    lines = [{"id": "one", "question": "?", "n": 3}, {"id": "two", "split": "test"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = Agents(run=agents.solve, tasks=str(file))
    assert suite.tasks("train") == [Task(id="one", data={"question": "?", "n": "3"})]
    assert [task.id for task in suite.tasks("test")] == ["two"]
    assert Agents(run=agents.solve, tasks="support.agents:tasks").tasks("dev")[1].seed == 1
    texts = Agents(run=agents.solve, tasks=lambda split: ["a question"]).tasks("train")
    assert texts[0].data == {"question": "a question"}
    assert Agents(run=agents.solve).tasks("train")[5].seed == 5
    file.write_text("[1]\n")
    with pytest.raises(ConfigError, match=r"line 1 of .* is not a JSON object"):
        suite.tasks("train")


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("os:system", "belongs to Python itself"),
        ("support.agents:nobody", "has no function 'nobody'"),
        ("json.decoder:JSONDecoder", "belongs to Python itself"),
        ("no_such_module_at_all:solve", "could not be imported"),
    ],
)
def test_an_agent_that_cannot_be_run_is_refused(run: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AgentPool(run)


@pytest.mark.parametrize("run", ["rm -rf x", ["rm", "-rf", "x"], "mine:solve"])
@pytest.mark.parametrize("suite", ["agent", "tutelage.envs.agents.suite:Agents"])
def test_an_agent_of_somebody_else_s_file_needs_trust(
    run: Any, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "ours", lambda path: False)
    table = {"env": {"suite": suite, "options": {"run": run}}}
    with pytest.raises(ConfigError, match=r"add --trust to run it"):
        trust.check(tmp_path / "config.toml", table, [], trust=False)
    trust.check(tmp_path / "config.toml", table, [], trust=True)
    if suite == "agent":  # what was typed was named by whoever typed it
        trust.check(tmp_path / "config.toml", table, ["env.options.run=x"], trust=False)


def test_a_command_that_does_not_exist_says_so() -> None:
    _, end = episode(["no-such-command-at-all"])
    assert isinstance(end, Failure)
    assert "cannot be started" in end.reason


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(EnvError, match="agents cannot be served on 203"):
        AgentPool(agents.solve, host="203.0.113.7")


def test_an_agent_that_asks_for_responses() -> None:
    def answer(asked: str) -> str:
        call = '<tool_call>\n{"name": "double", "arguments": {"number": 4}}\n</tool_call>'
        return "It is 8." if "<tool_response>" in asked else call

    seen, end = episode(agents.solve_by_items, answer)
    assert isinstance(end, Observation)
    assert end.won
    assert dict(end.counts) == {"malformed": 4}
    first, second = (observation.call for observation in seen)
    assert first is not None
    assert second is not None
    assert [m.role for m in first.messages] == ["system", "user"]
    assert [m.role for m in second.messages] == ["system", "user", "assistant", "tool"]
    assert second.messages[:2] == first.messages
    # the answer that made the call is continued as it was sampled
    assert second.messages[2].content == answer("")
    assert json.loads(first.tools)[0]["function"]["name"] == "double"
