"""Environments that misbehave: each costs its own episode, is recorded with a reason, and nothing
else happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kill_chains import begin, cli, ended, logged
from support.misbehaving import BREAKS, HARMLESS, Misbehaving
from support.tiny_runs import tiny_file

from tutelage.config.schema import EnvSection
from tutelage.envs import pool as pools
from tutelage.envs import supervised as supervised_module
from tutelage.envs import wire
from tutelage.envs.doors import Doors
from tutelage.envs.observations import LONGEST
from tutelage.envs.pool import Failure, LocalPool, ProcessPool
from tutelage.envs.registry import suite_of
from tutelage.envs.supervised import SupervisedSuite, Supervisor, supervised
from tutelage.envs.wire import HEADER, MARK, Garbled, pair
from tutelage.errors import EnvError
from tutelage.types import Observation, Stop

TESTS = Path(__file__).parents[1]
TASKS = {task.id: task for task in Misbehaving().tasks("train")}


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    pool = ProcessPool(Misbehaving(), workers=1, reset_seconds=20, step_seconds=5)
    yield pool
    pool.shutdown()


def second_step(pool: ProcessPool | LocalPool, kind: str) -> Observation | Failure:
    """What comes of the step that misbehaves."""
    key = f"{kind} {time.monotonic()}"
    pool.open(key, TASKS[kind])
    for _ in range(2):
        ((_, answer),) = pool.poll(block=True)
        assert isinstance(answer, Observation), answer
        pool.act(key, "3")
    ((_, answer),) = pool.poll(block=True)
    pool.close(key)
    return answer


@pytest.mark.parametrize("kind", BREAKS)
def test_it_costs_its_own_episode_and_says_why(kind: str, pool: ProcessPool) -> None:
    answer = second_step(pool, kind)
    assert isinstance(answer, Failure)
    assert BREAKS[kind][1] in answer.reason
    assert answer.stop is (Stop.TIMEOUT if kind in ("sleep", "a loop") else Stop.ERROR)
    json.dumps(answer.reason, ensure_ascii=False).encode()
    assert "\n" not in answer.reason
    assert len(answer.reason) < 1000
    assert isinstance(second_step(pool, "warnings"), Observation)  # the next one is played


@pytest.mark.parametrize("kind", HARMLESS)
def test_it_costs_nothing(kind: str, pool: ProcessPool) -> None:
    answer = second_step(pool, kind)
    assert isinstance(answer, Observation)
    assert type(answer.text) is str
    assert len(answer.text) < LONGEST + 100
    assert sum(map(len, answer.actions)) <= LONGEST
    if kind == "a nested state":
        assert answer.state == (1, ("a", b"\xff", None, 0.5), frozenset({2}))


def test_the_console_has_no_traceback_and_standard_output_is_left_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pool = ProcessPool(Misbehaving(), workers=1, reset_seconds=20, step_seconds=5)
    for kind in ("a thread that dies", "prints", "an interrupt", "bytes into all connections"):
        second_step(pool, kind)
    for kind in ("an exception without a class", "json.dumps taken away"):
        second_step(pool, kind)
    second_step(pool, "a thread that dies")
    pool.shutdown()
    out, err = capfd.readouterr()
    assert out == ""
    assert "a line of the environment's\nand one below Python\n" in err
    assert "Traceback" not in err
    # once in each of the two workers that play it
    assert err.count("the environment's process: ValueError: cannot be made again\n") == 2


IN_PROCESS = [
    kind
    for kind in BREAKS
    if not any(
        word in kind
        for word in ("connections", "exit", "crash", "sleep", "loop", "pickled", "away")
    )
    and kind not in ("an interrupt", "a state of megabytes")
]


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_in_the_trainers_own_process_too(kind: str) -> None:
    answer = second_step(LocalPool(Misbehaving()), kind)
    assert isinstance(answer, Failure)
    assert BREAKS[kind][1] in answer.reason


# -- the connection


def test_what_is_sent_arrives_and_what_is_not_a_message_is_noticed() -> None:
    ours, theirs = pair()
    for body in (b"x" * 100, HEADER.pack(MARK, 3, 0) + b"[1]", HEADER.pack(MARK, 1 << 31, 0)):
        theirs.sendall(body)
        with pytest.raises(Garbled):
            ours.arrived()
        ours.buffer.clear()
    theirs.close()
    with pytest.raises(EOFError):
        ours.arrived()


# -- the end of the trainer


TRAINER = """
import sys
sys.path[:0] = {path!r}
from support.misbehaving import Misbehaving
from tutelage.envs.pool import ProcessPool
if __name__ == "__main__":
    suite = Misbehaving()
    pool = ProcessPool(suite, workers=1, reset_seconds=100, step_seconds=100)
    task = next(task for task in suite.tasks("train") if task.id == {kind!r})
    pool.open("a", task)
    pool.poll(block=True)
    pool.act("a", "3")
    pool.poll(block=True)
    pool.act("a", "3")
    print(pool.workers[0].process.pid, flush=True)
    pool.poll(block=True)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["sleep", "a loop"])
