"""A worker process: it plays environments that somebody else wrote, and does not outlive its trainer.

Requests are [verb, key, task, actions], in JSON (see `wire`); the verb "ask" calls a method of the
suite itself, and has its name and arguments in the place of actions. Answers come in the same order:
["answer", key, observation], ["told", key, value], ["failed", key, reason], ["refused", key,
sentence], ["closed", reason], and before them all ["call", name] for each call that a start makes
and ["up", reason], with an empty reason if the suite could be loaded.
"""

import ctypes
import multiprocessing as mp
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from tutelage.envs import guard
from tutelage.envs.base import Env, Instructs, Suite
from tutelage.envs.observations import observation, shortened
from tutelage.envs.tasks import checked
from tutelage.envs.wire import (
    Garbled,
    Wire,
    pack_observation,
    pack_task,
    pickle_file,
    plain,
    unpack_observation,
    unpack_task,
    unpickled,
)
from tutelage.errors import TutelageError
from tutelage.types import Observation, Stop, Task

T = TypeVar("T")
CUT_OFF: Final = 84
"""Exit code of a worker whose connection the environment has closed or read from."""
UNDERMINED: Final = 85
"""Exit code of a worker whose own Python the environment has changed, such as json.dumps or len."""
PR_SET_PDEATHSIG: Final = 1
"""Linux: the signal that a process gets when the thread that started it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an environment returned no observation."""

    stop: Stop
    reason: str


class Start(NamedTuple):
    """How a worker comes to its suite."""

    load: Callable[[], Suite]  # imports it; a function of this project, or a pickled copy
    splits: tuple[str, ...] = ()  # whose tasks are asked for, to see that they come


class Environments:
    """Environments by key; any exception of one becomes a `Failure`."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.by_key: dict[str, Env] = {}

    def open(self, key: str, task: Task) -> Observation | Failure:
        def begin() -> Observation:
            if key not in self.by_key:
                self.by_key[key] = self.suite.make()
            return _accepted(self.by_key[key].reset(task), "reset")

        return guarded(begin)

    def act(self, key: str, action: str) -> Observation | Failure:
        return guarded(lambda: _accepted(self.by_key[key].step(action), "step"))

    def close(self, key: str) -> str:
        """Why it could not be closed; empty if it was."""
        env = self.by_key.pop(key, None)
        return guard.close(env) if env is not None else ""


def guarded(call: Callable[[], T]) -> T | Failure:
    """Run a user's code. A bad rollout is data: whatever is raised becomes a `Failure`."""
    try:
        return guard.waited_for(call())
    except BaseException as error:
        if guard.is_ours(error):
            raise
        return Failure(stop=Stop.ERROR, reason=guard.reason(error))


def _accepted(value: object, call: str) -> Observation:
    return shortened(observation(value, f"{call} returned an observation"))


def serve(start: bytes, end: socket.socket, *, trainer: int, signalled: bool) -> None:
    """A worker's life.

    start      a pickled `Start`
    trainer    the trainer's process id
    signalled  whether the thread that started this process lives as long as the trainer
    """
    _belong_to(trainer, signalled=signalled)
    worker = _Worker(Wire(end))
    try:
        worker.tell(["up", worker.begin(start)])
        while worker.environments is not None:
            worker.answer(worker.request())
    except BaseException:  # no fault of an environment's that `guarded` knows
        os._exit(UNDERMINED)


class _Worker:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.environments: Environments | None = None
        self.process = os.getpid()
        self.waiting: list[Any] = []

    def begin(self, pickled: bytes) -> str:
        """Load the suite and ask it for its tasks. Why it could not be loaded; empty if it was."""
        guard.listen(lambda what: self.tell(["call", what]))

        def load() -> Suite:
            start: Start = guard.attempt("importing the suite", partial(pickle.loads, pickled))
            suite = guard.attempt("making the suite", start.load)
            # what they raise is reported where they are needed; here they only have to come back
            for split in start.splits:
                guarded(partial(guard.attempt, f"tasks({split!r})", partial(_first, suite, split)))
            if start.splits and isinstance(suite, Instructs):
                guarded(partial(guard.attempt, "instructions", suite.instructions))
            return suite

        found = guarded(load)
        guard.listen(lambda what: None)
        if isinstance(found, Failure):
            return found.reason
        self.environments = Environments(found)
        return ""

    def request(self) -> list[Any]:
        try:
            while not self.waiting:
                self.waiting = self.wire.arrived()
        except EOFError:
            os._exit(0)  # the trainer is done
        except (OSError, Garbled):
            os._exit(CUT_OFF)
        request: list[Any] = self.waiting.pop(0)
        return request

    def answer(self, request: list[Any]) -> None:
        verb, key, task, actions = request
        assert self.environments is not None
        if verb == "drop":  # `close` has hung several times: it is not called any more
            self.environments.by_key.pop(key, None)
            return
        if verb == "close":
            self.tell(["closed", self.environments.close(key)])
            return
        if verb == "ask":
            self._ask(key, task, *actions)
            return
        seen = self._open(key, task) if verb == "open" else None
        for action in actions:
            if not isinstance(seen, Failure):
                seen = self.environments.act(key, action)
        # a state may be of a kind that cannot be sent, which is found before anything is
        packed = guarded(partial(pack_observation, seen)) if isinstance(seen, Observation) else seen
        if isinstance(packed, list):
            self.tell(["answer", key, packed])
        elif isinstance(packed, Failure):
            self.tell(["failed", key, packed.reason])

    def _ask(self, key: str, packed: object, method: str, *rest: object) -> None:
        """Call a method of the suite, with the task first if there is one."""
        assert self.environments is not None
        suite = self.environments.suite

        def call() -> tuple[str, object]:
            try:
                given = () if packed is None else (unpack_task(packed),)
                return "told", plain(_result(suite, method, *given, *rest))
            except TutelageError as error:
                return "refused", guard.reason(error)

        found = guarded(call)
        kind, value = ("failed", found.reason) if isinstance(found, Failure) else found
        self.tell([kind, key, value])

    def _open(self, key: str, packed: object) -> Observation | Failure:
        task = guarded(partial(unpack_task, packed))
        assert self.environments is not None
        return task if isinstance(task, Failure) else self.environments.open(key, task)

    def tell(self, message: list[Any]) -> None:
        if os.getpid() != self.process:
            os._exit(0)  # a fork that an environment made and did not end: the answer is not its
        try:
            self.wire.send(message)
        except ValueError as error:
            self.wire.send(["failed", message[1], f"what it returned cannot be sent: {error}"])
        except OSError:
            os._exit(CUT_OFF)


