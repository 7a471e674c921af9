"""Episodes of the next step, played in a process of their own while this one learns.

W_k are the weights that step k begins to learn with. One step ahead, its episodes are played with

    W_(k-1)    for k > 0, while step k - 1 learns, which turns W_(k-1) into W_k
    W_0        for k = 0, which nothing is learnt beside

So the weights that act are exactly one update old, however long episodes or updates take: the
process is given its weights with each step and plays all of its episodes, and the step that learns
from them waits for the last. Which episodes are played with which weights depends on the step's
number alone. A checkpoint holds the weights that the next step is played with, and a run that is
continued plays it again.
"""

import contextlib
import ctypes
import multiprocessing as mp
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from torch import Tensor

from tutelage.config.schema import Config
from tutelage.envs.worker import end_with_trainer
from tutelage.errors import ConfigError, RunError
from tutelage.policies.base import Trainable
from tutelage.policies.translated import account_lines
from tutelage.rollout.ranks import Ranks
from tutelage.rollout.replay import Replay
from tutelage.runs import checkpoint, models
from tutelage.runs.assemble import assemble, deterministic
from tutelage.runs.phases import writers
from tutelage.runs.playing import cut_so_far, episodes_of
from tutelage.types import Episode

LOOK: Final = 0.2
"""Seconds between two looks at how far the process has come."""
GOODBYE: Final = 5.0
"""Seconds that the process has to end its environments once it is told to."""
Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A step to play. The weights follow it."""

    phase: str
    step: int
    version: int  # updates of the phase that the weights have had


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A step that was played.

    cut      observations that were too long
    costs    what policies that are asked in messages have cost so far
    seconds  by phase of playing, "all" of it, and of the "processor"; never part of a result
    """

    episodes: list[Episode]
    cut: int = 0
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def refuse_ranks(config: Config, ranks: Ranks) -> None:
    """Raises ConfigError on every rank where several are to play ahead."""
    if config.rollout.ahead and ranks.size > 1:
        raise ConfigError(
            f"rollout.concurrency has ahead = 1, and there are {ranks.size} ranks, which play "
            "together; leave ahead out, or train in one process"
        )


class Ahead:
    """The process that plays, seen from the one that learns.

    weights  that it was given last, on the CPU, in the order of the student's parameters
    version  updates of the phase that these have had
    """

    def __init__(self, config: Config, student: str) -> None:
        """Start it; it opens its policies with the weights of the checkpoint `student`, or with
        those of [policy] if that is empty."""
        self.weights: list[Tensor] = []
        self.version = 0
        self.busy = False
        self.played: Played | None = None
        # a forked child would inherit torch's threads and a GPU that only its parent may use
        context = mp.get_context("spawn")
        self.end, other = context.Pipe()
        self.progress: Any = context.RawArray(ctypes.c_long, 2)
        options = {
            "student": student,
            "threads": torch.get_num_threads(),
            "trainer": os.getpid(),
            "signalled": threading.current_thread() is threading.main_thread(),
        }
        # not a daemon, which could have no worker processes
        self.process = context.Process(
            target=serve, args=(config, other, self.progress), kwargs=options
        )
        with _unheard_by_children():
            self.process.start()
        other.close()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            if self.busy or kind is not None:
                self.process.terminate()
            else:
                self.end.send(None)
            self.process.join(GOODBYE)
        self.process.kill()
        self.process.join()
        self.end.close()

    def begun(self) -> None:
        """Wait until its models and environments are there. Raises what keeps them from it."""
        self._heard(lambda done, total: None)

    @torch.no_grad()
    def hand_over(self, student: Trainable, version: int) -> None:
        """Take the student's weights as those that play from now on; not while it plays."""
        own = list(student.parameters())
        if len(self.weights) != len(own):
            self.weights = [torch.empty_like(p, device="cpu") for p in own]
        for weight, p in zip(self.weights, own, strict=True):
            weight.copy_(p)
        self.version = version

    def restore(self, path: Path, student: Trainable, version: int) -> None:
        """The same with the weights that a checkpoint holds beside its student."""
        self.weights = checkpoint.read_acting(path, student.parameters())
        self.version = version

    def begin(self, phase: str, step: int) -> None:
        """Let it play a step with the weights that were handed over."""
        self.progress[:] = (0, 0)
        try:
            self.end.send(Order(phase=phase, step=step, version=self.version))
            for weight in self.weights:
                if weight.numel():
                    self.end.send_bytes(_bytes(weight))
        except OSError:
            self._lost()
        self.busy = True

    def wait(self, tick: Tick = lambda done, total: None) -> None:
        """Wait until the step that was begun is played, if there is one."""
        if self.busy and self.played is None:
            played = self._heard(tick)
            assert isinstance(played, Played)
            self.played = played

    def take(self, tick: Tick) -> Played:
        """The step that was begun, once it is played."""
        self.wait(tick)
        played, self.played, self.busy = self.played, None, False
        assert played is not None
        return played

    def _heard(self, tick: Tick) -> object:
        """What it says next. Raises what it raised, and RunError where it is gone."""
        seen = (0, 0)
        while self.end not in wait([self.end, self.process.sentinel], timeout=LOOK):
            if not self.process.is_alive() and not self.end.poll():
                self._lost()
            done, total = self.progress[:]
            if (done, total) != seen:
                seen = done, total
                tick(done, total)
        try:
            message: object = self.end.recv()
        except (EOFError, OSError):
            self._lost()
        if isinstance(message, BaseException):
            raise message
        return message

    def _lost(self) -> None:
        self.process.join(GOODBYE)
        code = self.process.exitcode or 0
        how = f"with exit code {code}"
        if code < 0:
            how = f"by signal {-code}"
        if code == -signal.SIGKILL:
            how += ", as the system does where memory runs out"
        raise RunError(
            f"the process that plays one step ahead has ended {how}; continue with --resume, or "
            "start again without ahead in rollout.concurrency, which needs less memory"
        )


