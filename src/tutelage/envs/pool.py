"""Pools of environments: in this process, or in worker processes with deadlines.

Requests go in by key and answers come out in any order; a failed environment answers with a
`Failure`, never with an exception.
"""

import logging
import multiprocessing as mp
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar, runtime_checkable

from tutelage.envs.base import Env, Suite
from tutelage.envs.guard import close
from tutelage.envs.observations import LONGEST, observation, shortened
from tutelage.errors import EnvError
from tutelage.types import Observation, Stop, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an environment returned no observation."""

    stop: Stop
    reason: str


Answer = tuple[str, Observation | Failure]
T = TypeVar("T")
START_SECONDS: Final = 60.0
"""Time for a worker to start Python and import the suite, before any deadline runs."""
CLOSE_SECONDS: Final = 5.0
"""Time for an environment to close; its episode is over, so nothing waits longer for it."""
UNCLOSED: Final = f"`close` did not return within {CLOSE_SECONDS:g} s"
LOGGER: Final = logging.getLogger(__name__)


class Pool(Protocol):
    def open(self, key: str, task: Task) -> None: ...
    def act(self, key: str, action: str) -> None: ...
    def close(self, key: str) -> None: ...
    def poll(self, *, block: bool) -> list[Answer]:
        """The answers that are ready; with `block`, at least one if any is outstanding."""
        ...

    def shutdown(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to an agent's call."""

    text: str
    ended: bool = True  # whether the model ended it, and not a limit
    tokens: tuple[int, int] = (0, 0)  # of the prompt and of the answer
    version: int = 0  # of the weights: the step that they were sampled in


@runtime_checkable
class AnswersCalls(Protocol):
    """A pool whose environments are agents: they are told more than a text."""

    def answer(self, key: str, reply: Reply) -> None: ...


@dataclass(slots=True)
class Incidents:
    """Problems in a pool that did not end an episode: counted, and logged once at its shutdown."""

    cut: int = 0  # observations of more than LONGEST characters
    unclosed: int = 0  # environments whose `close` raised or did not return
    example: str = ""  # why the first of them could not be closed

    def count(self, answer: "Observation | Failure") -> None:
        if isinstance(answer, Observation):
            self.cut += len(answer.text) > LONGEST

    def not_closed(self, reason: str) -> None:
        self.unclosed += 1
        self.example = self.example or reason

    def log(self) -> None:
        if self.cut:
            LOGGER.warning(
                "%s of more than %s characters: only the beginning was shown; let the environment "
                "return shorter texts",
                _count(self.cut, "observation"),
                f"{LONGEST:,}",
            )
        if self.unclosed:
            LOGGER.warning(
                "%s could not be closed (%s); fix the environment's `close`",
                _count(self.unclosed, "environment"),
                self.example,
            )


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' * (number != 1)}"


def _guarded(call: Callable[[], T]) -> T | Failure:
    """Run foreign code. A broad except, because an environment's failure is a result and not an
    error."""
    try:
        return call()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        foreign = Path(frame.filename).parent != Path(__file__).parent
        where = f" ({frame.filename}:{frame.lineno})" if foreign else ""
        return Failure(stop=Stop.ERROR, reason=f"{type(error).__name__}: {error}{where}")


