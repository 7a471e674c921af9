"""Pools of environments: in this process, or in worker processes with deadlines.

Requests go in by key and answers come out in any order; a failed environment answers with a
`Failure`, never with an exception.
"""

import logging
import multiprocessing as mp
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

from tutelage.envs.base import Suite
from tutelage.envs.guard import described
from tutelage.envs.observations import LONGEST, check_state, is_cut
from tutelage.envs.wire import Garbled, Wire, pack_task, pair, unpack_observation
from tutelage.envs.worker import CUT_OFF, UNDERMINED, Environments, Start, guarded, serve
from tutelage.envs.worker import Failure as Failure
from tutelage.errors import EnvError
from tutelage.types import Observation, Stop, Task

Answer = tuple[str, Observation | Failure]
START_SECONDS: Final = 60.0
"""Time for a worker to start Python and import the suite, before any deadline runs."""
CLOSE_SECONDS: Final = 5.0
"""Time for an environment to close; its episode is over, so nothing waits longer for it."""
HANGS: Final = 3
"""Times that a `close` may hang; after that no environment of the suite is closed any more."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a method of the suite returned, or the sentence with which it refused."""

    value: Any
    refused: bool = False


@dataclass(slots=True)
class Incidents:
    """Problems in a pool that did not end an episode: counted, and logged once at its shutdown."""

    cut: int = 0  # observations of more than LONGEST characters
    unclosed: int = 0  # environments whose `close` raised or did not return
    example: str = ""  # why the first of them could not be closed

    def count(self, answer: "Observation | Failure | Returned") -> None:
        if isinstance(answer, Observation):
            self.cut += is_cut(answer)

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


class LocalPool:
    """Environments in this process: no overhead and no deadlines, for trusted, fast ones."""

    def __init__(self, suite: Suite) -> None:
        self.envs = Environments(suite)
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


@dataclass(slots=True)
class _Worker:
    process: mp.process.BaseProcess
    wire: Wire
    queue: list[str] = field(default_factory=list)  # keys that wait for their turn
    busy: str = ""  # the key that is being served
    since: float = field(default_factory=time.monotonic)
    limit: float = 0.0  # seconds from `since`
    up: bool = False  # whether it has started
    call: str = "importing the suite"  # what it does before that
    unable: str = ""  # why it cannot play
    closing: int = 0  # close requests that it has not answered yet
    ahead: int = 0  # those of them that come before `busy`


@dataclass(slots=True)
class _Live:
    """An environment as the pool knows it: enough to rebuild it on another worker."""

    task: Task | None
    worker: int
    actions: list[str] = field(default_factory=list)
    opened: bool = False  # whether its worker has it
    asked: list[Any] | None = None  # a method of the suite and its arguments, instead of a game


