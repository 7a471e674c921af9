"""Classes as people have them before they know this library: asynchronous, without a task, or in
Gymnasium's shape."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tutelage.config.schema import EnvSection
from tutelage.envs.adapters.gymnasium import Gymnasium
from tutelage.envs.adapters.own import Own
from tutelage.envs.check import check
from tutelage.envs.registry import as_suite, suite_of
from tutelage.errors import EnvError, TutelageError
from tutelage.types import Task

TASK = Task(id="x", seed=3)


class Slow:
    """Its methods wait for something, as one does that asks a server."""

    closed = 0

    async def reset(self, task: Task) -> str:
        await asyncio.sleep(0)
        self.lock, self.secret = asyncio.Lock(), task.seed % 10
        return "Guess a digit."

    async def step(self, action: str) -> tuple[str, float, bool]:
        async with self.lock:  # of the loop that `reset` ran on
            won = action == str(self.secret)
        return "right" if won else "wrong", float(won), won

    async def close(self) -> None:
        Slow.closed += 1


class Fails(Slow):
    async def step(self, action: str) -> Any:
        raise ZeroDivisionError("here")


class SlowTools(Slow):
    def tools(self) -> Any:
        schema = {"type": "object", "properties": {"digit": {"type": "integer"}}}
        return [{"name": "guess", "description": "a guess", "parameters": schema}]

    async def call(self, name: str, arguments: dict[str, int]) -> tuple[str, float, bool]:
        return await self.step(str(arguments["digit"]))


def test_an_asynchronous_class_is_waited_for() -> None:
    env = Own(Slow).make()
    assert env.reset(TASK).text == "Guess a digit."
    assert not env.step("4").done
    assert env.step("3").won
    before = Slow.closed
    env.close()
    assert Slow.closed == before + 1
    assert [text for f in check(Own(Slow), ["train"], tasks=2) for text in f.problems] == []


def test_also_where_a_loop_runs_already_as_in_a_notebook() -> None:
    async def cell() -> bool | None:
        env = Own(Slow).make()
        env.reset(TASK)
        return env.step("3").won

    assert asyncio.run(cell())


def test_asynchronous_functions_are_waited_for() -> None:
    env = as_suite(SlowTools).make()
    env.reset(TASK)
    call = '<tool_call>{"name": "guess", "arguments": {"digit": 3}}</tool_call>'
    assert [text for f in check(as_suite(SlowTools), ["train"]) for text in f.problems] == []
    assert env.step(call).won


def test_what_an_asynchronous_method_raises_is_told() -> None:
    found = [text for f in check(Own(Fails), ["train"], tasks=1) for text in f.problems]
    assert "raised ZeroDivisionError: here" in found[0]
    assert f"({__file__}:" in found[0]


class Plain:
    def step(self, action: str) -> Any:
        return "text", 0.0, True


class NoTask(Plain):
    def reset(self) -> str:
        return "text"


class Two(Plain):
    def reset(self, task: Task, level: int) -> str:
        return "text"


class Seeded(Plain):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return "text", {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoTask, r"NoTask\.reset cannot be called with a task alone.*def reset\(self, task\)"),
        (Two, r"Two\.reset cannot be called with a task alone.*def reset\(self, task\)"),
        (Seeded, r'Seeded\.reset takes seed and options instead.*env\.suite = "gymnasium"'),
    ],
)
def test_a_reset_without_a_task_is_explained(kind: type, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        Own(kind)


@pytest.mark.skipif(find_spec("gymnasium") is None, reason="gymnasium is not installed")
def test_a_gymnasium_class_in_a_file_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corridor.py").write_text(
        "import gymnasium\n"
        "from gymnasium.spaces import Discrete\n"
        "class Corridor(gymnasium.Env):\n"
        "    action_space, observation_space = Discrete(2), Discrete(3)\n"
        "    def __init__(self, start=1, render_mode=None): self.start = start\n"
        "    def reset(self, seed=None, options=None):\n"
        "        self.at = self.start\n"
        "        return self.at, {}\n"
        "    def step(self, action):\n"
        "        self.at += 1 if action else -1\n"
        "        return self.at, float(self.at == 2), self.at in (0, 2), False, {}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TutelageError, match=r"Corridor is a subclass of Gymnasium's Env.*suite = "):
        suite_of(EnvSection(suite="corridor:Corridor"))
    options: Any = {"id": "corridor:Corridor", "won": 1, "settings": {"start": 1}}
    env = suite_of(EnvSection(suite="gymnasium", options=options)).make()
    assert env.reset(TASK).text == "1"
    assert env.step("1").won
    with pytest.raises(EnvError, match="could not make corridor:Other"):
        Gymnasium(id="corridor:Other", won=1).make()


class Counts:
    """Its first text tells how many episodes there were: another for every task and every reset."""

    played = 0

    def reset(self, task: Task) -> str:
        Counts.played += 1
        return f"episode {Counts.played}"

    def step(self, action: str) -> Any:
        return "text", 0.0, False


def test_one_cause_is_told_once_for_all_tasks() -> None:
    found = {f.name: f.problems for f in check(Own(Counts), ["train", "dev"], tasks=4)}
    (copied,) = found["a pickled copy of the suite has the same tasks"]
    assert copied.startswith("train, dev: a pickled copy plays counts/train/0000000 differently")
    assert copied.endswith("(and 7 more like this)")
    again = next(problems for name, problems in found.items() if "the same actions" in name)
    assert [" at reset: " in text for text in again] == [True, True]