class _Envs:
    """Environments by key; any exception of one becomes a `Failure`."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.by_key: dict[str, Env] = {}

    def open(self, key: str, task: Task) -> Observation | Failure:
        def begin() -> Observation:
            self.by_key[key] = self.suite.make()
            return _accepted(self.by_key[key].reset(task), "reset")

        return _guarded(begin)

    def act(self, key: str, action: str) -> Observation | Failure:
        return _guarded(lambda: _accepted(self.by_key[key].step(action), "step"))

    def close(self, key: str) -> str:
        """Why it could not be closed; empty if it was."""
        env = self.by_key.pop(key, None)
        return close(env) if env is not None else ""


def _accepted(value: object, call: str) -> Observation:
    return shortened(observation(value, f"{call} returned an observation"))


class LocalPool:
    """Environments in this process: no overhead and no deadlines, for trusted, fast ones."""

    def __init__(self, suite: Suite) -> None:
        self.envs = _Envs(suite)
        self.ready: list[Answer] = []
        self.incidents = Incidents()

    def open(self, key: str, task: Task) -> None:
        self._answer(key, self.envs.open(key, task))

    def act(self, key: str, action: str) -> None:
        self._answer(key, self.envs.act(key, action))

    def _answer(self, key: str, answer: Observation | Failure) -> None:
        self.incidents.count(answer)
        self.ready.append((key, answer))

    def close(self, key: str) -> None:
        self.ready = [answer for answer in self.ready if answer[0] != key]
        if reason := self.envs.close(key):
            self.incidents.not_closed(reason)

    def poll(self, *, block: bool) -> list[Answer]:
        ready, self.ready = self.ready, []
        return ready

    def shutdown(self) -> None:
        for key in list(self.envs.by_key):
            self.close(key)
        self.incidents.log()
        self.incidents = Incidents()


def _serve(suite: Suite, pipe: Connection) -> None:
    """A worker's loop: receives (verb, key, task, actions), sends (key, observation or failure) in
    the same order. It sends ("", "") when it has started, and ("", error) after each close, with
    an empty error if the close succeeded."""
    # an interrupt is for the parent, which ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    envs = _Envs(suite)
    pipe.send(("", ""))
    while True:
        try:
            verb, key, task, actions = pipe.recv()
        except EOFError:
            return
        if verb == "close":
            pipe.send(("", envs.close(key)))
            continue
        answer: Observation | Failure | None = envs.open(key, task) if verb == "open" else None
        for action in actions:
            if not isinstance(answer, Failure):
                answer = envs.act(key, action)
        # a state may be of a kind that cannot be pickled, which is found before anything is sent
        unsent = _guarded(partial(pipe.send, (key, answer)))
        if isinstance(unsent, Failure):
            pipe.send((key, unsent))


@dataclass(slots=True)
class _Worker:
    process: mp.process.BaseProcess
    pipe: Connection
    queue: list[str] = field(default_factory=list)  # keys that wait for their turn
    busy: str = ""  # the key that is being served
    since: float = 0.0
    limit: float = 0.0  # seconds from `since`
    up: bool = False  # whether it has started
    closing: int = 0  # close requests that it has not answered yet
    ahead: int = 0  # those of them that come before `busy`


@dataclass(slots=True)
class _Live:
    """An environment as the pool knows it: enough to rebuild it on another worker."""

    task: Task
    worker: int
    actions: list[str] = field(default_factory=list)
    opened: bool = False  # whether its worker has it


class ProcessPool:
    """Environments in worker processes. One that raises, hangs past its deadline or dies costs its
    own episode only: its worker is replaced, and the worker's other episodes are replayed there.

    order  "fixed" returns all outstanding answers together, in the order of the requests, so that a
           run is reproducible to the byte; "arrival" returns each as it comes
    """

    def __init__(
        self,
        suite: Suite,
        *,
        workers: int,
        reset_seconds: float,
        step_seconds: float,
        order: Literal["fixed", "arrival"] = "fixed",
    ) -> None:
        self.suite, self.order = suite, order
        self.reset_seconds, self.step_seconds = reset_seconds, step_seconds
        # a forked child would inherit torch's threads and a GPU that only its parent may use
        self.context = mp.get_context("spawn")
        self.incidents = Incidents()
        self.live: dict[str, _Live] = {}
        self.owed: list[str] = []
        self.answers: dict[str, Observation | Failure] = {}
        self.workers = [self._start() for _ in range(workers)]
        self.turn = 0

    def _start(self) -> _Worker:
        pipe, other_end = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.suite, other_end), daemon=True)
        process.start()
        other_end.close()
        return _Worker(process=process, pipe=pipe)

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
        """Send a free worker the next request of its queue."""
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
        worker.busy, worker.since, worker.ahead = key, time.monotonic(), worker.closing
        live.opened = True
        try:
            worker.pipe.send((verb, key, live.task, actions))
        except OSError:
            return  # the next poll finds it dead and answers with a failure

    def poll(self, *, block: bool) -> list[Answer]:
        together = self.order == "fixed"
        while True:
            self._collect(0.05 if block or together else 0.0)
            ready = [k for k in self.owed if k in self.answers]
            if ready and (not together or len(ready) == len(self.owed)):
                self.owed = [k for k in self.owed if k not in self.answers]
                return [(k, self.answers.pop(k)) for k in ready]
            if not self.owed or not (block or together):
                return []

    def _collect(self, patience: float) -> None:
        pipes = {w.pipe: i for i, w in enumerate(self.workers) if w.busy}
        for pipe in wait(list(pipes), timeout=patience) if pipes else []:
            assert isinstance(pipe, Connection)
            at = pipes[pipe]
            worker = self.workers[at]
            try:
                key, answer = pipe.recv()
            except (EOFError, OSError):
                self._replace(at, Failure(stop=Stop.ERROR, reason=self._last_words(at)))
                continue
            if not key:
                self._notice(worker, answer)
                continue
            self.incidents.count(answer)
            self.answers[key] = answer
            worker.busy = ""
            self._feed(at)
        self._late()

    def _notice(self, worker: _Worker, unclosed: str) -> None:
        """A worker has started, or has closed an environment: its deadline starts now."""
        if worker.up:
            worker.closing -= 1
            worker.ahead = max(0, worker.ahead - 1)
        if unclosed:
            self.incidents.not_closed(unclosed)
        worker.up, worker.since = True, time.monotonic()

    def _late(self) -> None:
        """Give up on workers that are dead or past their deadline."""
        now = time.monotonic()
        for at, worker in enumerate(self.workers):
            if not worker.busy or worker.pipe.poll():
                continue
            limit = worker.limit if worker.up else worker.limit + START_SECONDS
            if not worker.process.is_alive():
                self._replace(at, Failure(stop=Stop.ERROR, reason=self._last_words(at)))
            elif worker.up and worker.ahead:
                if now - worker.since > CLOSE_SECONDS:
                    self._stuck(at)
            elif now - worker.since > limit:
                reason = f"no answer within its deadline of {limit:g} s"
                self._replace(at, Failure(stop=Stop.TIMEOUT, reason=reason))

    def _stuck(self, at: int) -> None:
        """Give up on closing an environment while another episode waits for its worker: the episode
        is replayed on a new worker."""
        self.incidents.not_closed(UNCLOSED)
        waiting = self.workers[at].busy
        self._renew(at)
        self.workers[at].queue.insert(0, waiting)
        self._feed(at)

    def _last_words(self, at: int) -> str:
        """Why a worker died, as far as is known.

        Raises EnvError if no worker can start at all.
        """
        worker = self.workers[at]
        worker.process.join(timeout=1.0)
        code = worker.process.exitcode
        if worker.up:
            return f"the environment's process died (exit code {code})"
        if script := unguarded_script():
            raise EnvError(
                f"worker processes cannot start: each imports {script} again, which starts a run "
                'of its own; put what the script does below `if __name__ == "__main__":`, or set '
                "env.workers = 0"
            )
        return (
            f"the environment's process died before it could play (exit code {code}); what it "
            "printed says why: it imports the environment's module, which it may not find (a class "
            "of a notebook never: move it to a file, or set env.workers = 0)"
        )

    def _replace(self, at: int, failure: Failure) -> None:
        """A new worker for one that failed its episode."""
        self.answers[self.workers[at].busy] = failure
        self._renew(at)
        self._feed(at)

    def _renew(self, at: int) -> None:
        """Start a new worker; the old one's episodes are replayed there at their next request."""
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
        """End an episode; an outstanding answer of it is dropped."""
        live = self.live.pop(key)
        worker = self.workers[live.worker]
        self.owed = [k for k in self.owed if k != key]
        self.answers.pop(key, None)
        worker.queue = [k for k in worker.queue if k != key]
        if worker.busy == key:
            self._renew(live.worker)
            self._feed(live.worker)
        elif live.opened and worker.process.is_alive():
            if not worker.busy and not worker.closing:
                worker.since = time.monotonic()
            try:
                worker.pipe.send(("close", key, None, []))
            except OSError:
                return  # its process is gone, and the environment with it
            worker.closing += 1

    def shutdown(self) -> None:
        self._finish_closing(time.monotonic() + CLOSE_SECONDS)
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self.incidents.log()
        self.incidents = Incidents()

    def _finish_closing(self, deadline: float) -> None:
        """Wait until environments have closed, but not beyond the deadline."""
        while pipes := {w.pipe: w for w in self.workers if w.up and w.closing and not w.busy}:
            ready = wait(list(pipes), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                for _ in pipes:
                    self.incidents.not_closed(UNCLOSED)
                return
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    self._notice(pipes[pipe], pipe.recv()[1])
                except (EOFError, OSError):
                    pipes[pipe].closing = 0  # its process is gone, and the environments with it


def unguarded_script() -> str:
    """The running script, if a worker process that imports it again would execute it too."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return ""  # a notebook, or `python -m`
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if re.search(r"^if\s+.*__name__", source, re.MULTILINE) else str(path)
