"""Agents of the tests, and a client of nothing but the standard library."""

import concurrent.futures
import http.client
import json
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tutelage.types import Task


def request(
    url: str, path: str, key: str, body: object = None, *, method: str = "", **headers: str
) -> tuple[int, Any]:
    """The status and the JSON of an answer; a body of bytes is sent as it is."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    given = {"Authorization": f"Bearer {key}", **headers}
    try:
        connection.request(method or ("GET" if raw is None else "POST"), path, raw, given)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text[:1] == b"{" else text.decode()
    finally:
        connection.close()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def path_of(base_url: str) -> str:
    return urlsplit(base_url).path


def chat(base_url: str, key: str, messages: Sequence[dict[str, Any]], **more: Any) -> str:
    """The text of an answer."""
    body = {"model": "student", "messages": list(messages), **more}
    status, answer = request(base_url, f"{path_of(base_url)}/chat/completions", key, body)
    if status != 200:
        raise RuntimeError(f"{status}: {answer}")
    return str(answer["choices"][0]["message"]["content"])


def pay(base_url: str, key: str, reward: float, **more: Any) -> int:
    path = path_of(base_url).removesuffix("/v1") + "/reward"
    return request(base_url, path, key, {"reward": reward, **more})[0]


def tasks(split: str) -> list[Task]:
    return [
        Task(
            id=f"{split}/{k}",
            seed=k,
            data={
                "question": f"letter {k}",
                "answer": "abcd"[k % 4],
                "plan": f"say {'abcd'[k % 4]}",
            },
        )
        for k in range(8)
    ]


def solve(base_url: str, api_key: str, task: Task) -> float:
    """Three calls of one growing conversation; the reward is how often the answer is said."""
    talk = [{"role": "system", "content": "Answer."}, user(task.data["question"])]
    total = 0.0
    for _ in range(3):
        answer = chat(base_url, api_key, talk)
        total += task.data["answer"] in answer
        talk += [assistant(answer), user("again")]
    return total / 3


async def solve_async(base_url: str, api_key: str, task: Task) -> float:
    return solve(base_url, api_key, task)


def compacts(base_url: str, api_key: str, task: Task) -> float:
    """Two calls, then a conversation that begins anew with a copy of the first answer."""
    first = chat(base_url, api_key, [user("one")])
    talk = [user("one"), assistant(first), user("two")]
    second = chat(base_url, api_key, talk)
    chat(base_url, api_key, [user("one, and more"), assistant(first), user("three")])
    chat(base_url, api_key, [*talk, assistant(second), user("four")])
    return 1.0


def beside(base_url: str, api_key: str, task: Task) -> float:
    """Three calls at the same time, twice."""
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for round_ in range(2):
            asked = [[user(f"{name} {round_}")] for name in ("x", "y", "z")]
            list(threads.map(lambda talk: chat(base_url, api_key, talk), asked))
    return 1.0


def crashes(base_url: str, api_key: str, task: Task) -> float:
    chat(base_url, api_key, [user("one")])
    raise KeyError("a mistake of the agent")


def leaves(base_url: str, api_key: str, task: Task) -> float:
    chat(base_url, api_key, [user("one")])
    if task.seed == 0:
        os._exit(3)
    time.sleep(1.0)
    return 1.0


def hangs(base_url: str, api_key: str, task: Task) -> float:
    chat(base_url, api_key, [user("one")])
    time.sleep(60)
    return 1.0


def nothing(base_url: str, api_key: str, task: Task) -> None:
    chat(base_url, api_key, [user("one")])


def posts(base_url: str, api_key: str, task: Task) -> None:
    chat(base_url, api_key, [user("one")])
    chat(base_url, api_key, [user("one"), assistant("?"), user("two")])
    assert pay(base_url, api_key, 0.25, id="chatcmpl-0") == 200
    assert pay(base_url, api_key, 0.5) == 200
    assert pay(base_url, api_key, 0.5, id="chatcmpl-7") == 400


def lies(base_url: str, api_key: str, task: Task) -> float:
    """Everything that is refused, then an honest call."""
    path = path_of(base_url)
    talk = {"model": "student", "messages": [user("one")]}
    post = f"{path}/chat/completions"
    statuses = [
        request(base_url, post, "not the key", talk)[0],
        request(base_url, "/sessions/another/v1/chat/completions", api_key, talk)[0],
        request(base_url, post, api_key, {**talk, "model": "gpt-5"})[0],
        request(base_url, post, api_key, b"{not json")[0],
        request(base_url, post, api_key, {**talk, "messages": []})[0],
        request(base_url, post, api_key, {**talk, "messages": [{"role": "king", "content": "x"}]})[
            0
        ],
        request(base_url, post, api_key, {**talk, "n": 2})[0],
        request(base_url, post, api_key, b"x", **{"Content-Length": str(1 << 40)})[0],
        request(base_url, f"{path}/embeddings", api_key, talk)[0],
        request(base_url, path.removesuffix("/v1") + "/reward", api_key, {"reward": "much"})[0],
    ]
    assert statuses == [401, 401, 404, 400, 400, 400, 400, 413, 404, 400], statuses
    chat(base_url, api_key, [user("one")])
    return 1.0


def responses(base_url: str, key: str, body: dict[str, Any]) -> Any:
    """What /v1/responses answers."""
    path = f"{path_of(base_url)}/responses"
    return request(base_url, path, key, {"model": "student", **body})


def solve_by_items(base_url: str, key: str, task: Task) -> float:
    """A loop over /v1/responses: a call, its result, an answer."""
    tool = {"type": "function", "name": "double", "parameters": {"type": "object"}}
    items: list[dict[str, Any]] = [{"role": "user", "content": "What is 2 times 4?"}]
    _, first = responses(base_url, key, {"input": items, "tools": [tool], "instructions": "Add."})
    (call,) = first["output"]
    items += [call, {"type": "function_call_output", "call_id": call["call_id"], "output": "8"}]
    body = {"input": items, "tools": [tool], "instructions": "Add.", "stream": True}
    _, stream = responses(base_url, key, body)
    lines = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    assert [line["sequence_number"] for line in lines] == list(range(len(lines)))
    done = lines[-1]
    assert done["type"] == "response.completed"
    text = done["response"]["output"][0]["content"][0]["text"]
    assert any(x["type"] == "response.output_text.delta" and x["delta"] == text for x in lines)
    for wrong in (
        {"input": "x", "previous_response_id": "resp_0"},
        {"input": [{"type": "computer_call"}]},
        {"input": "x", "tools": [{"type": "web_search"}]},
        {"input": []},
    ):
        assert responses(base_url, key, wrong)[0] == 400
    return float(call["name"] == "double" and text == "It is 8.")
