"""The ranks of `torchrun`: how they join, talk, watch each other and stop together.

Tensors are summed by NCCL between GPUs and by gloo on CPUs; everything else goes over gloo. Beside
it a thread of each rank counts up a number of its own in torchrun's key-value store. Rank 0 looks
at the numbers of all ranks, the others at that of rank 0, so that a process that was killed, a
machine that is gone and a process that hangs are all noticed. Who fails says why in the store
before it ends, and rank 0 repeats it.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from importlib import metadata
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from tutelage import __version__
from tutelage.errors import ConfigError, Elsewhere, RunError, TutelageError, first_line
from tutelage.rollout.ranks import Ranks
from tutelage.runs.interrupt import TOGETHER, Terminated
from tutelage.runs.torchrun import AGAIN, Launch, deadline

BEAT = 0.5
"""Seconds between two beats."""
JOIN = 300.0
"""Seconds in which all ranks must have started, and no longer than the deadline where that is set."""
GRACE = 5.0
"""Seconds to speak, and to leave what is under way."""
ANY = timedelta(days=7)
"""A rank waits for the slowest, however long it plays: who is gone is noticed by other means."""
CODE = 2


class Lost(RunError):
    """The connection to another rank broke."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that a connection between ranks broke: those of the passes and checkpoints
    of divided weights come from torch itself, which has no class for gloo's."""
    known = isinstance(error, Lost | dist.DistError)
    return known or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


@dataclass(frozen=True)
class TorchRanks(Ranks):
    """Several processes that torch.distributed connects."""

    def gather(self, value: Any) -> list[Any]:
        try:
            own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"what was played cannot be sent to the other ranks ({error}); make the states of "
                "the environment's observations plain data, or train in one process"
            ) from error
        with _connected():
            sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([len(own)]))
            most = max(int(size) for size in sizes)
            padded = torch.zeros(most, dtype=torch.uint8)
            padded[: len(own)] = own
            parts = [torch.zeros(most, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, padded)
        pairs = zip(parts, sizes, strict=True)
        return [pickle.loads(part[: int(size)].numpy().tobytes()) for part, size in pairs]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        with _connected():
            for tensor in tensors:
                dist.all_reduce(tensor)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(first_line(error)) from error


@contextlib.contextmanager
def joined(launch: Launch) -> Iterator[Ranks]:
    """Connect the ranks, watch them, and end them together."""
    seconds = deadline()
    ranks = TorchRanks(launch.rank, launch.size)
    with _signals(launch.rank):
        listens = launch.rank == 0 and not launch.agent
        watch = _Watch(launch, store=_store(launch, listens=listens), deadline=seconds)
        try:
            _use_gpu(launch)
            _connect(launch, watch)
            watch.start()
            _check_alike(ranks)
            yield ranks
            ranks.gather(None)  # nobody leaves while others need it
        except BaseException as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already
            raise watch.ending(error) from error
        finally:
            watch.stop()
    dist.destroy_process_group()


@contextlib.contextmanager
def _signals(rank: int) -> Iterator[None]:
    """SIGTERM becomes an exception, so that a rank can say why it ends. Ctrl-C reaches every rank of
    a terminal: rank 0 answers it, with a checkpoint, and the others end with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    last = -TOGETHER

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        passed_on = time.monotonic() - last < TOGETHER
        last = time.monotonic()
        if not passed_on:
            raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        answer = signal.SIG_IGN if rank else interrupt
        before[signal.SIGINT] = signal.signal(signal.SIGINT, answer)
    yield
    # after an error SIGTERM stays ignored: torchrun sends it as soon as one rank has ended, and it
    # must not come before the sentence is written
    for number, handler in before.items():
        signal.signal(number, handler)


def _store(launch: Launch, *, listens: bool = False) -> Store:
    """A connection to torchrun's key-value store, or to one that rank 0 opens."""
    where = f"{launch.address}:{launch.port}"
    wait = min(JOIN, deadline()) if "TUTELAGE_RANK_DEADLINE" in os.environ else JOIN
    try:
        store = _within(
            wait,
            partial(
                TCPStore,
                launch.address,
                launch.port,
                launch.size,
                is_master=listens,
                timeout=timedelta(seconds=wait),
                wait_for_workers=False,
            ),
        )
    except RuntimeError as error:
        reason = first_line(error)
        if listens and ("EADDRINUSE" in reason or "in use" in reason):
            raise RunError(
                f"rank 0 cannot listen on {where}, where another program does; choose another port "
                "with MASTER_PORT (torchrun: --master-port)"
            ) from error
        raise RunError(
            f"rank {launch.rank} did not reach the other ranks at {where} ({reason[:200]}); see "
            "that MASTER_ADDR and MASTER_PORT name the machine and the port of rank 0, that nothing "
            "else listens there, and that the port is open"
        ) from error
    return PrefixStore(f"tutelage/{launch.attempt}", store)


def _within(seconds: float, connect: Callable[[], TCPStore]) -> TCPStore:
    """What connects, which where another program listens would wait for its answer for ever.
    Raises RuntimeError after so many seconds."""
    found: list[TCPStore | RuntimeError] = []

    def call() -> None:
        try:
            found.append(connect())
        except RuntimeError as error:
            found.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout=seconds + BEAT)
    if not found:
        raise RuntimeError(f"no answer within {seconds:g} seconds")
    if isinstance(found[0], RuntimeError):
        raise found[0]
    return found[0]


