"""A pool whose environments run on the nodes of a Ray cluster, each node's in an actor that holds
worker processes.

The workers of an actor are a `ProcessPool` with its deadlines, so an environment that raises, hangs
or dies costs its own episode. An actor that is lost, with its node or alone, costs none: Ray
restarts it where there is room, and its episodes are rebuilt there from their actions. Answers come
in the order of requests, as those of a `ProcessPool` do.
"""

import contextlib
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from tutelage.envs.base import Suite
from tutelage.envs.pool import (
    CLOSE_SECONDS,
    START_SECONDS,
    Answer,
    Failure,
    Incidents,
    ProcessPool,
    unpacked,
)
from tutelage.envs.wire import pack_observation, pack_task, unpack_task
from tutelage.envs.worker import Start, guarded
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Observation, Stop, Task

PLACE: Final = "TUTELAGE_ENVIRONMENTS"
"""Environment variable: where a rank's environments are placed, as `Place.text` writes it."""
CARRIED: Final = (
    *("TUTELAGE_", "OMP_", "MKL_", "TORCH", "HF_", "TOKENIZERS_", "NCCL_", "GLOO_"),
    *("PYTHONPATH", "CUDA_DEVICE_ORDER", "ONEDNN_", "LRU_CACHE_CAPACITY"),
)
"""How variables begin that go with a run from node to node; others are the node's own."""
LOGGER: Final = logging.getLogger(__name__)
LOSSES: Final = 2
"""Times that an episode is rebuilt after its actor was lost; after that it counts as broken: an
episode that takes its node down with it would never end."""
ROOM: Final = 60.0
"""Seconds in which the cluster must have room for what is placed, and for what is placed anew after
a node was lost; TUTELAGE_CLUSTER_DEADLINE replaces them."""
LOOK: Final = 2.0
"""Seconds between two looks at whether all that is placed still has a node."""


class Share(NamedTuple):
    """An actor of a rank: its place in the placement group, and its worker processes."""

    bundle: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rank's environments are placed.

    address, namespace  of the cluster and of the run
    group               the name of the placement group
    """

    address: str
    namespace: str
    group: str
    shares: tuple[Share, ...]

    def text(self) -> str:
        return json.dumps([self.address, self.namespace, self.group, self.shares])


def placed(environ: Mapping[str, str] = os.environ) -> Place | None:
    """Where this process's environments are placed; None where no cluster holds them."""
    text = environ.get(PLACE, "")
    if not text:
        return None
    address, namespace, group, shares = json.loads(text)
    return Place(
        address=address,
        namespace=namespace,
        group=group,
        shares=tuple(Share(*share) for share in shares),
    )


