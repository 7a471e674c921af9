"""Pools: answers in their order, deadlines that run for one request, and failures that stay where
they happened."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.broken_envs import HEAVY_SECONDS, TAME, Heavy, NoWorld, Slow, Stuck, Trouble

from tutelage.envs.doors import Doors
from tutelage.envs.pool import Failure, LocalPool, Pool, ProcessPool, check_observation
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
    assert not any(isinstance(made, Failure) for _, made in got)


def text(made: Observation | Failure) -> str:
    assert isinstance(made, Observation), made
    return made.text


def test_answers_in_fixed_order_are_handed_out_together(slow: ProcessPool) -> None:
    begin(slow, "a", "b", "c")
    got = ask(slow, ("a", f"{LATE} x"), ("b", f"{SOON} y"), ("c", f"{SOON} z"))
    assert [(key, text(made)) for key, made in got] == [("a", "a x"), ("b", "b y"), ("c", "c z")]
    assert slow.poll(block=True) == []


def test_answers_in_order_of_arrival_wait_for_nobody(tmp_path: Path) -> None:
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
    ((_, made),) = ask(slow, ("a", "3600"))
    assert made == Failure(stop=Stop.TIMEOUT, reason="no answer within its deadline of 4 s")


def test_starting_a_worker_counts_against_no_deadline() -> None:
    """Importing a simulator may take longer than any of its steps ever should."""
    pool = ProcessPool(Heavy(), workers=1, reset_seconds=HEAVY_SECONDS - 1, step_seconds=0)
    try:
        begin(pool, "a")
    finally:
        pool.shutdown()


def test_one_that_hangs_costs_nobody_else_anything(slow: ProcessPool) -> None:
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
    assert {text(made) for made in got.values()} == {"a one two", "b one two"}


def test_an_interrupt_leaves_the_workers_alone(slow: ProcessPool) -> None:
    begin(slow, "a")
    os.kill(slow.workers[0].process.pid, signal.SIGINT)
    ((_, made),) = ask(slow, ("a", f"{SOON} one"))
    assert text(made) == "a one"
    assert isinstance(made, Observation)
    assert made.reward == slow.workers[0].process.pid


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
    assert {key: text(made) for key, made in got.items()} == {k: f"{k} new" for k in "abc"}
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
        ((key, made),) = pool.poll(block=True)
        assert key == "a"
        assert isinstance(made, Failure)
        assert made.reason.startswith("OSError: no licence")
        pool.close("a")
    finally:
        pool.shutdown()


@pytest.mark.parametrize("local", [True, False])
def test_one_that_cannot_be_closed_harms_nobody(local: bool) -> None:
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
        ((_, made),) = ask(pool, ("b", "3"))
        assert isinstance(made, Observation)
        assert made.reward == 1
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
    for made in (
        Observation(text=""),
        Observation(text="naïve 日本 🚪", reward=-1, score=0, state=("a", 1), won=False, done=True),
        Observation(text="x", actions=("go", "é")),
    ):
        assert check_observation(made) is made


def test_a_failure_says_where_in_the_environment() -> None:
    suite = Trouble(("step raises",))
    pool = LocalPool(suite)
    begin(pool, "a", task=suite.tasks("train")[0])
    ask(pool, ("a", "3"))
    ((_, made),) = ask(pool, ("a", "3"))
    assert isinstance(made, Failure)
    assert made.reason.startswith("ValueError: the floor gave way (")
    assert "broken_envs.py:" in made.reason


def test_doors_play_alike_in_both_pools() -> None:
    suite = Doors(3)
    tasks = suite.tasks("train")[:4]
    seen = []
    pools: list[Pool] = [
        LocalPool(suite), ProcessPool(suite, workers=2, reset_seconds=20, step_seconds=20)
    ]  # fmt: skip
    for pool in pools:
        for task in tasks:
            pool.open(task.id, task)
        lines = [pool.poll(block=True)]
        for digit in "314":
            lines.append(ask(pool, *((task.id, digit) for task in tasks)))
        seen.append(lines)
        pool.shutdown()
    assert seen[0] == seen[1]