def test_no_worker_outlives_the_trainer(kind: str, end: signal.Signals) -> None:
    script = TRAINER.format(path=[*sys.path, str(TESTS)], kind=kind)
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    worker = int(trainer.stdout.readline())
    time.sleep(0.2)
    trainer.send_signal(end)
    trainer.wait()
    trainer.stdout.close()
    until = time.monotonic() + 10
    while _is_running(worker):
        assert time.monotonic() < until, "the worker goes on"
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# -- before a run


ENDS = {"hangs": "time.sleep(3600)", "ends": "os._exit(0)"}
MODULE = """\
import multiprocessing, os, time
from tutelage.envs.doors import Doors

def end():
    if multiprocessing.parent_process() is not None:  # in a worker
        {end}

{at_import}

class Suite(Doors):
    def tasks(self, split):
        {at_tasks}
        return super().tasks(split)
"""


@pytest.mark.parametrize("kind", ["hangs", "ends"])
@pytest.mark.parametrize("place", ["import", "tasks"])
def test_a_suite_that_does_not_come_back_stops_no_trainer(
    kind: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "START_SECONDS", 8.0 if kind == "hangs" else 60.0)
    name = f"suite_{kind}_{place}"
    calls = {at: "end()" if at == place else "pass" for at in ("import", "tasks")}
    (tmp_path / f"{name}.py").write_text(
        MODULE.format(end=ENDS[kind], at_import=calls["import"], at_tasks=calls["tasks"])
    )
    monkeypatch.syspath_prepend(tmp_path)
    supervisor = Supervisor(EnvSection(suite=f"{name}:Suite"), "train")
    with pytest.raises(EnvError) as refusal:
        supervisor.prove()
    call = f"importing {name}" if place == "import" else "tasks('train')"
    if kind == "hangs":
        assert "did not return within 8 s" in str(refusal.value)  # a busy machine: any call
    else:
        assert f"{call} ended its process (exit code 0)" in str(refusal.value)


@pytest.mark.parametrize("kind", ["a loop", "a quick exit", "a crash", "an exit with a text"])
def test_what_is_tried_before_a_run_is_tried_in_a_worker(kind: str) -> None:
    section = EnvSection(suite="support.misbehaving:Misbehaving", deadline=2.0)
    supervisor = Supervisor(section, "train")
    suite = SupervisedSuite(suite_of(section), supervisor)
    try:
        env = suite.make()
        seen = env.reset(TASKS[kind])
        assert seen.text
        env.step("3")
        with pytest.raises(EnvError, match=r"^step\('3'\)") as broken:
            env.step("3")
        assert BREAKS[kind][1] in str(broken.value)
        assert env.reset(TASKS["prints"]) == suite.suite.make().reset(TASKS["prints"])
        env.close()
    finally:
        supervisor.rest()


