"""`tutelage eval`: panels, repeats, endpoints over real sockets, and going on after a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.fake_servers import listed, serving
from support.tiny_runs import tiny_file

from tutelage.cli.main import main
from tutelage.envs.doors import RULE
from tutelage.evaluation.statistics import wilson
from tutelage.policies.hf.loading import load
from tutelage.rollout.record import read

Captured = pytest.CaptureFixture[str]
SMALL = ["rollout.max_new_tokens=8", "rollout.max_turns=3"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "my.toml").write_text(
        tiny_file(
            run={"steps": 1, "checkpoint_every": 1},
            rollout={"tasks_per_step": 2},
            algorithm={"name": "sft"},
            eval={"every": 0, "tasks": 9},
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "my.toml", "--quiet"]) == 0
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


class Guesses(ThreadingHTTPServer):
    """An OpenAI-compatible server that opens the right door with a known chance, by the seed that
    it is sent. It takes no `max_tokens`, as OpenAI's newest models do not."""

    daemon_threads = True

    def __init__(self, chance: float, *, seeds: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Guess)
        self.chance, self.seeds = chance, seeds
        self.asked: list[dict[str, Any]] = []


class _Guess(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Guesses

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self._give(200, {"object": "list", "data": [{"id": "guesser"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            self._give(400, {"error": {"message": message}})
            return
        if "seed" in body and not self.server.seeds:
            self._give(422, {"detail": "extra field: seed"})
            return
        seen = body["messages"][-1]["content"]
        letter = next(c for c in reversed(seen) if c in RULE)
        draw = random.Random(f"{body.get('seed')} {len(body['messages'])} {seen}")
        digit = RULE[letter] if draw.random() < self.server.chance else "7"
        text = f"<action>{digit}</action>"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._give(200, {"choices": [choice], "usage": {"completion_tokens": 7}})

    def _give(self, status: int, answer: Any) -> None:
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def guessing(chance: float, **settings: bool) -> Iterator[Guesses]:
    server = Guesses(chance, **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_endpoint_is_measured_as_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Two doors, each opened with a chance of 0.8: of 9 tasks 20 times, 0.64 are solved."""
    monkeypatch.setenv("THE_KEY", "sk-a-long-secret")
    with guessing(0.8) as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        out = tmp_path / "results"
        asked = ["eval", url, "--panel", "doors-unseen-9", "--repeats", "20", "--key", "THE_KEY"]
        asked += ["--temperature", "1", "--out", str(out), *SMALL]
        assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "panel doors-unseen-9 (" in shown
    assert "temperature 1, seed 0, 20 episodes a task" in shown
    (found,) = json.loads((out / "summary.json").read_text())
    assert found["model"] == f"{url}"
    assert (found["repeats"], found["episodes"], found["n"]) == (20, 180, 180)
    assert found["panel_name"] == "doors-unseen-9"
    success = found["measures"]["success"]
    assert success["n"] == 9
    low, high = wilson(0.64 * 180, 180, z=4)
    assert low < success["mean"] < high
    # the server counts 7 tokens a turn, whatever the text
    rows = list(read(out / "tasks.jsonl"))
    assert all(row["tokens"] == 7 * int(str(row["turns"])) for row in rows)
    answered = [body for body in server.asked if "max_completion_tokens" in body]
    assert len(answered) == sum(int(str(row["turns"])) for row in rows)
    assert {body["path"] for body in server.asked} == {"/v1/chat/completions"}
    assert {body["key"] for body in server.asked} == {"Bearer sk-a-long-secret"}
    assert {body["model"] for body in server.asked} == {"guesser"}
    assert len({body["seed"] for body in answered}) == len(answered)
    assert "sk-a-long-secret" not in "".join(p.read_text() for p in out.iterdir())
    # what is sent is a conversation, the whole of it
    longest = max(answered, key=lambda body: len(body["messages"]))["messages"]
    roles = [message["role"] for message in longest]
    assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]


def test_an_episode_of_an_endpoint_is_shown(capsys: Captured) -> None:
    with guessing(1.0) as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        assert main(["try", url, "doors", "--task", "doors/ab", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "--- the first prompt, 2 messages" in out
    assert "user: " in out
    assert f"action: {RULE['a']}" in out
    assert "cut at" not in out  # an answer of more characters than max_new_tokens is whole
    assert "won" in out.splitlines()[-1]


def test_a_server_without_seeds_is_asked_without(tmp_path: Path, capsys: Captured) -> None:
    with guessing(1.0, seeds=False) as server:
        asked = ["eval", f"http://127.0.0.1:{server.server_port}", "doors", "--json", *SMALL]
        assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["success"] == 1.0
    # an episode's second turn comes after its first was answered, which was without a seed; in what
    # order the first turns of several episodes reach the server is not known
    later = [body for body in server.asked if len(body["messages"]) > 2]
    assert later
    assert all("seed" not in body for body in later)


def test_an_endpoint_that_is_no_such_server_is_refused(capsys: Captured) -> None:
    with listed(404) as server:
        assert main(["eval", f"http://127.0.0.1:{server.port}#m", "doors", *SMALL]) == 2
    assert "answered 404 (no 404)" in capsys.readouterr().err
    with listed({"data": []}) as server:
        assert main(["eval", f"http://127.0.0.1:{server.port}", "doors", *SMALL]) == 2
    assert "lists 0 models" in capsys.readouterr().err
    assert main(["eval", "builtin:household-teacher", "doors", "--key", "X"]) == 2
    assert "--key is for the address of a server" in capsys.readouterr().err


def test_our_own_server_plays_as_the_model_does_here(here: Path, capsys: Captured) -> None:
    """Greedy, so that both are the same function of the conversation."""
    assert main(["eval", "run", "--temperature", "0", "--json", "--split", "unseen"]) == 0
    local = json.loads(capsys.readouterr().out)
    newest = str(here / "run" / "checkpoints" / "step-000001")
    with serving(load(newest, history="append")) as server:
        url = f"http://127.0.0.1:{server.port}/v1#small"
        limits = ["rollout.max_new_tokens=4", "rollout.max_turns=3"]  # the run's
        assert main(["eval", url, "doors", "--temperature", "0", "--json", *limits]) == 0
    remote = json.loads(capsys.readouterr().out)
    assert remote["outcomes"] == local["outcomes"]
    assert remote["measures"]["turns"] == local["measures"]["turns"]
    assert remote["measures"]["tokens"] == local["measures"]["tokens"]


def test_episodes_that_the_context_ends_are_counted_aloud(here: Path, capsys: Captured) -> None:
    assert main(["eval", "run", "--json", "--split", "unseen"]) == 0
    assert "context was full" not in capsys.readouterr().err
    much = "rollout.max_new_tokens=1000"  # leaves no room for a second turn
    assert main(["eval", "run", "--json", "--split", "unseen", much]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["measures"]["turns"]["mean"] <= 1
    assert "episodes ended because the context was full" in shown.err
    assert "lower rollout.max_new_tokens" in shown.err


def test_repeats_need_draws(here: Path, capsys: Captured) -> None:
    assert main(["eval", "run", "--repeats", "2", "--temperature", "0"]) == 2
    assert "plays the same episodes again" in capsys.readouterr().err
    assert main(["eval", "run", "--panel", "doors-unseen-9", "--tasks", "3"]) == 2
    assert "has its own tasks" in capsys.readouterr().err
    assert main(["eval", "run", "household", "--panel", "doors-unseen-9"]) == 2
    assert "is of doors, not of household" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(here: Path, tmp_path: Path, capsys: Captured) -> None:
    """Killed with SIGKILL when some episodes are there: the rest is played, nothing twice, and the
    result is that of an evaluation that was left alone."""
    asked = ["eval", "run", "--repeats", "4", "--temperature", "1", "rollout.concurrency=2"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    partial = tmp_path / "out.partial" / "episodes.jsonl"
    slow = "import tutelage.rollout.play as p, time; f = p._Rollout._finish\n"
    slow += "p._Rollout._finish = lambda *a, **k: (time.sleep(0.2), f(*a, **k))[1]\n"
    slow += "from tutelage.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *asked, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not partial.exists() or partial.read_bytes().count(b"\n") < 12:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    with partial.open("ab") as file:
        file.write(b'{"policy": "student", "sam')  # as a kill in the middle of a line leaves it
    before = partial.read_bytes().count(b"\n")
    assert 12 <= before < 36
    # other settings are another evaluation
    assert main([*asked, "--out", str(out), "run.seed=7"]) == 2
    assert "another settings" in capsys.readouterr().err
    assert main([*asked, "--out", str(out)]) == 0
    assert "going on in" in capsys.readouterr().err
    assert not partial.parent.exists()
    assert main([*asked, "--out", str(whole)]) == 0
    results = [json.loads((folder / "summary.json").read_text()) for folder in (out, whole)]
    assert results[0] == results[1]
    rows = [list(read(folder / "tasks.jsonl")) for folder in (out, whole)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 36
