"""Pools: answers in their order, deadlines that run for one request, and failures that stay where
they happened."""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy
import pytest
import torch
from support.broken_envs import (
    HEAVY_SECONDS,
    TAME,
    Closing,
    Heavy,
    Locking,
    Never,
    NoWorld,
    Odd,
    Slow,
    Stuck,
    Trouble,
)

from tutelage.envs import pool as pools
from tutelage.envs.doors import Doors
from tutelage.envs.observations import LONGEST, observation, shortened
from tutelage.envs.pool import Failure, LocalPool, Pool, ProcessPool
from tutelage.types import Observation, Stop, Task

SOON, LATE = "0", "0.4"
DEADLINE = 4.0  # of one step: a busy machine takes a second for what takes a millisecond otherwise


@pytest.fixture
def slow() -> Iterator[ProcessPool]:
    pool = ProcessPool(Slow(), workers=2, reset_seconds=20, step_seconds=DEADLINE)
    yield pool
    pool.shutdown()


def ask(pool: Pool, *wanted: tuple[str, str]) -> list[tuple[str, Observation | Failure]]:
    """Act on several, and wait for all."""
    for key, action in wanted:
        pool.act(key, action)
    got: list[tuple[str, Observation | Failure]] = []
    while len(got) < len(wanted):
        got += pool.poll(block=True)
    return got


def begin(pool: Pool, *keys: str, task: Task | None = None) -> None:
    for key in keys:
        pool.open(key, task or Task(id=key))
    got: list[tuple[str, Observation | Failure]] = []
    while len(got) < len(keys):
        got += pool.poll(block=True)
    assert not any(isinstance(result, Failure) for _, result in got)


def text(result: Observation | Failure) -> str:
    assert isinstance(result, Observation), result
    return result.text


def test_answers_in_fixed_order_are_handed_out_together(slow: ProcessPool) -> None:
    begin(slow, "a", "b", "c")
    got = ask(slow, ("a", f"{LATE} x"), ("b", f"{SOON} y"), ("c", f"{SOON} z"))
    assert [(key, text(result)) for key, result in got] == [
        ("a", "a x"),
        ("b", "b y"),
        ("c", "c z"),
    ]
    assert slow.poll(block=True) == []


def test_answers_in_order_of_arrival_do_not_wait(tmp_path: Path) -> None:
    pool = ProcessPool(Slow(), workers=2, reset_seconds=20, step_seconds=20, order="arrival")
    try:
        begin(pool, "a", "b")
        pool.act("a", f"{tmp_path / 'go'} x")
        pool.act("b", f"{SOON} y")
        first = pool.poll(block=True)
        assert [key for key, _ in first] == ["b"]
        (tmp_path / "go").touch()
        assert [key for key, _ in pool.poll(block=True)] == ["a"]
        assert pool.poll(block=True) == []
    finally:
        pool.shutdown()


def test_a_poll_that_may_not_wait_hands_out_what_is_there(tmp_path: Path) -> None:
    pool = ProcessPool(Slow(), workers=1, reset_seconds=20, step_seconds=20, order="arrival")
    try:
        begin(pool, "a")
        pool.act("a", f"{tmp_path / 'go'} x")
        assert pool.poll(block=False) == []
        (tmp_path / "go").touch()
        assert text(pool.poll(block=True)[0][1]) == "a x"
    finally:
        pool.shutdown()


def test_a_deadline_is_that_of_one_step_however_long_the_episode(slow: ProcessPool) -> None:
    begin(slow, "a")
    for _ in range(30):
        ask(slow, ("a", SOON))
    ((_, result),) = ask(slow, ("a", "3600"))
    assert result == Failure(stop=Stop.TIMEOUT, reason="no answer within its deadline of 4 s")


def test_starting_a_worker_counts_against_no_deadline() -> None:
    """Importing a simulator may take longer than any of its steps ever should."""
    pool = ProcessPool(Heavy(), workers=1, reset_seconds=HEAVY_SECONDS - 1, step_seconds=0)
    try:
        begin(pool, "a")
    finally:
        pool.shutdown()


def test_an_environment_that_hangs_harms_no_other(slow: ProcessPool) -> None:
    """Of four on two workers, one hangs: its neighbour is played again on a new worker."""
    begin(slow, "a", "b", "c", "d")
    ask(slow, *((key, f"{SOON} one") for key in "abcd"))
    got = dict(ask(slow, ("a", "3600"), *((key, f"{SOON} two") for key in "bcd")))
    assert isinstance(got["a"], Failure)
    assert got["a"].stop is Stop.TIMEOUT
    assert [text(got[key]) for key in "bcd"] == ["b one two", "c one two", "d one two"]
    slow.close("a")
    again = dict(ask(slow, *((key, f"{SOON} three") for key in "bcd")))
    assert [text(again[key]) for key in "bcd"] == [f"{key} one two three" for key in "bcd"]


