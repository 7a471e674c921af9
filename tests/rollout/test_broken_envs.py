"""A bad rollout is data: whatever an environment does, its episode is recorded, played again, and
nobody else's changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.broken_envs import TAME, WILD, Trouble
from support.fake_policy import Table

from tutelage.envs.base import Suite
from tutelage.envs.pool import LocalPool, Pool, ProcessPool
from tutelage.objective import Algorithm
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.rollout.record import dump, episode_line
from tutelage.rollout.session import Limits, Session
from tutelage.types import Episode, Stop, Task

ALONE = Algorithm(terms=())
Make = Callable[[Suite], Pool]


def processes(suite: Suite) -> Pool:
    return ProcessPool(suite, workers=2, reset_seconds=2, step_seconds=4)


def as_they_come(suite: Suite) -> Pool:
    return ProcessPool(suite, workers=2, reset_seconds=2, step_seconds=4, order="arrival")


def run(suite: Suite, make: Make, tasks: list[Task], *, retries: int) -> list[Episode]:
    pool = make(suite)
    on = Session(
        suite=suite,
        pool=pool,
        policies={"self": Table(knows=1.0)},
        context=Context(),
        limits=Limits(max_turns=9, max_new_tokens=8, retries=retries, concurrency=5),
    )
    try:
        return play(on, tasks, ALONE, seed=3)
    finally:
        pool.shutdown()


def stop(kind: str) -> Stop:
    return Stop.TIMEOUT if kind.startswith("hangs") else Stop.ERROR


@pytest.mark.parametrize(
    ("make", "kinds"),
    [(LocalPool, TAME), (processes, (*WILD, *TAME[:2])), (as_they_come, WILD)],
    ids=["in this process", "fixed order", "order of arrival"],
)
def test_one_that_breaks_once_is_played_again_and_the_others_never_know(
    make: Make, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    suite = Trouble(kinds, str(tmp_path))
    tasks = suite.tasks("train")
    episodes = run(suite, make, tasks, retries=1)
    calm = run(Trouble(()), LocalPool, tasks[len(kinds) :], retries=0)
    by_task = {task.id: [e for e in episodes if e.task.id == task.id] for task in tasks}
    assert [e.task.id for e in episodes] == [t.id for t in tasks for _ in by_task[t.id]]
    for task, kind in zip(tasks, kinds, strict=False):
        whole, broken = by_task[task.id]  # the one that counts comes first
        assert broken.stop is stop(kind)
        assert broken.stop.broken
        assert not broken.won
        assert broken.error
        assert (whole.stop, whole.error, len(whole.turns)) == (Stop.DONE, "", 3)
        assert len(broken.turns) == (0 if "reset" in kind else 2)
        # what had been earned before it broke is kept, and the turn that broke it earned nothing
        assert [t.reward for t in broken.turns][1:] in ([], [0.0])
        assert dump(episode_line(broken, 0))
    assert [e for t in tasks[len(kinds) :] for e in by_task[t.id]] == calm


@pytest.mark.parametrize("retries", [0, 2])
def test_one_that_always_breaks_is_given_up(retries: int) -> None:
    suite = Trouble(("step raises",))
    tasks = suite.tasks("train")
    episodes = run(suite, LocalPool, tasks, retries=retries)
    bad = [e for e in episodes if e.stop.broken]
    assert len(bad) == retries + 1
    assert {e.task.id for e in bad} == {"bad/step raises"}
    assert episodes[: len(bad)] == bad
    # a new attempt is sampled anew
    assert len({tuple(t.tokens for t in e.turns) for e in bad}) > min(retries, 1)
    assert all("the floor gave way" in e.error for e in bad)


def test_everything_breaking_ends_all_the_same() -> None:
    suite = Trouble(TAME)
    episodes = run(suite, LocalPool, suite.tasks("train")[: len(TAME)], retries=1)
    assert len(episodes) == 2 * len(TAME)
    assert all(e.stop is Stop.ERROR for e in episodes)
