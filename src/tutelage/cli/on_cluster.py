"""`tutelage train --cluster`: the ranks run on a Ray cluster, and their lines appear here."""

import argparse
import json
from dataclasses import asdict
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tutelage.config.schema import Config
from tutelage.errors import ConfigError
from tutelage.runs import cluster, cluster_servers
from tutelage.runs.cluster import Hosts, Placed
from tutelage.runs.cluster_servers import Servers


def train(arguments: argparse.Namespace, config: Config, console: Console) -> int:
    """Place the ranks, start them and follow them to their end. The exit code.

    Raises ConfigError where the cluster cannot run the file, and RunError where it is lost.
    """
    if config.rollout.ahead:
        raise ConfigError(
            "rollout.concurrency has ahead = 1, which plays in a second process of one machine; "
            "leave it out, or --cluster"
        )
    with cluster.connected(arguments.cluster) as ray:
        needed = cluster_servers.needed(config, gpus=cluster.gpus_of(ray))
        taken = sum(server.gpus for server in needed)
        with cluster.placed(ray, ranks=arguments.ranks, taken=taken) as places:
            size = len(places.seats)
            cluster_servers.refuse_few(config, size)
            workers = places.check(str(arguments.file), arguments.overrides)
            with (
                cluster.environments(ray, ranks=size, workers=workers) as hosts,
                cluster_servers.servers(ray, needed) as servers,
            ):
                return _on(arguments, config, console, Whole(places, hosts, servers))


class Whole(NamedTuple):
    """Everything of a run that has a place on the cluster."""

    places: Placed
    hosts: Hosts
    servers: Servers


def _on(arguments: argparse.Namespace, config: Config, console: Console, whole: Whole) -> int:
    """Show what runs where, and run it."""
    if arguments.dry_run:
        from tutelage.cli import dry_run

        dry_run.show(dry_run.make(config, gpu=arguments.gpu), console)
        console.print(table(whole))
        return 0
    places, size = whole.places, len(whole.places.seats)
    more = zip(whole.hosts.variables(size), whole.servers.variables(size), strict=True)
    places.start(of_ranks(arguments), [{**played, **served} for played, served in more])
    if arguments.json:
        cluster.pass_on("stdout", json.dumps(_line(whole)) + "\n")
    elif not arguments.quiet:
        console.print(table(whole))
    return places.follow(cluster.pass_on)


def of_ranks(arguments: argparse.Namespace) -> list[str]:
    """What each rank is called with. The file is trusted there, since it was read here: a machine
    of the cluster may not know this user's runs."""
    switches = ("resume", "quiet", "json")
    chosen = [f"--{name}" for name in switches if getattr(arguments, name)]
    if arguments.sharded != "no":
        chosen.append(f"--sharded={arguments.sharded}")
    sinks = [f"--sink={name}" for name in arguments.sink]
    return ["train", str(arguments.file), *arguments.overrides, "--trust", *chosen, *sinks]


def table(whole: Whole) -> Table:
    """What runs where."""
    places, hosts, servers = whole
    shown = Table("what", "node", "process", "GPU", box=None, pad_edge=False)
    for seat in places.seats:
        gpus = ", ".join(seat.gpus) or "none"
        shown.add_row(f"rank {seat.rank}", seat.node, str(seat.pid or "-"), gpus)
    for rank, place in enumerate(hosts.places):
        for share in place.shares:
            workers = f"{share.workers} worker{'s' * (share.workers != 1)}"
            shown.add_row(f"environments of rank {rank}", hosts.nodes[share.bundle], workers, "")
    for served in servers.seats:
        gpus = ", ".join(served.gpus) or "none"
        shown.add_row(served.server, served.node, "server", gpus)
    return shown


def _line(whole: Whole) -> dict[str, object]:
    places, hosts, servers = whole
    played = [
        {"rank": rank, "node": hosts.nodes[share.bundle], "workers": share.workers}
        for rank, place in enumerate(hosts.places)
        for share in place.shares
    ]
    ranks = [asdict(seat) for seat in places.seats]
    served = cluster_servers.line(servers)
    return {"event": "placed", "ranks": ranks, "environments": played, "servers": served}