@contextlib.contextmanager
def _unheard_by_children() -> Iterator[None]:
    """Ctrl-C is not for the processes that are started inside the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's own memory on the CPU."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


# -- in the process that plays


def serve(
    config: Config,
    end: Connection,
    progress: Any,
    *,
    student: str,
    threads: int,
    trainer: int,
    signalled: bool,
) -> None:
    """Its life: it opens the policies that act and the environments, and plays what it is told to.

    progress   two numbers that the trainer reads: episodes that are done, and all of the step
    trainer    the trainer's process id
    signalled  whether the thread that started this process lives as long as the trainer
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends this
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # processes that environments start end with it
    end_with_trainer(trainer, signalled=signalled)
    torch.set_num_threads(threads)

    def tick(done: int, total: int) -> None:
        progress[:] = (done, total)

    try:
        _serve(config, end, student, tick)
    except (EOFError, BrokenPipeError, SystemExit):
        return  # the trainer is done
    except BaseException as error:
        end.send(_sendable(error))


def _serve(config: Config, end: Connection, student: str, tick: Tick) -> None:
    parts = assemble(config, evaluates=False)
    parts = replace(parts, policies=frozenset(writers(config, parts.phases)))
    replay = Replay(Path(config.rollout.replay)) if config.rollout.replay else None
    phases = {phase.name: phase for phase in parts.phases}
    with deterministic(), parts.open(student=student, tick=tick) as (session, policies):
        parts.rest()
        weights = list(models.student_of(policies).parameters())
        end.send(None)
        for order in _orders(end, weights):
            since, cut = time.perf_counter(), cut_so_far(session.pool)
            processor = time.process_time()
            session.clock.restart()
            episodes = episodes_of(
                replace(session, version=order.version),
                config.rollout,
                parts.tasks,
                phases[order.phase],
                order.step,
                replay,
            )
            played = Played(
                episodes=episodes,
                cut=cut_so_far(session.pool) - cut,
                costs=account_lines(policies),
                seconds={
                    **session.clock.seconds,
                    "all": time.perf_counter() - since,
                    "processor": time.process_time() - processor,
                },
            )
            end.send(played)


@torch.no_grad()
def _orders(end: Connection, weights: Sequence[Tensor]) -> Iterator[Order]:
    """The steps to play, until there are no more; their weights are in place when they come."""
    while (order := end.recv()) is not None:
        assert isinstance(order, Order)
        for weight in weights:
            if weight.numel():
                came = torch.empty_like(weight, device="cpu", memory_format=torch.contiguous_format)
                end.recv_bytes_into(_bytes(came))
                weight.copy_(came)
        yield order


def _sendable(error: BaseException) -> BaseException:
    """An exception that the trainer can raise, with where it came from."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PicklingError, AttributeError, ImportError, TypeError, ValueError):
        return RuntimeError(str(error), *error.__notes__)
    return error