def test_a_worker_killed_between_requests_is_replaced_unseen(slow: ProcessPool) -> None:
    begin(slow, "a", "b")
    ask(slow, ("a", f"{SOON} one"), ("b", f"{SOON} one"))
    for worker in slow.workers:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
    got = dict(ask(slow, ("a", f"{SOON} two"), ("b", f"{SOON} two")))
    assert {text(result) for result in got.values()} == {"a one two", "b one two"}


def test_an_interrupt_leaves_the_workers_alone(slow: ProcessPool) -> None:
    begin(slow, "a")
    os.kill(slow.workers[0].process.pid, signal.SIGINT)
    ((_, result),) = ask(slow, ("a", f"{SOON} one"))
    assert text(result) == "a one"
    assert isinstance(result, Observation)
    assert result.reward == slow.workers[0].process.pid


@pytest.mark.parametrize("local", [True, False])
def test_an_episode_that_is_closed_owes_no_answer(
    local: bool, slow: ProcessPool, tmp_path: Path
) -> None:
    pool: Pool = LocalPool(Slow()) if local else slow
    begin(pool, "a", "b", "c")
    # in another process it never answers; in this one it is not asked before the next poll
    pool.act("a", f"{LATE if local else tmp_path / 'never'} old")
    pool.act("c", f"{LATE} old")  # waits behind a
    busy = slow.workers[0].process.pid
    pool.close("a")
    assert local or slow.workers[0].process.pid != busy  # nobody waits for it to be done
    pool.close("c")
    begin(pool, "a", "c")
    got = dict(ask(pool, ("a", f"{SOON} new"), ("b", f"{SOON} new"), ("c", f"{SOON} new")))
    assert {key: text(result) for key, result in got.items()} == {k: f"{k} new" for k in "abc"}
    assert pool.poll(block=True) == []


@pytest.mark.parametrize("local", [True, False])
def test_a_suite_that_cannot_make_its_environment_fails_an_episode(local: bool) -> None:
    suite = NoWorld()
    pool: Pool = (
        LocalPool(suite)
        if local
        else ProcessPool(suite, workers=1, reset_seconds=20, step_seconds=20)
    )
    try:
        pool.open("a", Task(id="a"))
        ((key, result),) = pool.poll(block=True)
        assert key == "a"
        assert isinstance(result, Failure)
        assert result.reason.startswith("OSError: no licence")
        pool.close("a")
    finally:
        pool.shutdown()


@pytest.mark.parametrize("local", [True, False])
def test_an_environment_that_cannot_close_harms_no_other(local: bool) -> None:
    suite = NoWorld(make_works=True)
    pool: Pool = (
        LocalPool(suite)
        if local
        else ProcessPool(suite, workers=1, reset_seconds=20, step_seconds=20)
    )
    task = suite.tasks("train")[0]
    try:
        begin(pool, "a", "b", task=task)
        pool.close("a")
        ((_, result),) = ask(pool, ("b", "3"))
        assert isinstance(result, Observation)
        assert result.reward == 1
    finally:
        pool.shutdown()
    with pytest.raises(RuntimeError, match="stuck"):
        Stuck().close()


@pytest.mark.parametrize("kind", TAME)
def test_what_breaks_the_contract_is_a_failure_with_its_cause(kind: str) -> None:
    suite = Trouble((kind,))
    pool = LocalPool(suite)
    pool.open("a", suite.tasks("train")[0])
    pool.open("b", suite.tasks("train")[1])
    got = dict(pool.poll(block=True))
    for _ in range(2):
        if isinstance(got["a"], Observation):
            got = dict(ask(pool, ("a", "3"), ("b", "3")))
        assert isinstance(got["b"], Observation)
    assert isinstance(got["a"], Failure)
    assert got["a"].stop is Stop.ERROR
    assert ":" in got["a"].reason
    assert got["a"].reason.split(":")[0].endswith("Error")


def test_a_sound_observation_passes_as_it_is() -> None:
    for result in (
        Observation(text=""),
        Observation(text="naïve 日本 🚪", reward=-1, score=0, state=("a", 1), won=False, done=True),
        Observation(text="x", actions=("go", "é")),
    ):
        assert observation(result) is result


