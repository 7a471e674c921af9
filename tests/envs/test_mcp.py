"""Tools of a real MCP server as an environment, over stdio and over HTTP on this machine."""

import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.config.schema import EnvSection
from tutelage.envs.adapters.mcp import MCP, Connection, Played, judged
from tutelage.envs.registry import as_suite, suite_of
from tutelage.envs.tool_suite import call_text
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Task

pytest.importorskip("mcp", reason="needs mcp")

SERVER = [sys.executable, str(Path(__file__).parents[1] / "support" / "mcp_server.py")]
NAMES = ["add", "leave", "look", "note", "wait"]


def listed(split: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{split}/{k}", "question": f"Note 3 + {k} as sum.", "answer": str(3 + k)}
        for k in range(3)
    ]


def reward(played: Played) -> dict[str, Any]:
    """Whether the note is there, which only the server knows."""
    found = played.ask("look", key="sum")
    right = found == played.task.data["answer"]
    return {"reward": float(right), "score": len(played.calls) / 10}


def suite(**options: Any) -> Any:
    given = {"tasks": listed, "reward": reward, "command": SERVER, "seconds": 60.0, **options}
    return as_suite(MCP(**given))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The same server over HTTP, in a thread of this process."""
    import uvicorn
    from support.mcp_server import server

    end = socket.socket()
    end.bind(("127.0.0.1", 0))
    running = uvicorn.Server(
        uvicorn.Config(server.streamable_http_app(), log_level="error", lifespan="on")
    )
    thread = threading.Thread(target=running.run, kwargs={"sockets": [end]}, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not running.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{end.getsockname()[1]}/mcp"
    running.should_exit = True
    thread.join(timeout=10)


def play(world: Any, task: Task, *answers: str) -> list[Any]:
    env = world.make()
    seen = [env.reset(task)]
    try:
        for answer in answers:
            seen.append(env.step(answer))
    finally:
        env.close()
    return seen


def test_an_episode_over_stdio() -> None:
    world = suite()
    assert [t["function"]["name"] for t in world.tools()] == NAMES
    assert world.tools()[0]["function"]["description"] == "The sum of two numbers."
    assert world.instructions() == "Keep notes."
    task = world.tasks("train")[1]
    both = call_text("add", {"a": 3, "b": 1}) + call_text("note", {"key": "sum", "value": "4"})
    first, called, done = play(world, task, both, "It is noted.")
    assert first.text == "Note 3 + 1 as sum."
    assert called.results == ("4", "noted sum")
    assert called.valid
    assert (done.reward, done.won, done.score, done.done) == (1.0, True, 0.2, True)
    # the next episode has a new server, without the note, which ends before its time
    env = world.make()
    env.reset(task)
    missing = env.step(call_text("look", {"key": "sum"}))
    assert "there is no note sum" in missing.text
    assert not missing.valid
    assert not missing.done
    with pytest.raises(EnvError, match="the MCP server"):
        env.step(call_text("leave", {"code": 3}))
    env.close()


def test_python_is_the_one_that_runs_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no virtual environment is activated, and the path has another or none."""
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    connection = Connection(["python", *SERVER[1:]], "", seconds=60.0)
    try:
        assert [tool["name"] for tool in connection.tools()]
    finally:
        connection.close()


def test_what_the_schema_refuses_does_not_reach_the_server(address: str) -> None:
    world = suite(command="", url=address, only=["add"], rules="Add.")
    assert [t["function"]["name"] for t in world.tools()] == ["add"]
    assert world.instructions() == "Add."
    env = world.make()
    env.reset(world.tasks("train")[0])
    assert "add needs the argument 'b'" in env.step(call_text("add", {"a": 1})).text
    assert "there is no function 'note'" in env.step(call_text("note", {"key": "a"})).text
    assert env._env.calls == []
    env.close()


def test_an_episode_over_http(address: str) -> None:
    world = suite(command="", url=address)
    task = world.tasks("train")[2]
    note = call_text("note", {"key": "sum", "value": "5"})
    *_, done = play(world, task, note, "Noted.")
    assert done.won
    # that server goes on, and so do its notes
    *_, done = play(world, task, "Noted before.")
    assert done.won


def test_one_connection_for_all_episodes(address: str) -> None:
    world = suite(command="", url=address, shared=True)
    task = world.tasks("train")[0]
    play(world, task, call_text("note", {"key": "sum", "value": "3"}))
    first = world.suite._connection
    *_, done = play(world, task, "It was there.")
    assert done.won
    assert world.suite._connection is first
    assert not first.ended
    # a connection that was lost is replaced
    first.close()
    *_, seen = play(world, task, call_text("add", {"a": 1, "b": 1}))
    assert seen.text == "2"
    copy = pickle.loads(pickle.dumps(world))
    assert copy.suite._connection is None
    world.suite._connection.close()


def test_a_server_that_is_late_costs_the_episode(address: str) -> None:
    world = suite(command="", url=address, seconds=1.0)
    env = world.make()
    env.reset(world.tasks("train")[0])
    with pytest.raises(EnvError, match="the MCP server"):
        env.step(call_text("wait", {"seconds": 3.0}))
    env.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"command": ""}, "exactly one of command"),
        ({"url": "http://x"}, "exactly one of command"),
        ({"seconds": 0.0}, "give 1 to 3600 seconds"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        suite(**options)


def test_mistakes_are_sentences(address: str) -> None:
    with pytest.raises(EnvError, match=r"cannot be used .*command or url is right"):
        suite(command="/no/such/program").tools()
    with pytest.raises(
        ConfigError, match="only names 'ad', which the server does not have; did you"
    ):
        suite(command="", url=address, only=["ad"]).tools()
    with pytest.raises(ConfigError, match='has no "question"'):
        suite(tasks=lambda split: [{"id": "a", "text": "b"}]).tasks("train")
    with pytest.raises(EnvError, match=r"cannot be used|did not answer"):
        Connection((), "http://127.0.0.1:9/mcp", seconds=10.0)


def test_rewards() -> None:
    assert judged(0.5) == (0.5, None, None)
    assert judged({"reward": 1, "won": False, "score": 0.5}) == (1.0, False, 0.5)
    for wrong in ("1", None, {"won": True}, {"reward": 1, "points": 2}):
        with pytest.raises(EnvError, match=r"env.options.reward: .* return a number"):
            judged(wrong)


def test_a_configuration_names_functions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    (tmp_path / "judge_of_notes.py").write_text(
        "def tasks(split):\n    return ['What is 1 + 1?']\n\n\n"
        "def reward(played):\n    return float('2' in played.answer)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {"tasks": "judge_of_notes:tasks", "reward": "judge_of_notes:reward"}
    world: Any = suite_of(EnvSection(suite="mcp", options={**options, "url": address}))
    (task,) = world.tasks("train")
    *_, done = play(world, task, "2")
    assert done.won