RENDER: Final = "render"
"""What is asked for one of the suite's own renderings: its name and the packed observation."""
SUMMARISE: Final = "summarise"
"""What is asked for the suite's own numbers about episodes, which are pickled; in a file where they
are too long for a message."""
COUNT, TASK = "tasks", "task"
"""What is asked for the number of a split's tasks, and for one of them by its number."""


def _result(suite: Any, method: str, *arguments: Any) -> object:
    if method in (COUNT, TASK):
        split, *at = arguments
        tasks = _listed(suite, split)
        return _one(tasks, *at) if method == TASK else len(tasks)
    if method == "renders":
        return list(suite.renders())
    if method == RENDER:
        name, packed = arguments
        return suite.renders()[name](unpack_observation(packed))
    if method == SUMMARISE:
        (packed,) = arguments
        long = isinstance(packed, dict)
        return suite.summarise(pickle_file(packed["file"]) if long else unpickled(packed))
    return guard.waited_for(getattr(suite, method)(*arguments))


_LISTED: dict[str, Sequence[Task]] = {}
"""The tasks of each split that was asked for: a process has one suite."""


def _listed(suite: Suite, split: str) -> Sequence[Task]:
    if split not in _LISTED:
        found = guard.waited_for(suite.tasks(split))
        listed = hasattr(found, "__len__") and hasattr(found, "__getitem__")
        if not listed or isinstance(found, Mapping):
            raise TypeError(
                f"it returned {type(found).__name__}; it must return a sequence of tasks, such as a "
                "list"
            )
        _LISTED[split] = found
    return _LISTED[split]


def _one(tasks: Sequence[Task], at: int) -> object:
    return pack_task(checked(tasks[at], f"task {at}"))


def _first(suite: Suite, split: str) -> None:
    tasks = _listed(suite, split)
    if len(tasks):
        tasks[0]


# -- the process


def _belong_to(trainer: int, *, signalled: bool) -> None:
    """Make this process the trainer's: it ends with it, does not hear Ctrl-C, and says nothing on
    standard output, which belongs to the trainer's results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard.own_process()
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # processes that an environment starts end with it
    end_with_trainer(trainer, signalled=signalled)
    _part_from_tracker()
    sys.stdout.flush()
    os.dup2(2, 1)
    threading.excepthook = lambda args: _unheard(args.exc_type, args.exc_value, None)
    sys.unraisablehook = lambda args: _unheard(args.exc_type, args.exc_value, None)
    sys.excepthook = _unheard


def _part_from_tracker() -> None:
    """Close this process's end of multiprocessing's tracker, which an environment could write into;
    one that uses shared memory starts its own."""
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    handle = getattr(tracker, "_fd", None)
    if handle is not None and os.name == "posix":
        os.close(handle)
        tracker._fd = tracker._pid = None  # type: ignore[union-attr]


def end_with_trainer(trainer: int, *, signalled: bool) -> None:
    """End when the trainer ends, however it ends and whatever an environment does then."""
    if sys.platform == "linux" and signalled:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != trainer:
            os._exit(0)  # it ended before the call
        return
    threading.Thread(target=_outlast, daemon=True).start()


def _outlast() -> NoReturn:
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
    if hasattr(os, "killpg"):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


_HEARD: set[str] = set()


def _unheard(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """An exception that nobody handles, as one line, once for each cause."""
    line = guard.described(error) if error is not None else guard.one_line(kind.__name__)
    if line not in _HEARD:
        _HEARD.add(line)
        sys.stderr.write(f"tutelage: the environment's process: {line}\n")
