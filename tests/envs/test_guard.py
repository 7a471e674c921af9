"""Calls into environments outside of a pool: what was made is closed, also where a call raised."""

import contextlib
from collections.abc import Callable, Sequence

import pytest
from support.sessions import session

from tutelage.envs.check import CHECKS, Check
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.errors import EnvError
from tutelage.evaluation.evaluate import fingerprint
from tutelage.objective import View
from tutelage.prompts.context import Context
from tutelage.rollout.hint_preparation import prove
from tutelage.runs.models import texts
from tutelage.runs.selftest import check_expert
from tutelage.types import Observation, Task


class Failing(Doors):
    """Doors that cannot be opened; it counts the environments that are open."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "alive", [])

    def make(self) -> "FailingEnv":
        env = FailingEnv()
        env.alive = self.alive  # type: ignore[attr-defined]
        env.alive.append(env)
        return env


class FailingEnv(DoorsEnv):
    alive: list[DoorsEnv]

    def reset(self, task: Task) -> Observation:
        raise RuntimeError("no world today")

    def close(self) -> None:
        self.alive.remove(self)


def tokenizer_texts(suite: Doors, tasks: Sequence[Task]) -> None:
    list(texts(suite, Context(), "train"))


def hinted(suite: Doors, tasks: Sequence[Task]) -> None:
    prove(session(suite), {"wise": View(hint="plan")}, tasks)


def imitated(suite: Doors, tasks: Sequence[Task]) -> None:
    check_expert(suite, tasks[0], 9, aloud=False)


class Falling(Failing):
    """Doors that fall on who opens them."""

    def make(self) -> "FallingEnv":
        env = FallingEnv()
        env.alive = self.alive  # type: ignore[attr-defined]
        env.alive.append(env)
        return env


class FallingEnv(FailingEnv):
    def reset(self, task: Task) -> Observation:
        return DoorsEnv.reset(self, task)

    def step(self, action: str) -> Observation:
        raise RuntimeError("the door fell")


@pytest.mark.parametrize("suite", [Failing(), Falling()], ids=["reset", "step"])
@pytest.mark.parametrize("run", [run for _, run in CHECKS], ids=[name for name, _ in CHECKS])
def test_checks_close_what_raised(run: Check, suite: Failing) -> None:
    with contextlib.suppress(EnvError):
        list(run(suite, suite.tasks("train")[:2]))
    assert suite.alive == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", [fingerprint, tokenizer_texts, hinted, imitated])
def test_an_environment_that_raised_is_closed(
    use: Callable[[Doors, Sequence[Task]], object],
) -> None:
    suite = Failing()
    with pytest.raises((EnvError, RuntimeError), match="no world today"):
        use(suite, suite.tasks("train")[:2])
    assert suite.alive == []  # type: ignore[attr-defined]
