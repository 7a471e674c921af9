"""Where environments run: in this process, or in worker processes with deadlines.

Requests go in by key, answers come out in whatever order; a failed environment answers with a
`Failure`, never with an exception.
"""

import math
import multiprocessing as mp
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Literal, Protocol, TypeVar

from tutelage.envs.base import Env, Suite
from tutelage.types import Observation, Stop, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an environment has no observation to give."""

    stop: Stop
    reason: str


Answer = tuple[str, Observation | Failure]
T = TypeVar("T")
START_SECONDS = 60.0
"""What a worker may take to start Python and import the suite, before any deadline runs."""


class Pool(Protocol):
    def open(self, key: str, task: Task) -> None: ...
    def act(self, key: str, action: str) -> None: ...
    def close(self, key: str) -> None: ...
    def poll(self, *, block: bool) -> list[Answer]:
        """Answers that are there; with `block`, at least one if any is owed."""
        ...

    def shutdown(self) -> None: ...


def check_observation(made: object) -> Observation:
    """Refuse what is not an observation, before it spoils an episode or a log.

    Raises TypeError or ValueError, which say what is wrong.
    """
    if not isinstance(made, Observation):
        raise TypeError(
            f"reset and step must return an tutelage Observation, got {type(made).__name__}"
        )
    for name, kind, word in (
        ("text", str, "a string"),
        ("reward", int | float, "a number"),
        ("done", bool, "True or False"),
        ("valid", bool, "True or False"),
        ("won", bool | None, "True, False or None"),
        ("score", int | float | None, "a number or None"),
    ):
        if not isinstance(getattr(made, name), kind):
            got = type(getattr(made, name)).__name__
            raise TypeError(f"an observation's {name} must be {word}, got {got}")
    for name, value in (("reward", made.reward), ("score", made.score)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"an observation's {name} must be finite, got {value}")
    for words in (made.text, *made.actions):
        words.encode()  # half a surrogate pair can be neither tokenized nor logged
    hash(made.state)
    return made


def _guarded(call: Callable[[], T]) -> T | Failure:
    """Run foreign code. The one broad except of the project: a bad rollout is data."""
    try:
        return call()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(
            stop=Stop.ERROR,
            reason=f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})",
        )


class _Envs:
    """Environments by key; none of them can do more than fail."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.by_key: dict[str, Env] = {}

    def open(self, key: str, task: Task) -> Observation | Failure:
        def begin() -> Observation:
            self.by_key[key] = self.suite.make()
            return check_observation(self.by_key[key].reset(task))

        return _guarded(begin)

    def act(self, key: str, action: str) -> Observation | Failure:
        return _guarded(lambda: check_observation(self.by_key[key].step(action)))

    def close(self, key: str) -> None:
        env = self.by_key.pop(key, None)
        if env is not None:
            _guarded(env.close)  # its episode is over, so a failure concerns nobody


class LocalPool:
    """Environments of this process: no overhead, no protection. For trusted, fast ones."""

    def __init__(self, suite: Suite) -> None:
        self.envs = _Envs(suite)
        self.ready: list[Answer] = []

    def open(self, key: str, task: Task) -> None:
        self.ready.append((key, self.envs.open(key, task)))

    def act(self, key: str, action: str) -> None:
        self.ready.append((key, self.envs.act(key, action)))

    def close(self, key: str) -> None:
        self.ready = [answer for answer in self.ready if answer[0] != key]
        self.envs.close(key)

    def poll(self, *, block: bool) -> list[Answer]:
        ready, self.ready = self.ready, []
        return ready

    def shutdown(self) -> None:
        for key in list(self.envs.by_key):
            self.close(key)


def _serve(suite: Suite, pipe: Connection) -> None:
    """A worker: (verb, key, task, actions) in, an observation or a failure out."""
    # an interrupt is for the parent, which ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    envs = _Envs(suite)
    pipe.send(("", None))
    while True:
        try:
            verb, key, task, actions = pipe.recv()
        except EOFError:
            return
        if verb == "close":
            envs.close(key)
            continue
        made: Observation | Failure | None = envs.open(key, task) if verb == "open" else None
        for action in actions:
            if not isinstance(made, Failure):
                made = envs.act(key, action)
        pipe.send((key, made))


@dataclass(slots=True)
class _Worker:
    process: mp.process.BaseProcess
    pipe: Connection
    queue: list[str] = field(default_factory=list)  # keys that wait for their turn
    busy: str = ""  # the key that is being served
    since: float = 0.0
    limit: float = 0.0  # seconds from `since`
    up: bool = False  # whether it has started


@dataclass(slots=True)
class _Live:
    """An environment as the pool knows it: enough to build it again elsewhere."""

    task: Task
    worker: int
    actions: list[str] = field(default_factory=list)
    opened: bool = False  # whether its worker holds it


