"""Gymnasium environments (Farama-Foundation/Gymnasium) with text observations.

The agent names an action of a discrete space, or writes one for a text space.
"""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

from tutelage.envs.adapters.common import (
    DEV,
    TEST,
    TRAIN,
    Won,
    imported,
    is_won,
    seeds,
    short,
)
from tutelage.envs.named_code import imported as code
from tutelage.envs.requirements import Need, package
from tutelage.errors import EnvError, install
from tutelage.types import Observation, Task

INSTALL: Final = install("gymnasium")
_COLOURED: Final = re.compile(r"\x1b\[[\d;]*m(.*?)\x1b\[0?m", re.DOTALL)

Words = Callable[[Any, Any], str]


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    yield package("gymnasium", "gymnasium")


@dataclass(frozen=True, kw_only=True)
class Gymnasium:
    """A Gymnasium environment.

    id        what `gymnasium.make` is given: "FrozenLake-v1", or "module:Name-v0" to import first;
              or your class, which need not be registered, in a file as "module:Class"
    settings  its further arguments
    actions   the names of a discrete space's actions in their order; without them, their numbers
    words     what the agent reads: "observation", where that is text or an integer; "render",
              in the mode "ansi", what is coloured in brackets; or your function of (observation,
              environment)
    act       for other spaces: your function of (text, environment) that returns the action, or
              None for text that means none
    won       the return from which an episode is won (by default the threshold that the environment
              is registered with), or the key of `info` that tells it
    state     your function of (observation, environment): a key for the same situation
    rules     text that the agent reads first; without it, the actions
    train, dev, test   how many seeds these splits have

    Text that is no action does not step the environment: the turn is invalid, and the answer is the
    list of actions and the previous observation.
    """

    id: str | Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    words: Literal["observation", "render"] | Words = "observation"
    act: Callable[[str, Any], Any] | None = None
    won: Won | None = None
    state: Callable[[Any, Any], Hashable] | None = None
    rules: str = ""
    train: int = TRAIN
    dev: int = DEV
    test: int = TEST

    def tasks(self, split: str) -> Sequence[Task]:
        return seeds(self.name, split, self.train, self.dev, self.test)

    @property
    def name(self) -> str:
        return self.id if isinstance(self.id, str) else self.id.__name__

    def make(self) -> "GymnasiumEnv":
        gymnasium = imported("gymnasium", INSTALL)
        settings = dict(self.settings)
        if self.words == "render":
            settings.setdefault("render_mode", "ansi")
        try:
            env = self._new(gymnasium)(**settings)
        except gymnasium.error.Error as error:
            raise EnvError(f"gymnasium could not make {self.name}: {error}") from error
        return GymnasiumEnv(self, env)

    def _new(self, gymnasium: Any) -> Callable[..., Any]:
        """What makes an environment: the class, or what is registered under the id."""
        if not isinstance(self.id, str):
            return self.id
        module, colon, name = self.id.partition(":")
        if colon and name.isidentifier():
            found = getattr(code(module, where="env.options.id"), name, None)
            if isinstance(found, type) and name not in gymnasium.registry:
                return found
        return partial(gymnasium.make, self.id)

    def instructions(self) -> str:
        if self.rules:
            return self.rules
        env = self.make()
        env.close()
        names = ", ".join(env.names)
        return f"Each turn, answer with {f'one of: {names}' if names else 'your action'}."


class GymnasiumEnv:
    """One episode of a Gymnasium environment at a time."""

    def __init__(self, suite: Gymnasium, env: Any) -> None:
        self._suite, self._env = suite, env
        self._earned = 0.0
        space = env.action_space
        self._textual = type(space).__name__ == "Text"
        self.names = () if self._textual or suite.act else _names(suite, space)
        self._first = int(getattr(space, "start", 0))
        self._rule = _rule(suite, env)

    def reset(self, task: Task) -> Observation:
        seen, _ = self._env.reset(seed=task.seed)
        self._earned = 0.0
        return self._observe(seen)

    def step(self, action: str) -> Observation:
        chosen = self._action(action)
        if chosen is None:
            ways = f"the actions are {', '.join(self.names)}" if self.names else "try another"
            answer = f"{short(action)} is no action here; {ways}.\n{self._shown.text}"
            return replace(self._shown, text=answer, reward=0.0, valid=False)
        seen, reward, ended, cut, info = self._env.step(chosen)
        self._earned += float(reward)
        done = bool(ended or cut)
        won = is_won(self._rule, self._earned, info, "`info`") if done else None
        return self._observe(seen, reward=float(reward), done=done, won=won)

    def close(self) -> None:
        self._env.close()

    def _action(self, text: str) -> Any:
        if self._suite.act is not None:
            return self._suite.act(text, self._env)
        if self._textual:
            return text if self._env.action_space.contains(text) else None
        name = text.strip()
        return self._first + self.names.index(name) if name in self.names else None

    def _observe(
        self, seen: Any, *, reward: float = 0.0, done: bool = False, won: bool | None = None
    ) -> Observation:
        key = self._suite.state
        self._shown = Observation(
            text=self._words(seen),
            reward=reward,
            done=done,
            won=won,
            state=key(seen, self._env) if key is not None else None,
            actions=() if done else self.names,
        )
        return self._shown

    def _words(self, seen: Any) -> str:
        words = self._suite.words
        if callable(words):
            return words(seen, self._env)
        if words == "render":
            drawn = self._env.render()
            if not isinstance(drawn, str):
                raise EnvError(
                    f"{self._suite.name} renders {type(drawn).__name__}, not text; set `words` to "
                    "your own function of (observation, environment)"
                )
            return _COLOURED.sub(r"[\1]", drawn).strip("\n")
        if isinstance(seen, str):
            return seen
        if type(self._env.observation_space).__name__ == "Discrete":
            return str(int(seen))
        raise EnvError(
            f"{self._suite.name} shows {type(seen).__name__}, which is no text, nor the whole "
            'number of a discrete space; set words = "render" where that is text, or let '
            "a function of yours return Gymnasium(words=...) with one of (observation, "
            "environment) that returns text, as pole.py in docs/environments/your_own.md does"
        )


def _names(suite: Gymnasium, space: Any) -> tuple[str, ...]:
    if type(space).__name__ != "Discrete":
        raise EnvError(
            f"{suite.name} takes actions of {space}; set `act` to your own function of (text, "
            "environment) that returns one"
        )
    if suite.actions and len(suite.actions) != space.n:
        raise EnvError(
            f"{suite.name} has {space.n} actions, but `actions` names {len(suite.actions)}"
        )
    return tuple(suite.actions) or tuple(str(space.start + k) for k in range(space.n))


def _rule(suite: Gymnasium, env: Any) -> Won:
    if suite.won is not None:
        return suite.won
    threshold = getattr(env.spec, "reward_threshold", None)
    if threshold is None:
        raise EnvError(
            f"{suite.name} is registered without a reward threshold; set `won` to the return "
            "from which an episode is won, or to the key of `info` that tells it"
        )
    return float(threshold)