ANSWERS = {
    "numpy.array(['1', '2'])": ["1", "2"],
    "(Word(w) for w in '12')": ["1", "2"],
    "None": None,
}
FAILS = {
    "1 / 0": "demonstrate raised ZeroDivisionError: division by zero",
    "itertools.count()": "demonstrate raised ValueError: it returned more than 100,000 items",
    "[object()]": "demonstrate raised TypeError: it returned a object",
    "b'12'": "demonstrate raised TypeError: it returned a bytes",
    "later()": "demonstrate raised TypeError: it is async; write it without `async`",
    "(_ for _ in ()).throw(KeyboardInterrupt)": "demonstrate raised KeyboardInterrupt",
    "os._exit(0)": "died (exit code 0)",
    "time.sleep(3600)": "demonstrate: no answer within its deadline",
}
"""What an expert does, by the task, and the sentence about it."""
EXPERT = """\
import itertools, multiprocessing, os, time
import numpy
from tutelage.envs.doors import Doors

async def later(): ...

class Word(str):
    def strip(self, *a): raise RuntimeError("strip")

class Suite(Doors):
    def demonstrate(self, task):
        assert multiprocessing.parent_process() is not None, "in the trainer"
        return [{cases}][self.tasks("train").index(task)]()

    def stray(self, task, kind):
        return [(kind, Word("why"), numpy.bool_(True))]

    def renders(self):
        return {{"short": lambda seen: seen.text[:4], "hangs": lambda seen: time.sleep(3600)}}

    def summarise(self, episodes):
        assert multiprocessing.parent_process() is not None, "in the trainer"
        return {{"count": numpy.float32(len(episodes))}}
"""


def test_an_expert_and_the_other_methods_of_a_suite_are_called_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = ", ".join(f"lambda: {code}" for code in (*ANSWERS, *FAILS))
    (tmp_path / "experts.py").write_text(EXPERT.format(cases=cases))
    monkeypatch.syspath_prepend(tmp_path)
    section = EnvSection(suite="experts:Suite", options={"rooms": 3}, deadline=2.0)
    with supervised(section, "train") as found:
        suite: Any = found
        tasks = list(suite.tasks("train"))[: len(ANSWERS) + len(FAILS)]
        assert [suite.demonstrate(task) for task in tasks[:3]] == list(ANSWERS.values())
        assert suite.stray(tasks[0], "plan") == [["plan", "why", True]]
        assert suite.summarise([]) == {"count": 0.0}
        monkeypatch.setattr(supervised_module, "LONGEST_FRAME", 8)  # in a file
        assert suite.summarise([1, 2, 3]) == {"count": 3.0}
        seen = suite.make().reset(tasks[0])
        assert suite.renders()["short"](seen) == seen.text[:4]
        with pytest.raises(EnvError, match="render 'hangs': no answer within its deadline"):
            suite.renders()["hangs"](seen)
        for task, sentence in zip(tasks[3:], FAILS.values(), strict=True):
            with pytest.raises(EnvError) as refusal:
                suite.demonstrate(task)
            assert sentence in str(refusal.value)


LISTS = {
    "hangs": ("time.sleep(3600)", "tasks('hangs'): no answer within its deadline of 2 s"),
    "ends": ("os._exit(0)", "tasks('ends'): the environment's process died (exit code 0)"),
    "raises": ("1 / 0", "tasks('raises') raised ZeroDivisionError: division by zero"),
    "a generator": (
        "iter([])",
        "tasks('a generator') raised TypeError: it returned list_iterator;",
    ),
    "a table": (
        "{}",
        "tasks('a table') raised TypeError: it returned dict; it must return a sequence",
    ),
    "async": ("later()", "tasks('async') raised TypeError: it is async; write it without `async`"),
    "no id": (
        "[Task(id='')]",
        "task 0 of 'no id' raised ValueError: task 0 has the id ''; it must be",
    ),
    "a number": ("[Task(id=3)]", "task 0 of 'a number' raised ValueError: task 0 has the id 3; it"),
    "half a pair": (
        "[Task(id=chr(0xd800))]",
        "task 0 of 'half a pair' raised TypeError: task 0 cannot be written as JSON",
    ),
    "a family": (
        "[Task(id='a', family=None)]",
        "task 0 of 'a family' raised TypeError: task 0 has a family that is NoneType; it must be str",
    ),
    "a seed": (
        "[Task(id='a', seed=.5)]",
        "task 0 of 'a seed' raised TypeError: task 0 has a seed that is float; it must be int",
    ),
    "no data": (
        "[Task(id='a', data=None)]",
        "task 0 of 'no data' raised TypeError: task 0 has a data that is NoneType; it must be Map",
    ),
    "an object": (
        "[Task(id='a', data={'x': object()})]",
        "task 0 of 'an object' raised TypeError: task 0 cannot be written as JSON (Object of type",
    ),
    "NaN": (
        "[Task(id='a', data={'x': float('nan')})]",
        "task 0 of 'NaN' raised TypeError: task 0 cannot be written as JSON (Out of range",
    ),
    "digits": (
        "[Task(id='a', data={'x': 10**5000})]",
        "task 0 of 'digits' raised TypeError: task 0 cannot be written as JSON (Exceeds the limit",
    ),
    "texts": ("['one']", "task 0 of 'texts' raised TypeError: task 0 is str; it must be a Task"),
}
"""What listing a split does, and the sentence about it."""
LISTING = """\
import multiprocessing, os, time
from tutelage.envs.doors import Doors
from tutelage.types import Task

async def later(): ...

class Suite(Doors):
    def tasks(self, split):
        assert multiprocessing.parent_process() is not None, "in the trainer"
        if split == "long":
            return [Task(id="a", data={{"text": "x" * 100_000}}), *super().tasks("train")]
        return {{{cases}}}.get(split, lambda: super(Suite, self).tasks(split))()
"""


