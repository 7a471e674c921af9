"""Run an agent: a function or a command that is given an address, a key and a task.

Functions run in threads of this process or of worker processes, commands in processes of their own.
An agent that is no longer wanted cannot be killed inside its process: its address stops answering,
and a worker process that holds one which does not end is replaced once its other agents are done.
"""

import asyncio
import contextlib
import inspect
import json
import multiprocessing as mp
import os
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from tutelage.config.trust import NAMED
from tutelage.envs.agents.requests import MODEL
from tutelage.envs.named_code import named
from tutelage.envs.observations import flag, number
from tutelage.errors import EnvError, TutelageError
from tutelage.types import Task

Solve = Callable[[str, str, Task], object]
"""solve(base_url, api_key, task) -> reward, or a coroutine of it."""
WHERE: Final = "env.options.run"
LAST_OUTPUT: Final = 1 << 16
"""Bytes at the end of a command's output that are looked at."""
GRACE: Final = 5.0
"""Seconds in which an agent whose session is over should end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an agent ended: what it says it earned, or why there is nothing."""

    reward: float | None = None
    won: bool | None = None
    score: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What an agent is given."""

    key: str
    url: str
    secret: str
    task: Task


Ended = Callable[[str, Outcome], None]
Stop = Callable[[], object]


class Runner(Protocol):
    def start(self, start: Start) -> None: ...
    def stop(self, key: str) -> None:
        """Its session is over: end it if it can be ended."""
        ...

    def running(self) -> int:
        """Agents that have not ended."""
        ...

    def shutdown(self) -> None: ...


# -- one agent


def solver(run: "str | Sequence[str] | Solve") -> Solve:
    """The function that "module:name" names; a command as a function. Raises ConfigError."""
    if callable(run):
        return run
    if isinstance(run, str) and NAMED.fullmatch(run):
        module, _, name = run.partition(":")
        found: Any = named(module, name, where=WHERE, what="an agent", declared=takes_an_address)
        return found  # type: ignore[no-any-return]
    import shlex

    return Command(tuple(shlex.split(run) if isinstance(run, str) else run))


def takes_an_address(found: object) -> bool:
    """Whether a function was written as an agent: it takes `base_url`, `api_key` and `task`."""
    try:
        names = list(inspect.signature(found).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return names[:3] == ["base_url", "api_key", "task"]


def run(solve: Solve, start: Start, began: "Callable[[Stop], None]" = lambda stop: None) -> Outcome:
    """Run an agent to its end, whatever it raises.

    began  told how to end it from another thread, where that can be done
    """
    try:
        if isinstance(solve, Command):
            return outcome_of(solve.run(start, began))
        value = solve(start.url, start.secret, start.task)
        if inspect.isawaitable(value):
            return _in_a_loop(value, began)
        return outcome_of(value)
    except (Exception, SystemExit) as error:
        return _broken(error)


LOOPS: Final[list[asyncio.AbstractEventLoop]] = []
"""Event loops of agents that have ended. They are used again and never closed: a client that nobody
closed belongs to its loop until it is collected, perhaps while another agent runs."""


def _in_a_loop(value: Any, began: "Callable[[Stop], None]") -> Outcome:
    """Run an async agent in a loop that no other uses meanwhile: one that blocks blocks itself."""
    loop = LOOPS.pop() if LOOPS else asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_awaited(value, began))
    finally:
        LOOPS.append(loop)


async def _awaited(value: Any, began: "Callable[[Stop], None]") -> Outcome:
    task = asyncio.ensure_future(_outcome(value))
    began(partial(_cancel, asyncio.get_running_loop(), task))
    outcome = await task
    # what the agent left running, such as clients that close their connections
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, late = await asyncio.wait(left, timeout=GRACE)
        for each in late:
            each.cancel()
    return outcome


async def _outcome(value: Any) -> Outcome:
    try:
        return outcome_of(await value)
    except asyncio.CancelledError:
        return Outcome(error="the agent was stopped")
    except (Exception, SystemExit) as error:
        return _broken(error)


def _cancel(loop: asyncio.AbstractEventLoop, task: "asyncio.Future[Any]") -> None:
    loop.call_soon_threadsafe(task.cancel)


def _broken(error: BaseException) -> Outcome:
    if isinstance(error, TutelageError):
        return Outcome(error=str(error))
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename != __file__]
    where = f" ({ours[-1].filename}:{ours[-1].lineno})" if ours else ""
    return Outcome(error=f"the agent raised {type(error).__name__}: {str(error)[:500]}{where}")


def outcome_of(value: object) -> Outcome:
    """What an agent returned. Raises EnvError for what is no reward."""
    if value is None:
        return Outcome()
    try:
        if isinstance(value, Mapping):
            unknown = set(value) - {"reward", "won", "score"}
            if unknown:
                raise TypeError(f"the agent returned {sorted(map(str, unknown))[0]!r}")
            reward, won, score = (value.get(name) for name in ("reward", "won", "score"))
            return Outcome(
                reward=None if reward is None else number(reward, "the agent's reward"),
                won=None if won is None else flag(won, "the agent's won"),
                score=None if score is None else number(score, "the agent's score"),
            )
        return Outcome(reward=number(value, "the agent's reward"))
    except (TypeError, ValueError) as error:
        raise EnvError(
            f"{error}; an agent returns its reward as a number, or a dict with reward, won and "
            "score, or None if it posted a reward"
        ) from error


@dataclass(frozen=True)
class Command:
    """A command line as an agent: its environment names the endpoint and the task, and the last
    line that it prints is its reward."""

    arguments: tuple[str, ...]

    def __call__(self, base_url: str, api_key: str, task: Task) -> float | None:
        start = Start(key="", url=base_url, secret=api_key, task=task)
        return self.run(start, lambda stop: None)

    def run(self, start: Start, began: "Callable[[Stop], None]") -> float | None:
        """Run it to its end. Raises EnvError where it fails."""
        given = {
            "OPENAI_BASE_URL": start.url,
            "OPENAI_API_KEY": start.secret,
            "OPENAI_MODEL": MODEL,
            "TUTELAGE_TASK": json.dumps(asdict(start.task), ensure_ascii=False),
        }
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    self.arguments,
                    env={**os.environ, **given},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise EnvError(
                    f"{WHERE}: {self.arguments[0]} cannot be started ({error})"
                ) from error
            began(partial(kill, process))
            code = process.wait()
            kill(process)  # what it has left running
            if code:
                last = _last_line(err) or "it wrote nothing to stderr"
                raise EnvError(f"the agent's command ended with exit code {code}: {last[:500]}")
            line = _last_line(out)
        if not line:
            return None
        try:
            return float(line)
        except ValueError:
            raise EnvError(
                f"the last line that the agent's command printed is {line[:200]!r}; print the reward "
                "last, as a number, or print nothing and post it"
            ) from None


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command and all that it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_line(file: Any) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LAST_OUTPUT))
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


# -- in this process


class Threads:
    """Agents in threads of this process."""

    def __init__(self, solve: Solve, ended: Ended) -> None:
        self.solve, self.ended = solve, ended
        self.stops: dict[str, Stop] = {}
        self.unwanted: set[str] = set()
        self.live: set[str] = set()
        self.lock = threading.Lock()

    def start(self, start: Start) -> None:
        self.live.add(start.key)
        threading.Thread(target=self._run, args=(start,), daemon=True).start()

    def _run(self, start: Start) -> None:
        outcome = run(self.solve, start, partial(self._began, start.key))
        with self.lock:
            self.live.discard(start.key)
            self.stops.pop(start.key, None)
            self.unwanted.discard(start.key)
        self.ended(start.key, outcome)

    def _began(self, key: str, stop: Stop) -> None:
        with self.lock:
            self.stops[key] = stop
            if key in self.unwanted:
                stop()

    def stop(self, key: str) -> None:
        with self.lock:
            if key in self.live:
                self.unwanted.add(key)
            if key in self.stops:
                self.stops[key]()

    def running(self) -> int:
        return len(self.live)

    def shutdown(self) -> None:
        with self.lock:
            for stop in self.stops.values():
                stop()


# -- in worker processes


def _work(run_: "str | Sequence[str] | Solve", pipe: Connection) -> None:
    """A worker: receives what agents are given, or which to stop; sends how they ended. It says
    first that it is ready, or why it never will be."""
    # an interrupt is for the parent, which ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = threading.Lock()

    def ended(key: str, outcome: Outcome) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send((key, outcome))

    try:
        threads = Threads(solver(run_), ended)
    except TutelageError as error:
        pipe.send(("", Outcome(error=str(error))))
        return
    ended("", Outcome())
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if isinstance(message, Start):
            threads.start(message)
        else:
            threads.stop(message)


@dataclass(eq=False)
class _Worker:
    process: mp.process.BaseProcess
    pipe: Connection
    live: dict[str, float] = field(default_factory=dict)  # by key; when it was stopped, or 0
    up: bool = False
    retired: bool = False  # takes no new agents


class Workers:
    """Agents in threads of worker processes."""

    def __init__(self, run_: "str | Sequence[str] | Solve", ended: Ended, *, count: int) -> None:
        self.run, self.ended, self.count = run_, ended, count
        # a forked child would inherit torch's threads and a GPU that only its parent may use
        self.context = mp.get_context("spawn")
        self.lock = threading.RLock()
        self.workers: list[_Worker] = []
        self.over = False

    def start(self, start: Start) -> None:
        with self.lock:
            self._replace_stuck()
            usable = [w for w in self.workers if not w.retired]
            while len(usable) < self.count:
                usable.append(self._new())
            worker = min(usable, key=lambda w: len(w.live))
            worker.live[start.key] = 0.0
            with contextlib.suppress(OSError):  # its listener finds it dead, and says so
                worker.pipe.send(start)

    def _new(self) -> _Worker:
        pipe, other = self.context.Pipe()
        process = self.context.Process(target=_work, args=(self.run, other), daemon=True)
        process.start()
        other.close()
        worker = _Worker(process, pipe)
        self.workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        while True:
            try:
                key, outcome = worker.pipe.recv()
            except (EOFError, OSError):
                self._died(worker)
                return
            with self.lock:
                if key:
                    worker.live.pop(key, None)
                elif outcome.error:
                    self._end(worker, outcome.error)
                    return
                else:
                    worker.up = True
            if key:
                self.ended(key, outcome)

    def _died(self, worker: _Worker) -> None:
        worker.process.join(timeout=1.0)
        code = worker.process.exitcode
        self._end(worker, f"the process that ran the agent ended (exit code {code})")

    def _end(self, worker: _Worker, why: str) -> None:
        with self.lock:
            worker.retired = True
            lost, worker.live = list(worker.live), {}
            if worker in self.workers:
                self.workers.remove(worker)
            worker.process.kill()
        if not self.over:
            for key in lost:
                self.ended(key, Outcome(error=why))

    def stop(self, key: str) -> None:
        with self.lock:
            for worker in self.workers:
                if key in worker.live:
                    worker.live[key] = time.monotonic()
                    with contextlib.suppress(OSError):
                        worker.pipe.send(key)

    def running(self) -> int:
        with self.lock:
            return sum(len(worker.live) for worker in self.workers)

    def _replace_stuck(self) -> None:
        """Give workers no more agents that hold one which should have ended; and end those that
        hold nothing else."""
        now = time.monotonic()
        for worker in list(self.workers):
            stuck = [k for k, since in worker.live.items() if since and now - since > GRACE]
            worker.retired = worker.retired or bool(stuck)
            if worker.retired and len(stuck) == len(worker.live):
                self._end(worker, "the agent did not end after its session was over")

    def shutdown(self) -> None:
        self.over = True
        with self.lock:
            for worker in list(self.workers):
                worker.process.kill()
                worker.process.join()


def fits_workers(run_: object) -> bool:
    """Whether worker processes can run it; commands are processes themselves."""
    named_ = isinstance(run_, str) and NAMED.fullmatch(run_) is not None
    return named_ or (callable(run_) and getattr(run_, "__module__", "") != "__main__")