class ProcessPool:
    """Environments in worker processes. One that raises, hangs past its deadline or dies costs its
    own episode only: its worker is replaced, and the worker's other episodes are replayed there.

    order  "fixed" returns all outstanding answers together, in the order of the requests, so that a
           run is reproducible to the byte; "arrival" returns each as it comes
    reports  whether incidents are logged at the end
    """

    def __init__(
        self,
        suite: Suite | Start,
        *,
        workers: int,
        reset_seconds: float,
        step_seconds: float,
        order: Literal["fixed", "arrival"] = "fixed",
        reports: bool = True,
    ) -> None:
        self.order, self.reports = order, reports
        start = suite if isinstance(suite, Start) else Start(load=partial(_itself, suite))
        self.start = pickle.dumps(start)
        self.reset_seconds, self.step_seconds = reset_seconds, step_seconds
        # a forked child would inherit torch's threads and a GPU that only its parent may use
        self.context = mp.get_context("spawn")
        self.incidents = Incidents()
        self.live: dict[str, _Live] = {}
        self.owed: list[str] = []
        self.answers: dict[str, Any] = {}
        self.workers = [self._start() for _ in range(workers)]
        self.turn = self.hung = 0

    def _start(self) -> _Worker:
        wire, other_end = pair()
        options = {
            "trainer": os.getpid(),
            "signalled": threading.current_thread() is threading.main_thread(),
        }
        process = self.context.Process(
            target=serve, args=(self.start, other_end), kwargs=options, daemon=True
        )
        process.start()
        other_end.close()
        return _Worker(process=process, wire=wire)

    def begun(self) -> None:
        """Wait until a worker has loaded the suite, or says why it cannot.

        Raises EnvError where loading it does not return or ends the process.
        """
        worker = self.workers[0]
        while not (worker.up or worker.unable):
            left = worker.since + START_SECONDS - time.monotonic()
            if not wait([worker.wire.end], timeout=max(0.0, left)):
                raise EnvError(f"{worker.call} did not return within {START_SECONDS:g} s")
            try:
                messages = worker.wire.arrived()
            except (EOFError, OSError, Garbled):
                raise EnvError(self._last_words(0)) from None
            for message in messages:
                self._heard(0, message)

    def open(self, key: str, task: Task, actions: Sequence[str] = ()) -> None:
        """Begin an episode, or come back to one after these actions; one answer either way."""
        at = self.turn % len(self.workers)
        self.live[key] = _Live(task=task, worker=at, actions=list(actions))
        self.turn += 1
        self._ask(key)

    def act(self, key: str, action: str) -> None:
        self.live[key].actions.append(action)
        self._ask(key)

    def ask(self, method: str, task: Task | None, *arguments: object) -> Returned | Failure:
        """Call a method of the suite in a worker, with `task` first if there is one. The arguments
        and what it returns are of JSON's types (see `wire.plain`); it has the deadline of a reset."""
        key = f"{method} {len(self.live)}"
        self.live[key] = _Live(task=task, worker=0, asked=[method, *arguments])
        self._ask(key)
        ((_, answer),) = self.poll(block=True)
        del self.live[key]
        assert isinstance(answer, Returned | Failure)
        return answer

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
        if live.asked is not None:
            verb, actions, worker.limit = "ask", live.asked, self.reset_seconds
        worker.busy, worker.since, worker.ahead = key, time.monotonic(), worker.closing
        live.opened = True
        # a task is an object of the user's, and may be of any size
        task = guarded(partial(pack_task, live.task)) if live.task is not None else None
        reason = task.reason if isinstance(task, Failure) else ""
        if not reason:
            try:
                self._send(worker, [verb, key, task, actions])
            except (TypeError, ValueError, RecursionError) as error:
                reason = described(error)
        if reason:
            live.opened, worker.busy = False, ""
            reason = f"its task or action cannot be sent to a worker: {reason}"
            self.answers[key] = Failure(stop=Stop.ERROR, reason=reason)
            self._feed(at)

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

    def _send(self, worker: _Worker, message: object) -> bool:
        """Whether a worker took a message. One that did not is ended: the next poll finds it dead."""
        try:
            worker.wire.send(message)
        except OSError:
            _end(worker)
            return False
        return True

    def _collect(self, patience: float) -> None:
        ends = {w.wire.fileno(): i for i, w in enumerate(self.workers) if w.busy}
        for end in wait(list(ends), timeout=patience) if ends else []:
            assert isinstance(end, int)
            at = ends[end]
            try:
                messages = self.workers[at].wire.arrived()
            except (EOFError, OSError):
                self._replace(at, Failure(stop=Stop.ERROR, reason=self._last_words(at)))
                continue
            except Garbled:
                reason = "the environment wrote into the connection of its worker process"
                self._replace(at, Failure(stop=Stop.ERROR, reason=reason))
                continue
            for message in messages:
                self._heard(at, message)
        self._late()

    def _heard(self, at: int, message: list[Any]) -> None:
        worker = self.workers[at]
        kind, *rest = message
        if kind == "call":
            worker.call, worker.since = rest[0], time.monotonic()
        elif kind == "up":
            worker.up, worker.unable, worker.since = not rest[0], rest[0], time.monotonic()
        elif kind == "closed":
            self._closed(worker, rest[0])
        else:
            key, value = rest
            answer: Observation | Failure | Returned
            if kind == "answer":
                answer = unpacked(value)
            elif kind in ("told", "refused"):
                answer = Returned(value=value, refused=kind == "refused")
            else:
                answer = Failure(stop=Stop.ERROR, reason=value)
            self.incidents.count(answer)
            if key == worker.busy:  # else an answer that nobody waits for any more
                self.answers[key] = answer
                worker.busy = ""
                self._feed(at)

    def _closed(self, worker: _Worker, unclosed: str) -> None:
        """A worker has closed an environment: the deadline of its next request starts now."""
        worker.closing -= 1
        worker.ahead = max(0, worker.ahead - 1)
        worker.since = time.monotonic()
        if unclosed:
            self.incidents.not_closed(unclosed)

    def _late(self) -> None:
        """Give up on workers that are dead or past their deadline."""
        now = time.monotonic()
        for at, worker in enumerate(self.workers):
            if not worker.busy or worker.wire.readable():
                continue
            limit = worker.limit if worker.up else worker.limit + START_SECONDS
            if not worker.process.is_alive():
                self._replace(at, Failure(stop=Stop.ERROR, reason=self._last_words(at)))
            elif worker.up and worker.ahead:
                if now - worker.since > CLOSE_SECONDS:
                    self._stuck(at)
            elif now - worker.since > limit:
                reason = f"no answer within its deadline of {limit:g} s"
                if not worker.up:
                    reason = f"{worker.call} did not return within {limit:g} s"
                self._replace(at, Failure(stop=Stop.TIMEOUT, reason=reason))

    def _stuck(self, at: int) -> None:
        """Give up on closing an environment while another episode waits for its worker: the episode
        is replayed on a new worker."""
        self.incidents.not_closed(UNCLOSED)
        self.hung += 1
        waiting = self.workers[at].busy
        self._renew(at)
        self.workers[at].queue.insert(0, waiting)
        self._feed(at)

    def _last_words(self, at: int) -> str:
        """Why a worker died, as far as is known.

        Raises EnvError if no worker can start at all.
        """
        worker = self.workers[at]
        by_itself = _end(worker, patience=1.0)
        code = worker.process.exitcode
        if worker.unable:
            return (
                f"the worker process cannot load the suite ({worker.unable}); a worker imports the "
                "environment's module, which must be a file (a class of a notebook is in none: "
                "move it to one, or set env.workers = 0)"
            )
        if code == CUT_OFF or not by_itself:
            return "the environment closed the connection of its worker process, or read from it"
        if code == UNDERMINED:
            return "the environment changed functions of Python that its worker process needs"
        if worker.up:
            return f"the environment's process died (exit code {code})"
        if script := unguarded_script():
            raise EnvError(
                f"worker processes cannot start: each imports {script} again, which starts a run "
                'of its own; put what the script does below `if __name__ == "__main__":`, or set '
                "env.workers = 0"
            )
        return f"{worker.call} ended its process (exit code {code})"

    def _replace(self, at: int, failure: Failure) -> None:
        """A new worker for one that failed its episode."""
        self.answers[self.workers[at].busy] = failure
        self._renew(at)
        self._feed(at)

    def _renew(self, at: int) -> None:
        """Start a new worker; the old one's episodes are replayed there at their next request."""
        old = self.workers[at]
        _end(old)
        old.wire.close()
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
            if self.hung >= HANGS:
                self.incidents.not_closed(UNCLOSED)
                self._send(worker, ["drop", key, None, []])
            else:
                worker.closing += self._send(worker, ["close", key, None, []])

    def shutdown(self) -> None:
        self._finish_closing(time.monotonic() + CLOSE_SECONDS)
        for worker in self.workers:
            _end(worker)
            worker.wire.close()
        if self.reports:
            self.incidents.log()
        self.incidents = Incidents()

    def _finish_closing(self, deadline: float) -> None:
        """Wait until environments have closed, but not beyond the deadline."""
        while ends := {
            w.wire.fileno(): w for w in self.workers if w.up and w.closing and not w.busy
        }:
            ready = wait(list(ends), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                for _ in ends:
                    self.incidents.not_closed(UNCLOSED)
                return
            for end in ready:
                assert isinstance(end, int)
                worker = ends[end]
                try:
                    messages = worker.wire.arrived()
                except (EOFError, OSError, Garbled):
                    worker.closing = 0  # its process is gone, and the environments with it
                    continue
                for kind, *rest in messages:
                    if kind == "closed":
                        self._closed(worker, rest[0])


def _itself(suite: Suite) -> Suite:
    return suite


def unpacked(packed: list[Any]) -> Observation | Failure:
    """An observation as it was sent. Its state is an object of the user's, which may be one that
    cannot be made again here."""
    seen = guarded(partial(unpack_observation, packed))
    if isinstance(seen, Observation) and type(seen.state) not in (str, int, type(None)):
        compared = guarded(partial(check_state, seen.state, "an observation whose state"))
        return compared if isinstance(compared, Failure) else seen
    return seen


def _end(worker: _Worker, *, patience: float = 0.0) -> bool:
    """End a worker's process and those that its environments have started. Whether it had ended by
    itself.

    patience  seconds in which it may end by itself, so that its exit code is its own
    """
    pid, by_itself = worker.process.pid, True
    if hasattr(os, "waitid") and pid is not None:
        until = time.monotonic() + patience
        try:
            # without taking its exit code, since its number could be another process's after that
            while not (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                if time.monotonic() > until:
                    break
                time.sleep(0.005)
            by_itself = ended is not None
            if not ended:
                worker.process.kill()
            os.killpg(pid, signal.SIGKILL)
        except (ChildProcessError, ProcessLookupError, PermissionError):
            pass
    worker.process.kill()
    worker.process.join()
    return by_itself


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
