"""Places on a Ray cluster for a run's servers: samplers of the student, and further models."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tutelage.config.schema import Config
from tutelage.envs.spread import carried, last_line, patience
from tutelage.errors import ConfigError, RunError
from tutelage.policies.server.hosted import GROUP, RESTARTS, SAMPLER, SERVERS, Place, servers_of
from tutelage.runs.cluster import STARTED, counted, has, node_names, refuse_other_releases
from tutelage.runs.server_host import ServerHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """A server that a file asks for.

    serves  "policy.sampler" or "policies.NAME"
    name    of its actor, and in tables
    gpus    that it takes, 0 or 1
    """

    serves: str
    name: str
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeat:
    """Where a server runs: its node, and its GPUs on it. A lost node's servers move to another."""

    server: str
    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of a run that have a place."""

    needed: Sequence[Needed]
    seats: Sequence[ServerSeat]
    address: str
    namespace: str
    shared: bool

    def variables(self, ranks: int) -> list[dict[str, str]]:
        """What tells each rank its servers: rank r of N has samplers r, r + N and so on to itself,
        since it hands them weights, and shares one server of each further model."""
        found = []
        for rank in range(ranks):
            actors: dict[str, list[str]] = {}
            for serves in dict.fromkeys(each.serves for each in self.needed):
                names = [each.name for each in self.needed if each.serves == serves]
                own = serves == SAMPLER
                actors[serves] = names[rank::ranks] if own else [names[rank % len(names)]]
            place = Place(
                address=self.address, namespace=self.namespace, actors=actors, shared=self.shared
            )
            found.append({SERVERS: place.text() if actors else ""})
        return found


def needed(config: Config, *, gpus: int) -> list[Needed]:
    """The servers that a file asks for, on a cluster with so many GPUs. Where it has some, a server
    takes one, unless its section says that it computes on the CPU."""
    found = []
    for serves, count in servers_of(config).items():
        section = (
            config.policy
            if serves == SAMPLER
            else config.policies[serves.removeprefix("policies.")]
        )
        each = int(gpus > 0 and section.device != "cpu")
        found += [Needed(serves=serves, name=f"{serves} {k}", gpus=each) for k in range(count)]
    return found


def refuse_few(config: Config, ranks: int) -> None:
    """Raises ConfigError where a rank would have no server to sample on."""
    count = servers_of(config).get(SAMPLER, ranks)
    if count < ranks:
        raise ConfigError(
            f"there are {ranks} ranks but policy.sampler.servers = {count}, and each rank hands its "
            f"weights to servers of its own; raise it to {ranks} at least, or lower --ranks"
        )


@contextlib.contextmanager
def servers(ray: Any, needed: Sequence[Needed]) -> Iterator[Servers]:
    """A place on the cluster for these servers, each with a CPU. They end with the block.

    Raises ConfigError where the cluster has no room within its deadline, or a node other releases.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    context = ray.get_runtime_context()
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    found = Servers(
        needed=needed,
        seats=(),
        address=context.gcs_address,
        namespace=context.namespace,
        shared=len(machines) == 1,
    )
    if not needed:
        yield found
        return
    bundles = [{"CPU": 1, "GPU": 1} if each.gpus else {"CPU": 1} for each in needed]
    # a lost node should not take all of them
    group = placement_group(bundles, strategy="SPREAD", name=GROUP)
    wait = patience()
    try:
        if not group.wait(wait):
            gpus = sum(each.gpus for each in needed)
            need = f"a CPU each and {counted(gpus, 'GPU')}" if gpus else "a CPU each"
            raise ConfigError(
                f"the cluster has no room for {counted(len(needed), 'server')}, which need {need}, "
                f"within {wait:g} seconds: {has(ray)}; lower servers or --ranks, or add nodes"
            )
        names = node_names(ray)
        nodes = ray.util.placement_group_table(group)["bundles_to_node_id"]
        actors = [_actor(ray, group, k, each) for k, each in enumerate(needed)]
        seats = [
            _seat(ray, actor, each, names[nodes[k]])
            for k, (actor, each) in enumerate(zip(actors, needed, strict=True))
        ]
        yield replace(found, seats=seats)
    finally:
        with contextlib.suppress(Exception):  # the cluster may be gone
            remove_placement_group(group)


def _actor(ray: Any, group: Any, bundle: int, server: Needed) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    actor = ray.remote(ServerHost).options(
        name=server.name,
        num_cpus=1,
        num_gpus=server.gpus,
        max_restarts=RESTARTS,
        max_task_retries=-1,  # who asks where the server is, is told where it is next
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=bundle
        ),
    )
    return actor.remote(os.getcwd(), carried())


def _seat(ray: Any, actor: Any, server: Needed, node: str) -> ServerSeat:
    errors = ray.exceptions
    try:
        there, gpus = ray.get(actor.about.remote(), timeout=STARTED)
    except errors.GetTimeoutError:
        raise RunError(
            f"node {node} did not start {server.name} within {STARTED:g} seconds; see `ray status`"
        ) from None
    except errors.RayError as error:
        raise RunError(
            f"node {node} cannot start {server.name} ({last_line(error)}); install tutelage and Ray "
            "there as on this machine"
        ) from error
    refuse_other_releases(node, there)
    return ServerSeat(server=server.name, node=node, gpus=tuple(gpus))


def line(servers: Servers) -> list[Mapping[str, object]]:
    """The seats, for a line of JSON."""
    return [{"server": s.server, "node": s.node, "gpus": list(s.gpus)} for s in servers.seats]