def carried(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that go with a run from node to node."""
    return {name: value for name, value in environ.items() if name.startswith(CARRIED)}


def patience(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds in which the cluster must have room. Raises ConfigError for a wrong setting."""
    text = environ.get("TUTELAGE_CLUSTER_DEADLINE", "")
    try:
        seconds = float(text or ROOM)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(
            f"the environment variable TUTELAGE_CLUSTER_DEADLINE is {text!r}, but must be the "
            f"seconds to wait for room in the cluster; unset it for {ROOM:g}"
        )
    return seconds


Packed = tuple[str, Any, str]
"""An answer: a key, an observation and nothing, or a reason and how the episode stopped."""


class Host:
    """The actor on a node: worker processes, and the environments in them."""

    def __init__(
        self,
        suite: bytes,
        workers: int,
        seconds: float,
        places: tuple[str, Sequence[str]],
        environ: Mapping[str, str],
    ) -> None:
        """A pickled suite, which only the workers load, and the trainer's folder, search path and
        variables, with which they find it."""
        folder, path = places
        os.environ.update({name: value for name, value in environ.items() if name != PLACE})
        os.chdir(folder)
        sys.path.extend(place for place in path if place not in sys.path)
        # a worker process imports the main module again, which here is Ray's own program
        vars(sys.modules["__main__"]).pop("__file__", None)
        self.pool = ProcessPool(
            Start(load=partial(pickle.loads, suite)),
            workers=workers,
            reset_seconds=seconds,
            step_seconds=seconds,
            reports=False,
        )
        self.last: tuple[int, list[Packed]] = -1, []

    def turn(self, number: int, requests: Sequence[Sequence[Any]]) -> list[Packed] | None:
        """Take requests, ["open", key, task, actions], ["act", key, action] and ["close", key], and
        wait for all answers. None where this actor does not know an episode: it was restarted since
        that began.

        number  of the turn: Ray may ask once more where a connection broke
        """
        if number == self.last[0]:
            return self.last[1]
        opened = {key for verb, key, *_ in requests if verb == "open"} | set(self.pool.live)
        if any(verb == "act" and key not in opened for verb, key, *_ in requests):
            return None
        answers: list[Packed] = []
        for verb, key, *more in requests:
            if verb == "act":
                self.pool.act(key, *more)
                continue
            if key in self.pool.live:
                self.pool.close(key)
            if verb == "open":
                packed, actions = more
                task = guarded(partial(unpack_task, packed))
                if isinstance(task, Failure):
                    answers.append(_packed(key, task))
                else:
                    self.pool.open(key, task, actions)
        answers += [_packed(key, answer) for key, answer in self.pool.poll(block=True)]
        self.last = number, answers
        return answers

    def finish(self) -> tuple[int, str]:
        """End the workers. How many environments could not be closed, and why."""
        incidents = self.pool.incidents
        self.pool.shutdown()
        return incidents.unclosed, incidents.example


def _packed(key: str, answer: Observation | Failure) -> Packed:
    if isinstance(answer, Failure):
        return key, answer.reason, answer.stop.value
    return key, pack_observation(answer), ""


@dataclass(slots=True)
class _Live:
    """An episode as this side knows it: enough to rebuild it on another node."""

    task: Any  # packed
    host: int
    actions: list[str] = field(default_factory=list)
    losses: int = 0


class SpreadPool:
    """The environments of a rank on the nodes of a cluster. See `pool.Pool`."""

    def __init__(self, suite: Suite, place: Place, *, seconds: float) -> None:
        """Raises EnvError where the cluster cannot be joined."""
        self.place, self.seconds = place, seconds
        self.ray = joined(place.address, place.namespace)
        self.group = self.ray.util.get_placement_group(place.group)
        self.hosts = [self._start(pickle.dumps(suite), share) for share in place.shares]
        # each worker has its turn, as in a pool of this process
        self.slots = [at for at, share in enumerate(place.shares) for _ in range(share.workers)]
        self.turn = self.number = 0
        self.incidents = Incidents()
        self.live: dict[str, _Live] = {}
        self.owed: list[str] = []
        self.answers: dict[str, Observation | Failure] = {}
        self.requests: list[list[list[Any]]] = [[] for _ in self.hosts]

    def _start(self, suite: bytes, share: Share) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(
            placement_group=self.group,
            placement_group_bundle_index=share.bundle,
        )
        actor = self.ray.remote(Host).options(
            num_cpus=share.workers,
            max_restarts=-1,
            max_task_retries=-1,  # what was asked is asked again where the actor is restarted
            scheduling_strategy=strategy,
        )
        places = os.getcwd(), [*sys.path]
        return actor.remote(suite, share.workers, self.seconds, places, carried())

    def open(self, key: str, task: Task) -> None:
        packed = guarded(partial(pack_task, task))
        if isinstance(packed, Failure):
            reason = f"its task or action cannot be sent to a worker: {packed.reason}"
            self.answers[key] = Failure(stop=Stop.ERROR, reason=reason)
            packed = None
        host = self.slots[self.turn % len(self.slots)]
        self.turn += 1
        self.live[key] = _Live(task=packed, host=host)
        self.owed.append(key)
        if key not in self.answers:
            self.requests[host].append(["open", key, packed, []])

    def act(self, key: str, action: str) -> None:
        live = self.live[key]
        live.actions.append(action)
        self.owed.append(key)
        self.requests[live.host].append(["act", key, action])

    def close(self, key: str) -> None:
        """End an episode; an outstanding answer of it is dropped."""
        live = self.live.pop(key)
        self.owed = [k for k in self.owed if k != key]
        self.answers.pop(key, None)
        requests = self.requests[live.host]
        requests[:] = [request for request in requests if request[1] != key]
        requests.append(["close", key])

    def poll(self, *, block: bool) -> list[Answer]:
        """All outstanding answers, in the order of the requests; see `pool.Pool`."""
        waiting = {}
        for at, requests in enumerate(self.requests):
            if any(verb != "close" for verb, *_ in requests):
                waiting[self._ask(at)] = at
        owed = set(self.owed)
        while waiting:
            reference = next(iter(waiting))
            at = waiting.pop(reference)
            answers = self._answer(reference)
            if answers is None:
                self._rebuild(at)
                waiting[self._ask(at)] = at
                continue
            self.requests[at] = []
            for key, packed, stop in answers:
                found = Failure(stop=Stop(stop), reason=packed) if stop else unpacked(packed)
                if key in owed:  # else it was rebuilt while nobody waits for it
                    self.incidents.count(found)
                    self.answers[key] = found
        in_order, self.owed = self.owed, []
        return [(key, self.answers.pop(key)) for key in in_order]

    def _ask(self, at: int) -> Any:
        self.number += 1
        return self.hosts[at].turn.remote(self.number, self.requests[at])

    def _answer(self, reference: Any) -> list[Packed] | None:
        """What an actor answered; None where it was restarted and knows nothing."""
        errors = self.ray.exceptions
        try:
            self._wait(reference)
            found: list[Packed] | None = self.ray.get(reference)
        except errors.RayTaskError as error:
            raise EnvError(str(error.cause)) from error
        except errors.RayError as error:
            raise EnvError(
                f"environments on the cluster cannot be played ({last_line(error)}); install "
                "tutelage on every node as here, see that the run's folder is on each, and "
                "continue with --resume"
            ) from error
        return found

    def _wait(self, reference: Any) -> None:
        """Wait for an answer. Raises EnvError where an actor lost its node and the cluster has no
        other, or where none comes although each environment has its deadline."""
        from ray.util import placement_group_table

        actions = sum(1 + len(live.actions) for live in self.live.values())
        limit = START_SECONDS + CLOSE_SECONDS + (1 + actions) * self.seconds
        since = homeless = time.monotonic()
        while not self.ray.wait([reference], timeout=LOOK)[0]:
            now = time.monotonic()
            if placement_group_table(self.group)["state"] == "CREATED":
                homeless = now
            else:
                since = now  # nothing is played there meanwhile
            if now - homeless > patience():
                raise EnvError(
                    f"a node with environments is lost, and within {patience():g} seconds no other "
                    "had a free CPU for each of their workers; add a node or lower env.workers, "
                    "and continue with --resume"
                )
            if now - since > limit:
                raise EnvError(
                    f"environments on the cluster have not answered for {limit:g} seconds; see "
                    "`ray status`, and continue with --resume"
                )

    def _rebuild(self, at: int) -> None:
        """Make the requests with which an actor that was restarted comes to its episodes again."""
        self.requests[at] = []
        lost = {key: live for key, live in self.live.items() if live.host == at}
        LOGGER.warning(
            "a node or an actor with environments was lost; %d episodes are played again elsewhere",
            len(lost),
        )
        for key, live in lost.items():
            if key in self.answers:
                continue
            live.losses += 1
            if live.losses <= LOSSES:
                self.requests[at].append(["open", key, live.task, list(live.actions)])
            elif key in self.owed:
                reason = f"the node that played it was lost {LOSSES + 1} times"
                self.answers[key] = Failure(stop=Stop.ERROR, reason=reason)

    def shutdown(self) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            for at, requests in enumerate(self.requests):
                self.requests[at] = [each for each in requests if each[0] == "close"]
                self._ask(at)
            asked = [host.finish.remote() for host in self.hosts]
            for unclosed, example in self.ray.get(asked, timeout=2 * CLOSE_SECONDS):
                self.incidents.unclosed += unclosed
                self.incidents.example = self.incidents.example or example
        for host in self.hosts:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self.ray.kill(host)
        self.incidents.log()
        self.incidents = Incidents()


def joined(address: str, namespace: str) -> Any:
    """The module `ray`, connected to the run's cluster. Raises EnvError where it cannot be joined."""
    import ray

    if ray.is_initialized():
        return ray
    try:
        with signals_as_they_are():
            ray.init(address=address, namespace=namespace, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise EnvError(
            f"the Ray cluster at {address} cannot be joined from here ({last_line(error)}); "
            "see `ray status`, and continue with --resume"
        ) from error
    return ray


@contextlib.contextmanager
def signals_as_they_are() -> Iterator[None]:
    """Ray answers SIGTERM in its own way once it is connected, and this process has its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def last_line(error: BaseException) -> str:
    """What Ray says last, below a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