class ProcessPool:
    """Environments in worker processes. One that raises, hangs past its deadline or dies costs its
    own episode only: its worker is replaced, and the worker's other episodes are replayed there.

    order  "fixed" hands answers out in the order of the requests, all that are owed at once, so
           that a run is reproducible to the byte; "arrival" hands each out as it comes
    """

    def __init__(
        self, suite: Suite, *, workers: int, reset_seconds: float, step_seconds: float,
        order: Literal["fixed", "arrival"] = "fixed",
    ) -> None:  # fmt: skip
        self.suite, self.order = suite, order
        self.reset_seconds, self.step_seconds = reset_seconds, step_seconds
        self.context = mp.get_context("spawn")
        self.live: dict[str, _Live] = {}
        self.owed: list[str] = []
        self.answers: dict[str, Observation | Failure] = {}
        self.workers = [self._start() for _ in range(workers)]
        self.turn = 0

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.suite, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours)

    def open(self, key: str, task: Task) -> None:
        self.live[key] = _Live(task=task, worker=self.turn % len(self.workers))
        self.turn += 1
        self._ask(key)

    def act(self, key: str, action: str) -> None:
        self.live[key].actions.append(action)
        self._ask(key)

    def _ask(self, key: str) -> None:
        self.owed.append(key)
        at = self.live[key].worker
        self.workers[at].queue.append(key)
        self._feed(at)

    def _feed(self, at: int) -> None:
        """Hand a worker that is free the next of its keys."""
        if self.workers[at].busy or not self.workers[at].queue:
            return
        if not self.workers[at].process.is_alive():
            self._renew(at)  # it died between requests, which says nothing about this episode
        worker = self.workers[at]
        key = worker.queue.pop(0)
        live = self.live[key]
        verb, actions = ("step", live.actions[-1:]) if live.opened else ("open", live.actions)
        seconds = self.step_seconds * len(actions)
        worker.limit = seconds if live.opened else seconds + self.reset_seconds
        worker.busy, worker.since = key, time.monotonic()
        live.opened = True
        try:
            worker.pipe.send((verb, key, live.task, actions))
        except OSError:
            return  # found dead by the next poll, which answers for it

    def poll(self, *, block: bool) -> list[Answer]:
        whole = self.order == "fixed"
        while True:
            self._collect(0.05 if block or whole else 0.0)
            ready = [k for k in self.owed if k in self.answers]
            if ready and (not whole or len(ready) == len(self.owed)):
                self.owed = [k for k in self.owed if k not in self.answers]
                return [(k, self.answers.pop(k)) for k in ready]
            if not self.owed or not (block or whole):
                return []

    def _collect(self, patience: float) -> None:
        pipes = {w.pipe: i for i, w in enumerate(self.workers) if w.busy}
        for pipe in wait(list(pipes), timeout=patience) if pipes else []:
            assert isinstance(pipe, Connection)
            at = pipes[pipe]
            worker = self.workers[at]
            try:
                key, made = pipe.recv()
            except (EOFError, OSError):
                self._replace(at, Failure(stop=Stop.ERROR, reason=self._last_words(at)))
                continue
            if not key:
                worker.up, worker.since = True, time.monotonic()
                continue
            self.answers[key] = made
            worker.busy = ""
            self._feed(at)
        self._late()

    def _late(self) -> None:
        """Give up on workers that are dead or past their deadline."""
        now = time.monotonic()
        for at, worker in enumerate(self.workers):
            if not worker.busy or worker.pipe.poll():
                continue
            limit = worker.limit if worker.up else worker.limit + START_SECONDS
            if not worker.process.is_alive():
                self._replace(at, Failure(stop=Stop.ERROR, reason=self._last_words(at)))
            elif now - worker.since > limit:
                reason = f"no answer within its deadline of {limit:g} s"
                self._replace(at, Failure(stop=Stop.TIMEOUT, reason=reason))

    def _last_words(self, at: int) -> str:
        self.workers[at].process.join(timeout=1.0)
        return f"the environment's process died (exit code {self.workers[at].process.exitcode})"

    def _replace(self, at: int, failure: Failure) -> None:
        """A new worker for one that failed its episode."""
        self.answers[self.workers[at].busy] = failure
        self._renew(at)
        self._feed(at)

    def _renew(self, at: int) -> None:
        """A new worker; the old one's episodes are played again there when they are next asked."""
        old = self.workers[at]
        old.process.kill()
        old.process.join()
        old.pipe.close()
        for live in self.live.values():
            if live.worker == at:
                live.opened = False
        self.workers[at] = self._start()
        self.workers[at].queue = old.queue

    def close(self, key: str) -> None:
        """End an episode; an answer that it still owed is not given any more."""
        live = self.live.pop(key)
        worker = self.workers[live.worker]
        self.owed = [k for k in self.owed if k != key]
        self.answers.pop(key, None)
        worker.queue = [k for k in worker.queue if k != key]
        if worker.busy == key:
            self._renew(live.worker)
            self._feed(live.worker)
        elif live.opened and worker.process.is_alive():
            try:
                worker.pipe.send(("close", key, None, []))
            except OSError:
                return  # its process is gone, and the environment with it

    def shutdown(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
