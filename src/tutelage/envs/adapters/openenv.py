"""OpenEnv servers (meta-pytorch/OpenEnv), one WebSocket session per environment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tutelage.envs.adapters.common import DEV, TEST, TRAIN, Won, imported, is_won, seeds
from tutelage.envs.requirements import Need, package
from tutelage.errors import EnvError, install
from tutelage.types import Observation, Task

INSTALL: Final = install("openenv")


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    yield package("openenv", "openenv")


@dataclass(frozen=True, kw_only=True)
class OpenEnv:
    """An environment that an OpenEnv server serves.

    url       where the server is, such as "http://localhost:8000"
    action    the field of its action that takes the agent's text; or your function from the text
              to the whole action, None for text that means none
    text      the field of its observation that the agent reads; or your function of the observation
    won       the last step's reward from which an episode is won, or the field of the observation
              that says so
    settings  further arguments of every reset, besides the seed
    rules     text that the agent reads first
    seconds   how long an answer may take
    train, dev, test   how many seeds these splits have
    """

    url: str
    action: str | Callable[[str], Mapping[str, Any] | None]
    text: str | Callable[[Mapping[str, Any]], str]
    won: Won = 1.0
    settings: Mapping[str, Any] | None = None
    rules: str = "Each turn, give your answer in the form that is asked for."
    seconds: float = 30.0
    train: int = TRAIN
    dev: int = DEV
    test: int = TEST

    def tasks(self, split: str) -> Sequence[Task]:
        return seeds("openenv", split, self.train, self.dev, self.test)

    def make(self) -> "OpenEnvSession":
        return OpenEnvSession(self)

    def instructions(self) -> str:
        return self.rules


class OpenEnvSession:
    """One session, opened by its first reset."""

    def __init__(self, suite: OpenEnv) -> None:
        client = imported("openenv.core", INSTALL).GenericEnvClient
        self._suite = suite
        self._client = client(base_url=suite.url, message_timeout_s=suite.seconds).sync()
        self._open = False

    def reset(self, task: Task) -> Observation:
        if not self._open:
            self._connect()
        result = self._call(self._client.reset, seed=task.seed, **(self._suite.settings or {}))
        return Observation(text=self._text(result.observation), done=bool(result.done))

    def step(self, action: str) -> Observation:
        how = self._suite.action
        sent = how(action) if callable(how) else {how: action}
        if sent is None:
            return Observation(text="That is no action here; try another.", valid=False)
        result = self._call(self._client.step, dict(sent))
        seen, reward, done = result.observation, float(result.reward or 0.0), bool(result.done)
        won = is_won(self._suite.won, reward, seen, "the observation") if done else None
        return Observation(text=self._text(seen), reward=reward, done=done, won=won)

    def close(self) -> None:
        if self._open:
            self._client.close()
        self._open = False

    def _connect(self) -> None:
        try:
            self._client.connect()
        except (OSError, TimeoutError) as error:
            raise EnvError(
                f"no OpenEnv server answers at {self._suite.url} ({error}); start it, or fix `url`"
            ) from error
        self._open = True

    def _call(self, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        lost = imported("websockets.exceptions", INSTALL).WebSocketException
        try:
            return call(*args, **named)
        except (RuntimeError, OSError, lost) as error:
            self.close()
            reason = str(error) or type(error).__name__
            fix = "; does its action have this field?" if "VALIDATION" in reason else ""
            raise EnvError(
                f"the OpenEnv server at {self._suite.url} said: {reason}{fix}"
            ) from error

    def _text(self, seen: Mapping[str, Any]) -> str:
        how = self._suite.text
        if callable(how):
            return how(seen)
        if not isinstance(seen.get(how), str):
            texts = [name for name, value in seen.items() if isinstance(value, str)]
            raise EnvError(
                f"the server's observation has no text {how!r}; its texts are "
                f"{', '.join(texts) or 'none'}: set `text` to one, or to your own function of the "
                "observation"
            )
        return str(seen[how])
