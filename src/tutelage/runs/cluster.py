"""A run on a Ray cluster: ranks are placed on its nodes, started together, followed and ended.

Ray decides where a rank runs and notices what dies; the ranks are those that `torchrun` would start,
and watch each other as `runs.distributed` says. Ray is imported only here and in what it runs.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, Final

from tutelage.envs.spread import (
    PLACE,
    Place,
    Share,
    carried,
    last_line,
    patience,
    signals_as_they_are,
)
from tutelage.errors import ConfigError, RunError, first_line, install
from tutelage.runs.interrupt import asked_by
from tutelage.runs.launcher import Launcher, Written, versions
from tutelage.runs.torchrun import AGAIN, deadline, launch_of

REACHED: Final = 5.0
"""Seconds in which a cluster must answer."""
STARTED: Final = 120.0
"""Seconds in which a node must start an actor and import the suite."""
ENDED: Final = 60.0
"""Seconds beyond the ranks' own deadline in which all must have ended after one has failed."""
LOOK: Final = 1.0
"""Seconds between two looks at what else happened while ranks write nothing."""
PRESSES: Final = 3
"""Ctrl-C so often ends the run without waiting for a checkpoint."""
LOST: Final = -1000
"""In the place of an exit code: the node is gone, or Ray's process that held the rank."""
WRONG: Final = 2
GROUP: Final = "environments"
"""The name of their placement group in the run's namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a rank runs.

    address  of its machine
    node     the address, and the beginning of Ray's id: a machine may have several nodes
    gpus     their numbers on the machine; none on a CPU
    pid      0 before it has started
    """

    rank: int
    address: str
    node: str
    gpus: tuple[str, ...] = ()
    pid: int = 0


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to a cluster until the block ends.

    address  host:port; "auto" for the cluster that this machine belongs to; "local" starts one here

    Raises ConfigError where Ray is not installed or no cluster answers.
    """
    if launch_of() is not None:
        raise ConfigError(
            "--cluster places the ranks itself, and this process is a rank of torchrun already; "
            "start `tutelage train FILE --cluster ...` without torchrun"
        )
    # read when ray is imported; a cluster that this starts sends no statistics
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"--cluster needs Ray; install it with `{install('ray')}`, or train on one machine "
            "with `torchrun --nproc-per-node N -m tutelage train FILE`"
        ) from None
    _reach(address)
    local: dict[str, object] = {"include_dashboard": False} if address == "local" else {}
    try:
        with signals_as_they_are():
            ray.init(
                address=address,
                namespace=f"tutelage-{uuid.uuid4().hex[:12]}",
                log_to_driver=False,
                logging_level="ERROR",
                **local,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if address == "auto":
            raise ConfigError(
                f"--cluster auto found no Ray cluster that this machine belongs to "
                f"({first_line(error)[:150]}); start one with `ray start --head`, give its address, "
                "or start one for this run alone with --cluster local"
            ) from error
        raise ConfigError(
            f"--cluster {address}: Ray cannot join ({first_line(error)[:200]}); give HOST:PORT as "
            "`ray start --head` prints it, on a machine that belongs to the cluster"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises ConfigError where nothing listens: Ray itself would try for a minute."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not (host and port.isdigit() and int(port) < 2**16):
        raise ConfigError(
            f"--cluster {address}: that is no address of a cluster; give HOST:PORT as `ray start "
            "--head` prints it, auto, or local"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED).close()
    except OSError as error:
        raise ConfigError(
            f"--cluster {address}: nothing answers there ({error.strerror or error}); see that the "
            "cluster is up (`ray status`), or start one with `ray start --head`"
        ) from error


@dataclass(kw_only=True)
class Placed:
    """Ranks that have a place on the cluster, and what they wrote and how they ended.

    ray        the module, connected
    launchers  handles of the actors that hold the ranks
    """

    ray: Any
    launchers: Sequence[Any]
    seats: list[Seat]
    codes: dict[int, int] = field(default_factory=dict)
    spoke: bool = False  # whether a rank has said why it ended

    def check(self, file: str, overrides: Sequence[str]) -> int:
        """How many worker processes of environments each rank has that may run on other nodes.

        Raises ConfigError where a node has other releases than this process, or lacks what the file
        needs.
        """
        folder = os.getcwd()
        for seat, (there, gpus) in zip(self.seats, self._ask("about"), strict=True):
            refuse_other_releases(seat.node, there)
            self.seats[seat.rank] = replace(seat, gpus=tuple(gpus))
        proofs = self._ask("prove", folder, file, list(overrides))
        for seat, (problem, _) in zip(self.seats, proofs, strict=True):
            if problem:
                raise ConfigError(f"node {seat.node}: {problem}")
        return min(int(workers) for _, workers in proofs)

    def start(self, arguments: Sequence[str], more: Sequence[Mapping[str, str]]) -> None:
        """Start every rank with these arguments of `tutelage`, each with variables of its own."""
        (port,) = self._get([self.launchers[0].free_port.remote()])
        ranks_at = Counter(seat.address for seat in self.seats)
        before: Counter[str] = Counter()
        starting = []
        for launcher, seat in zip(self.launchers, self.seats, strict=True):
            environ = {
                **carried(),
                **more[seat.rank],
                "RANK": str(seat.rank),
                "WORLD_SIZE": str(len(self.seats)),
                # Ray shows each process its own GPU alone, which is the first it sees
                "LOCAL_RANK": "0" if seat.gpus else str(before[seat.address]),
                "LOCAL_WORLD_SIZE": str(ranks_at[seat.address]),
                "MASTER_ADDR": self.seats[0].address,
                "MASTER_PORT": str(port),
            }
            before[seat.address] += 1
            starting.append(launcher.start.remote(list(arguments), os.getcwd(), environ))
        pids = self._get(starting)
        for seat, pid in zip(list(self.seats), pids, strict=True):
            self.seats[seat.rank] = replace(seat, pid=int(pid))

    def _ask(self, method: str, *arguments: object) -> list[Any]:
        asked = [getattr(launcher, method).remote(*arguments) for launcher in self.launchers]
        return self._get(asked)

    def _get(self, references: list[Any]) -> list[Any]:
        """Answers of launchers, one by one, so that who does not give one is named."""
        until = time.monotonic() + STARTED
        answers = []
        for seat, reference in zip(self.seats, references, strict=False):
            try:
                left = max(0.0, until - time.monotonic())
                answers.append(self.ray.get(reference, timeout=left))
            except self.ray.exceptions.GetTimeoutError:
                raise RunError(
                    f"node {seat.node} did not start rank {seat.rank} or import the suite within "
                    f"{STARTED:g} seconds; see `ray status` and the suite's module"
                ) from None
            except self.ray.exceptions.RayError as error:
                raise RunError(
                    f"node {seat.node} cannot start rank {seat.rank} ({last_line(error)}); install "
                    "tutelage and Ray there as on this machine"
                ) from error
        return answers

    # -- while the ranks run

    def follow(self, write: Callable[[str, str], None]) -> int:
        """Pass on what the ranks write until all have ended. The run's exit code.

        write  receives a stream, "stdout" or "stderr", and text

        Ctrl-C is passed on to the ranks. Raises RunError where they ended and none said why.
        """
        ray = self.ray
        reading = {launcher.read.remote(): rank for rank, launcher in enumerate(self.launchers)}
        failed_at = 0.0
        with self._passing_on():
            while reading:
                ready, _ = ray.wait(list(reading), timeout=LOOK)
                for reference in ready:
                    rank = reading.pop(reference)
                    if self._heard(rank, reference, write):
                        reading[self.launchers[rank].read.remote()] = rank
                if any(self.codes.values()):
                    failed_at = failed_at or time.monotonic()
                    if time.monotonic() - failed_at > deadline() + ENDED:
                        break
        return self._end()

    def _heard(self, rank: int, reference: Any, write: Callable[[str, str], None]) -> bool:
        """Take what a rank wrote. Whether it still runs."""
        try:
            written: Written = self.ray.get(reference)
        except self.ray.exceptions.RayError:
            written = Written([], LOST)
        for stream, text in written.chunks:
            self.spoke = self.spoke or text.startswith(("tutelage: ", "Traceback"))
            write(stream, text)
        if written.code is not None:
            self.codes[rank] = written.code
        return written.code is None

    @contextlib.contextmanager
    def _passing_on(self) -> Iterator[None]:
        """Ctrl-C goes to every rank, of which rank 0 writes a checkpoint; the third ends the run."""
        asked = asked_by()
        before = signal.getsignal(asked)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return
        presses = 0

        def press(number: int, frame: FrameType | None) -> None:
            nonlocal presses
            presses += 1
            if presses == PRESSES:
                raise KeyboardInterrupt
            for launcher in self.launchers:
                launcher.send.remote(signal.SIGINT)

        signal.signal(asked, press)
        try:
            yield
        finally:
            signal.signal(asked, before)

    def _end(self) -> int:
        """The run's exit code: rank 0's, unless another failed on its own."""
        codes = [self.codes.get(seat.rank, LOST) for seat in self.seats]
        if not any(codes):
            return 0
        if self.spoke:
            return next(code if code > 0 else WRONG for code in codes if code)
        rank = next(rank for rank, code in enumerate(codes) if code)
        seat, code = self.seats[rank], codes[rank]
        if rank not in self.codes:
            what = "did not end after another rank had failed"
        elif code == LOST:
            what = "is lost: its node is gone, or Ray ended the process that held it"
        elif code < 0:
            name = signal.Signals(-code).name
            what = f"was ended by {name}: killed, for lack of memory perhaps"
        else:
            what = f"ended with exit code {code} and said nothing"
        raise RunError(f"rank {rank} on node {seat.node} {what}; {AGAIN}")


@contextlib.contextmanager
def placed(ray: Any, *, ranks: int, taken: int = 0) -> Iterator[Placed]:
    """A place on the cluster for so many ranks; 0 takes one for each GPU, or one. The places, and
    what runs on them, end with the block.

    taken  GPUs that servers will take

    Raises ConfigError where the cluster has no room within its deadline.
    """
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    gpus = gpus_of(ray)
    size = ranks or max(1, gpus - taken)
    need = {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}
    wait = patience()
    group = placement_group([dict(need) for _ in range(size)], strategy="PACK")
    try:
        if not group.wait(wait):
            raise ConfigError(
                f"the cluster has no room for {counted(size, 'rank')}, which need a "
                f"{' and a '.join(need)} each, within {wait:g} seconds: {has(ray)}; lower --ranks, "
                "end what else runs there, or add nodes"
            )
        launcher = ray.remote(Launcher)
        launchers = [
            launcher.options(
                num_cpus=need["CPU"],
                num_gpus=need.get("GPU", 0),
                max_concurrency=4,  # a signal is sent while another call waits for lines
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=rank
                ),
            ).remote()
            for rank in range(size)
        ]
        names = node_names(ray)
        bundles = ray.util.placement_group_table(group)["bundles_to_node_id"]
        seats = [
            Seat(
                rank=rank, address=names[bundles[rank]].partition(" ")[0], node=names[bundles[rank]]
            )
            for rank in range(size)
        ]
        yield Placed(ray=ray, launchers=launchers, seats=seats)
    finally:
        with contextlib.suppress(Exception):  # the cluster may be gone
            remove_placement_group(group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Where the environments of every rank are placed: an actor on each node, which holds some of
    its worker processes.

    nodes  of each actor, by its number in the group
    """

    places: Sequence[Place]
    nodes: Sequence[str]

    def variables(self, ranks: int) -> list[dict[str, str]]:
        """What tells each rank where its environments are."""
        if not self.places:
            return [{PLACE: ""}] * ranks
        return [{PLACE: place.text()} for place in self.places]