def test_a_failure_says_where_in_the_environment() -> None:
    suite = Trouble(("step raises",))
    pool = LocalPool(suite)
    begin(pool, "a", task=suite.tasks("train")[0])
    ask(pool, ("a", "3"))
    ((_, result),) = ask(pool, ("a", "3"))
    assert isinstance(result, Failure)
    assert result.reason.startswith("ValueError: the floor gave way (")
    assert "broken_envs.py:" in result.reason


def test_doors_play_alike_in_both_pools() -> None:
    suite = Doors(3)
    tasks = suite.tasks("train")[:4]
    seen = []
    pools: list[Pool] = [
        LocalPool(suite),
        ProcessPool(suite, workers=2, reset_seconds=20, step_seconds=20),
    ]
    for pool in pools:
        for task in tasks:
            pool.open(task.id, task)
        lines = [pool.poll(block=True)]
        for digit in "314":
            lines.append(ask(pool, *((task.id, digit) for task in tasks)))
        seen.append(lines)
        pool.shutdown()
    assert seen[0] == seen[1]


class Word(str):
    """A string of a user's own class, such as numpy's."""


CONVERTED = {
    "numpy reward": ("reward", numpy.float32(0.5), 0.5),
    "numpy whole reward": ("reward", numpy.int64(2), 2.0),
    "numpy array of no dimension": ("reward", numpy.array(0.5), 0.5),
    "tensor": ("reward", torch.tensor(0.5), 0.5),
    "true reward": ("reward", True, 1.0),
    "false reward": ("reward", False, 0.0),
    "fraction": ("reward", Fraction(1, 2), 0.5),
    "decimal": ("reward", Decimal("0.5"), 0.5),
    "numpy score": ("score", numpy.float64(0.5), 0.5),
    "numpy valid": ("valid", numpy.bool_(False), False),
    "one for valid": ("valid", 1, True),
    "tensor for valid": ("valid", torch.tensor(True), True),
    "own string": ("text", Word("hello"), "hello"),
    "numpy string": ("text", numpy.str_("hello"), "hello"),
    "list of actions": ("actions", ["a", Word("b")], ("a", "b")),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_has_a_plain_value_becomes_it(kind: str) -> None:
    name, given, wanted = CONVERTED[kind]
    plain = getattr(observation(Observation(**{"text": "x", name: given})), name)  # type: ignore[arg-type]
    assert plain == wanted
    assert type(plain) is type(wanted)
    assert not isinstance(plain, tuple) or {type(each) for each in plain} == {str}


REFUSED = {
    "array of one": ("reward", numpy.array([0.5]), TypeError, "whose reward is ndarray"),
    "complex": ("reward", 1j, TypeError, "whose reward is complex; it must be a number"),
    "numpy complex": ("reward", numpy.complex64(1), TypeError, "whose reward is complex64"),
    "nothing": ("reward", None, TypeError, "whose reward is NoneType"),
    "text": ("reward", "1", TypeError, "whose reward is str"),
    "numpy nan": ("reward", numpy.float32("nan"), ValueError, "whose reward is nan"),
    "infinite": ("reward", -math.inf, ValueError, "whose reward is -inf; it must be finite"),
    "too large": ("reward", Fraction(10**400), TypeError, "whose reward is Fraction"),
    "two for done": ("done", 2, TypeError, "whose done is 2; it must be True or False"),
    "text for done": ("done", "True", TypeError, "whose done is 'True'"),
    "array for done": ("done", numpy.array([True]), TypeError, "whose done is array"),
    "state without comparison": ("state", Never(), TypeError, "cannot be compared with others"),
    "state that is not itself": ("state", math.nan, ValueError, "is not equal to itself"),
    "half a letter": ("text", "a\ud800", ValueError, "holds half a surrogate pair"),
    "text for actions": ("actions", "go", TypeError, "whose actions are not a tuple of strings"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_none_is_refused_with_a_sentence(kind: str) -> None:
    name, given, error, words = REFUSED[kind]
    with pytest.raises(error) as caught:
        observation(Observation(**{"text": "x", name: given}))  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def pool_for(local: bool, suite: object, seconds: float = 20) -> Pool:
    if local:
        return LocalPool(suite)  # type: ignore[arg-type]
    return ProcessPool(suite, workers=1, reset_seconds=seconds, step_seconds=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("local", [True, False])
def test_a_text_of_megabytes_is_cut_and_counted(
    local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    suite = Odd((("text", "x" * 3_000_000),))
    pool = pool_for(local, suite)
    begin(pool, "a", task=suite.tasks("train")[0])
    ask(pool, ("a", "3"))
    ((_, seen),) = ask(pool, ("a", "3"))
    assert text(seen) == "x" * LONGEST + "\n[cut here: 2,800,000 more characters]"
    pool.close("a")
    pool.shutdown()
    assert [record.getMessage() for record in caplog.records] == [
        "1 observation of more than 200,000 characters: only the beginning was shown; let the "
        "environment return shorter texts"
    ]
    exact = Observation(text="x" * LONGEST)
    assert shortened(exact) is exact


def test_a_state_that_cannot_be_sent_costs_its_episode() -> None:
    suite = Odd(local_state=True)
    pool = pool_for(False, suite)
    try:
        begin(pool, "a", "b", task=suite.tasks("train")[0])
        process = pool.workers[0].process.pid  # type: ignore[attr-defined]
        ((_, seen),) = ask(pool, ("a", "3"))
        assert isinstance(seen, Failure)
        assert "pickle" in seen.reason
        assert pool.workers[0].process.pid == process  # type: ignore[attr-defined]
    finally:
        pool.shutdown()


@pytest.mark.parametrize("local", [True, False])
def test_environments_that_cannot_be_closed_are_counted_in_one_line(
    local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    suite = Closing(-1)
    pool = pool_for(local, suite)
    for key in "abc":
        begin(pool, key, task=suite.tasks("train")[0])
        pool.close(key)
    pool.shutdown()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("3 environments could not be closed (close raised RuntimeError")
    assert caplog.records[0].levelno == logging.WARNING


def test_one_that_hangs_while_it_is_closed_delays_others_a_little(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next episode of its worker is played, and fails for no fault of another."""
    monkeypatch.setattr(pools, "CLOSE_SECONDS", 0.5)
    suite = Closing(3600)
    pool = pool_for(False, suite, seconds=600)
    task, since = suite.tasks("train")[0], time.monotonic()
    begin(pool, "a", "b", task=task)
    ask(pool, ("b", "3"))
    pool.close("a")
    ((_, seen),) = ask(pool, ("b", "3"))
    assert isinstance(seen, Observation)
    assert seen.won  # its first step was played again
    pool.close("b")
    pool.shutdown()
    assert time.monotonic() - since < 60
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("2 environments could not be closed (`close` did not return within")


def test_a_slow_step_before_a_close_has_its_own_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "CLOSE_SECONDS", 0.2)
    pool = pool_for(False, Slow())
    begin(pool, "a", "b")
    pool.act("a", "1.0 x")
    pool.close("b")  # which waits behind the step
    ((_, seen),) = pool.poll(block=True)
    assert text(seen) == "a x"
    pool.shutdown()
    assert not caplog.records


def test_environments_are_closed_before_the_workers_end(tmp_path: Path) -> None:
    suite = Closing(0.3)
    pool = pool_for(False, suite)
    begin(pool, "a", task=suite.tasks("train")[0])
    pool.close("a")
    pool.shutdown()
    assert pool.workers[0].closing == 0  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems spawn by default")
def test_a_lock_in_a_worker_has_no_name_that_would_stay_behind() -> None:
    pool = ProcessPool(Locking(), workers=1, reset_seconds=20, step_seconds=20)
    pool.open("a", Task(id="lock"))
    ((_, answer),) = pool.poll(block=True)
    pool.shutdown()
    assert isinstance(answer, Observation)
    assert answer.text == "a lock named None"


SCRIPT = """\
from tutelage.envs.doors import Doors
from tutelage.envs.pool import ProcessPool
from tutelage.errors import TutelageError

class Mine(Doors):
    pass

def main():
    suite = Mine(1)
    pool = ProcessPool(suite, workers=1, reset_seconds=20, step_seconds=20)
    try:
        pool.open("a", suite.tasks("train")[0])
        print(pool.poll(block=True)[0][1].text)
    except TutelageError as error:
        print(error)
    finally:
        pool.shutdown()

"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_without_a_main_guard_is_reported(guarded: bool, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    guard = 'if __name__ == "__main__":\n    ' if guarded else ""
    path.write_text(f"{SCRIPT}{guard}main()\n")
    ran = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=False, timeout=100
    )
    if guarded:
        assert ran.stdout == "a\n"
    else:
        assert f"each imports {path} again" in ran.stdout
        assert 'if __name__ == "__main__":' in ran.stdout