def _use_gpu(launch: Launch) -> None:
    """Each rank of a machine has a GPU of its own."""
    if not torch.cuda.is_available():
        return
    if launch.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"{launch.local_size} ranks were started on a machine with {torch.cuda.device_count()} "
            "GPUs, and each needs one of its own; lower --nproc-per-node, or hide the GPUs with "
            "CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    torch.cuda.set_device(launch.local_rank)


def _connect(launch: Launch, watch: "_Watch") -> None:
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore("group", watch.store),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=JOIN),
        )
    except RuntimeError as error:
        raise Lost(
            f"the {launch.size} ranks could not be connected ({first_line(error)[:200]})"
        ) from error
    # torch 2.14 made it public, and warns about the old name
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    set_timeout(ANY)


def _check_alike(ranks: Ranks) -> None:
    """Refuse ranks that would compute something else. Every rank raises the same."""
    ranks.refuse_unlike(
        {
            "tutelage": __version__,
            "Python": ".".join(map(str, sys.version_info[:2])),
            **{name: metadata.version(name) for name in ("torch", "transformers", "tokenizers")},
        },
        "has {name} {value} and rank 0 has {name} {first}; install the same release everywhere",
    )


@dataclass(slots=True, eq=False)
class _Watch:
    """Beats for one rank, listens to the others, and finds the words for an end."""

    launch: Launch
    store: Store
    deadline: float
    stopped: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    heard: bool = False  # that rank 0 speaks

    @property
    def rank(self) -> int:
        return self.launch.rank

    def start(self) -> None:
        # a connection of its own: a thread that waits in one would hold up the other
        self.thread = threading.Thread(target=self._beats, args=(_store(self.launch),), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopped.set()
        if self.thread is not None:
            self.thread.join(timeout=GRACE)

    # -- in the thread

    def _beats(self, store: Store) -> None:
        watched = range(1, self.launch.size) if self.rank == 0 else range(1)
        seen = dict.fromkeys(watched, (-1, time.monotonic()))
        while not self.stopped.wait(BEAT):
            try:
                store.add(f"beat/{self.rank}", 1)
                problem = _error_in(store)
                for other in watched:
                    beats = store.add(f"beat/{other}", 0)
                    if beats != seen[other][0]:
                        seen[other] = (beats, time.monotonic())
                    elif time.monotonic() - seen[other][1] > self.deadline:
                        problem = problem or (
                            f"rank {other} has not answered for {self.deadline:g} seconds: its "
                            f"process hangs, or its machine is gone; {AGAIN}"
                        )
            except RuntimeError:
                # also at the end of a run, where rank 0 may leave first
                if self.stopped.wait(2 * BEAT):
                    return
                at = f"{self.launch.address}:{self.launch.port}"
                problem = f"what the ranks meet at ({at}) is gone; {AGAIN}"
            if problem:
                self._end_main(store, problem)
                return

    def _end_main(self, store: Store, problem: str) -> None:
        """Interrupt the main thread; where it waits for a rank that hangs, end the process."""
        with contextlib.suppress(RuntimeError):
            _set_error(store, problem)
            if self.rank == 0:
                store.add("heard", 1)
            until = time.monotonic() + GRACE
            while not self._heard(store) and time.monotonic() < until:
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        if self.stopped.wait(3 * GRACE):
            return
        if self._speaks(store, wait=0.0):
            sys.stderr.write(f"tutelage: {problem}\n")
            sys.stderr.flush()
        os._exit(CODE)

    # -- in the main thread

    def ending(self, error: BaseException) -> BaseException:
        """What to raise for an error: itself, the sentence of another rank, or nothing that is said
        twice."""
        own = not (isinstance(error, Terminated) or is_lost(error))
        problem = self._in_words(error) if own else self._found()
        with contextlib.suppress(RuntimeError):
            problem = _set_error(self.store, problem)
        if self.rank == 0:
            with contextlib.suppress(RuntimeError):
                self.store.add("heard", 1)
                self._wait_for_others()
            return error if own else RunError(problem)
        if own and not isinstance(error, TutelageError):
            return error  # a fault of the program: its traceback is needed
        if self._speaks(self.store, wait=GRACE):
            return error if own else RunError(problem)
        return Elsewhere(problem)

    def _in_words(self, error: BaseException) -> str:
        who = f"rank {self.rank}" if self.rank else ""
        if isinstance(error, KeyboardInterrupt):
            return f"stopped by Ctrl-C; {AGAIN}"
        if isinstance(error, TutelageError):
            return f"{who}: {error}" if who else str(error)
        what = str(error).splitlines()[:1]
        return f"{who or 'rank 0'} failed with {': '.join([type(error).__name__, *what])}"

    def _found(self) -> str:
        """What another rank said before it ended, or who ended without a word."""
        try:
            before = self._counts()
            for _ in range(6):
                if problem := _error_in(self.store):
                    return problem
                time.sleep(BEAT)
            now = self._counts()
        except RuntimeError:
            at = f"{self.launch.address}:{self.launch.port}"
            return f"what the ranks meet at ({at}) is gone; {AGAIN}"
        silent = [rank for rank in before if before[rank] == now[rank]]
        if silent:
            some = ", ".join(map(str, silent))
            return (
                f"rank {some} ended without a word: killed, for lack of memory perhaps, or its "
                f"machine failed; {AGAIN}"
            )
        return f"torchrun ended this run, or the network failed; {AGAIN}"

    def _counts(self) -> dict[int, int]:
        others = (rank for rank in range(self.launch.size) if rank != self.rank)
        return {rank: self.store.add(f"beat/{rank}", 0) for rank in others}

    def _speaks(self, store: Store, *, wait: float) -> bool:
        """Whether this rank says the sentence: rank 0 does, and where it does not live, one other."""
        until = time.monotonic() + wait
        try:
            while self.rank and time.monotonic() < until:
                if self._heard(store):
                    return False
                time.sleep(0.05)
            return self.rank == 0 or (not self._heard(store) and store.add("speaker", 1) == 1)
        except RuntimeError:
            return not self.heard  # nobody can be asked

    def _heard(self, store: Store) -> bool:
        """Whether rank 0 knows what is wrong, and says it."""
        if not self.heard and store.add("heard", 0):
            self.heard = True
            store.add(f"left/{self.rank}", 1)
        return self.heard

    def _wait_for_others(self) -> None:
        """The store ends with rank 0 where that opened it: first the others hear that it speaks."""
        until = time.monotonic() + GRACE / 2
        while not self.launch.agent and time.monotonic() < until:
            if all(self.store.add(f"left/{r}", 0) for r in range(1, self.launch.size)):
                return
            time.sleep(0.05)


def _error_in(store: Store) -> str:
    return store.compare_set("error", "", "").decode()


def _set_error(store: Store, problem: str) -> str:
    """Say what went wrong; the words of whoever said so first."""
    return store.compare_set("error", "", problem).decode()