@contextlib.contextmanager
def environments(ray: Any, *, ranks: int, workers: int) -> Iterator[Hosts]:
    """A place on the cluster for the environments of so many ranks, spread over its nodes; each rank
    has so many worker processes, and each of them a CPU. The places end with the block.

    Raises ConfigError where the cluster has no room within its deadline.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    if not workers:
        yield Hosts(places=(), nodes=())
        return
    actors = min(workers, sum(node["Alive"] for node in ray.nodes()))
    sizes = [len(range(at, workers, actors)) for at in range(actors)]
    wait, context = patience(), ray.get_runtime_context()
    group = placement_group(
        [{"CPU": size} for _ in range(ranks) for size in sizes], strategy="SPREAD", name=GROUP
    )
    try:
        if not group.wait(wait):
            raise ConfigError(
                f"the cluster has no room for the {counted(workers, 'environment worker')} of each "
                f"of {counted(ranks, 'rank')}, which need a CPU each, within {wait:g} seconds: "
                f"{has(ray)}; lower env.workers or --ranks, or add nodes"
            )
        names = node_names(ray)
        nodes = ray.util.placement_group_table(group)["bundles_to_node_id"]
        places = [
            Place(
                address=context.gcs_address,
                namespace=context.namespace,
                group=GROUP,
                shares=tuple(Share(rank * actors + at, size) for at, size in enumerate(sizes)),
            )
            for rank in range(ranks)
        ]
        yield Hosts(places=places, nodes=[names[nodes[at]] for at in range(len(nodes))])
    finally:
        with contextlib.suppress(Exception):  # the cluster may be gone
            remove_placement_group(group)


def refuse_other_releases(node: str, there: Mapping[str, str]) -> None:
    """Raises ConfigError where a node has other releases than this process."""
    for name, version in versions().items():
        if there[name] != version:
            raise ConfigError(
                f"node {node} has {name} {there[name]} and this machine has {name} {version}; "
                "install the same release everywhere"
            )


def node_names(ray: Any) -> dict[str, str]:
    """Each node's address and the beginning of its id, by its id. Several may share a machine."""
    return {
        node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        for node in ray.nodes()
    }


def gpus_of(ray: Any) -> int:
    """The GPUs of a cluster, of all nodes together."""
    return int(ray.cluster_resources().get("GPU", 0))


def has(ray: Any) -> str:
    """What a cluster has, in words."""
    all_of, free = ray.cluster_resources(), ray.available_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    parts = [
        f"{int(all_of.get(kind, 0))} {kind}s, {int(free.get(kind, 0))} of them free"
        for kind in ("CPU", "GPU")
    ]
    return f"it has {counted(nodes, 'node')} with {' and '.join(parts)}"


def counted(number: int, name: str) -> str:
    """A number of things, in words."""
    return f"{number} {name}{'s' * (number != 1)}"


def pass_on(stream: str, text: str) -> None:
    """Write what a rank wrote to this process's own stream."""
    out = sys.stdout if stream == "stdout" else sys.stderr
    out.write(text)
    out.flush()
