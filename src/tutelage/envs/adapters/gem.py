"""GEM environments (axon-rl/gem), selected by their ids.

GEM draws from the global random generators of Python and numpy. Each environment here keeps its own
generator states, so that episodes played side by side do not influence each other.
"""

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from tutelage.envs.adapters.common import DEV, TEST, TRAIN, Won, imported, is_won, seeds
from tutelage.envs.requirements import Need, package
from tutelage.errors import EnvError, did_you_mean, install
from tutelage.types import Observation, Task

INSTALL: Final = install("gem")
T = TypeVar("T")


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    yield package("gem-llm", "gem")


@dataclass(frozen=True, kw_only=True)
class Gem:
    """A GEM environment.

    id        what `gem.make` is given, such as "game:GuessTheNumber-v0-easy"
    settings  its further arguments
    won       the last step's reward from which an episode is won, or the key of `info` that tells
              it
    rules     text that the agent reads first
    train, dev, test   how many seeds these splits have

    What GEM puts under "suffix" follows the observation on a line of its own.
    """

    id: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    won: Won = 1.0
    rules: str = "Each turn, give your answer in the form that is asked for."
    train: int = TRAIN
    dev: int = DEV
    test: int = TEST

    def tasks(self, split: str) -> Sequence[Task]:
        return seeds(self.id, split, self.train, self.dev, self.test)

    def make(self) -> "GemEnv":
        return GemEnv(self)

    def instructions(self) -> str:
        return self.rules


class GemEnv:
    """One episode of a GEM environment at a time."""

    def __init__(self, suite: Gem) -> None:
        gem = _gem()
        known = imported("gem.envs.registration", INSTALL).ENV_REGISTRY
        if suite.id not in known:
            raise EnvError(
                f"GEM has no environment {suite.id!r}{did_you_mean(suite.id, known)}; "
                "`gem.print_envs()` lists them"
            )
        self._suite = suite
        self._numpy = imported("numpy.random", INSTALL)
        self._mine: tuple[Any, Any] | None = None
        self._env = self._apart(lambda: gem.make(suite.id, **suite.settings))

    def reset(self, task: Task) -> Observation:
        seen, info = self._apart(lambda: self._env.reset(seed=task.seed))
        return Observation(text=_text(seen, info))

    def step(self, action: str) -> Observation:
        seen, reward, ended, cut, info = self._apart(lambda: self._env.step(action))
        done = bool(ended or cut)
        return Observation(
            text=seen if done else _text(seen, info),
            reward=float(reward),
            done=done,
            won=is_won(self._suite.won, float(reward), info, "`info`") if done else None,
        )

    def close(self) -> None:
        self._mine = None

    def _apart(self, call: Callable[[], T]) -> T:
        """Call with this environment's own states of the global generators, then restore the
        others."""
        outer = random.getstate(), self._numpy.get_state()
        if self._mine is not None:
            random.setstate(self._mine[0])
            self._numpy.set_state(self._mine[1])
        try:
            return call()
        finally:
            self._mine = random.getstate(), self._numpy.get_state()
            random.setstate(outer[0])
            self._numpy.set_state(outer[1])


def _text(seen: str, info: Mapping[str, Any]) -> str:
    return "\n".join(part.strip("\n") for part in (seen, info.get("suffix", "")) if part)


def _gem() -> Any:
    """Import the package, and undo the logging setup that its import does."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    gem = imported("gem", INSTALL)
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    return gem