def test_tasks_are_listed_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ", ".join(f"{name!r}: lambda: {code}" for name, (code, _) in LISTS.items())
    (tmp_path / "listing.py").write_text(LISTING.format(cases=cases))
    monkeypatch.syspath_prepend(tmp_path)
    section = EnvSection(suite="listing:Suite", deadline=2.0)
    with supervised(section) as suite:
        tasks, known = suite.tasks("train"), Doors().tasks("train")
        assert list(tasks) == list(known)
        assert (tasks[-1], tasks[2:4]) == (known[-1], list(known[2:4]))
        with pytest.raises(IndexError):
            tasks[len(known)]
        for split, (_, sentence) in LISTS.items():
            with pytest.raises(EnvError) as refusal:
                suite.tasks(split)[0]
            assert str(refusal.value).startswith(sentence)
        # a task that no message has room for costs its episode alone
        long = suite.tasks("long")
        assert len(long[0].data["text"]) == 100_000
        monkeypatch.setattr(wire, "LONGEST_FRAME", 50_000)
        with pytest.raises(EnvError, match="cannot be sent to a worker: ValueError: it takes"):
            suite.make().reset(long[0])
        assert suite.make().reset(long[1]).text


# -- whole runs


def test_a_run_counts_them_and_tells_each_cause_once(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        tiny_file(
            env={
                "suite": "support.misbehaving:Misbehaving",
                "options": {"only": "an exception of no kind", "after": 700},
                "deadline": 20.0,
            },
            rollout={"tasks_per_step": 8, "group_size": 12},
            run={"steps": 5},
            eval={"every": 0},
        )
    )
    output = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{TESTS}"
    result = cli(tmp_path, "train", "run.toml", "--trust", output=output)
    assert result.code == 0, result.message
    broken = [line["error"] for line in logged(tmp_path / "run", "episodes.jsonl") if line["error"]]
    assert broken
    assert sum(int(str(x["broken"])) for x in logged(tmp_path / "run", "metrics.jsonl")) == len(
        broken
    )
    text = (tmp_path / "out").read_text()
    assert text.count("Base: base") == 1
    assert "Traceback" not in text + result.message


def test_json_is_alone_on_standard_output(tmp_path: Path) -> None:
    """An environment in the trainer's own process prints."""
    (tmp_path / "run.toml").write_text(
        tiny_file(
            env={
                "suite": "support.misbehaving:Misbehaving",
                "options": {"only": "prints", "after": 1},
                "workers": 0,
            },
            eval={"tasks": 2, "split": "train"},
        )
    )
    output = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    result = cli(tmp_path, "eval", "run.toml", "--json", "--trust", output=output)
    assert result.code == 0, result.message
    assert [json.loads(line)["n"] for line in (tmp_path / "out").read_text().splitlines()] == [2]
    assert "a line of the environment's" in result.message
    assert "and one below Python" in result.message


def test_cut_observations_are_in_the_metrics(tmp_path: Path) -> None:
    from support.tiny_runs import Quiet, tiny_run

    from tutelage.runs import train

    config = tiny_run(
        env={
            "suite": "support.misbehaving:Misbehaving",
            "options": {"only": "a text of 100 MB", "after": 200},
            "workers": 0,
        },
        rollout={"tasks_per_step": 8, "group_size": 6},
        eval={"every": 0},
    )
    ended(begin(tmp_path, lambda: train.train(config, watch=Quiet())), tmp_path)
    cut = [line.get("cut") for line in logged(tmp_path / "run", "metrics.jsonl")]
    assert any(cut)
    assert 0 not in cut
